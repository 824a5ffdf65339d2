//! Exchange to entry span, by the rules of the SkyWalking Python agent.
use std::borrow::Cow;

use super::Reference;
use super::Span;
use super::SpanKind;
use super::SpanLayer;
use crate::clock::WallOffset;
use crate::exchange::Ends;
use crate::exchange::Exchange;
use crate::exchange::Outcome;

/// `Python` in OAP's list: the component until the framework is known.
const PYTHON: i32 = 7000;

/// The entry span of a request, as the root of its segment.
pub fn entry(exchange: &Exchange, wall: WallOffset, refs: Vec<Reference>) -> Span {
    let start_ms = wall.wall_ms(exchange.start);
    let target = Target::of(&exchange.target);
    let mut tags = Vec::with_capacity(3);
    tags.extend([("http.method", exchange.method.clone()), ("http.url", url(exchange, &target))]);
    if let Some(status) = exchange.status {
        tags.push(("http.status_code", status.to_string()));
    }
    Span {
        id: 0,
        parent: -1,
        start_ms,
        end_ms: wall.wall_ms(exchange.end).max(start_ms),
        refs,
        operation: operation(&target),
        peer: match &exchange.ends {
            Ends::Tcp { peer, .. } => peer.to_string(),
            Ends::Unix | Ends::Unknown => String::new(),
        },
        kind: SpanKind::Entry,
        layer: SpanLayer::Http,
        component: PYTHON,
        is_error: match exchange.status {
            Some(status) => status >= 400,
            None => exchange.outcome == Outcome::Cut,
        },
        tags,
        queue_wait_ns: exchange.ready.map(|ready| exchange.start.since(ready)),
    }
}

/// Parts of a request target, without query and fragment.
struct Target<'a> {
    /// Host of an absolute URL.
    authority: Option<&'a str>,
    path: &'a str,
}

impl Target<'_> {
    fn of(target: &str) -> Target<'_> {
        let end = target.bytes().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
        let target = target.get(..end).unwrap_or(target);
        let parts = if target.starts_with('/') { None } else { target.split_once("://") };
        match parts {
            Some((scheme, rest)) if !scheme.contains('/') => {
                let slash = rest.find('/').unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(slash).unwrap_or((rest, ""));
                Target { authority: Some(authority), path }
            }
            _ => Target { authority: None, path: target },
        }
    }
}

/// Raw path: what the agent calls an endpoint.
fn operation(target: &Target<'_>) -> String {
    match target.path {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

/// Absolute URL. The host is what the client asked for, else the address that it reached; a Unix socket has
/// none, so it shows as `localhost`.
fn url(exchange: &Exchange, target: &Target<'_>) -> String {
    if exchange.method == "CONNECT" && target.authority.is_none() {
        return format!("http://{}", target.path);
    }
    let named = exchange.host.as_deref().filter(|host| !host.is_empty()).or(target.authority);
    let host = match (named, &exchange.ends) {
        (Some(named), _) => Cow::Borrowed(named.rsplit_once('@').map_or(named, |(_, host)| host)),
        (None, Ends::Tcp { local, .. }) => Cow::Owned(local.to_string()),
        (None, Ends::Unix | Ends::Unknown) => Cow::Borrowed("localhost"),
    };
    match target.path {
        "*" => ["http://", &host].concat(),
        path if path.starts_with('/') => ["http://", &host, path].concat(),
        path => ["http://", &host, "/", path].concat(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::KernelTime;

    pub(in crate::trace) fn exchange() -> Exchange {
        Exchange {
            pid: 7,
            tid: 8,
            ends: Ends::Tcp {
                local: "127.0.0.1:8000".parse().unwrap(),
                peer: "10.0.0.9:40000".parse().unwrap(),
            },
            method: "GET".into(),
            target: "/a/b?c=d".into(),
            host: Some("example.test".into()),
            sw8: None,
            status: Some(200),
            ready: Some(KernelTime(4_000_000)),
            start: KernelTime(5_500_000),
            first_byte: Some(KernelTime(8_000_000)),
            end: KernelTime(9_000_000),
            request_bytes: 1,
            response_bytes: 2,
            outcome: Outcome::Complete,
        }
    }

    fn span(change: impl FnOnce(&mut Exchange)) -> Span {
        let mut exchange = exchange();
        change(&mut exchange);
        entry(&exchange, WallOffset(1_000_000_000), Vec::new())
    }

    fn named(target: &str, change: impl FnOnce(&mut Exchange)) -> (String, String) {
        let span = span(|exchange| {
            exchange.target = target.into();
            change(exchange);
        });
        (span.operation, span.tags[1].1.clone())
    }

    #[test]
    fn has_the_agents_fields_and_tag_order() {
        let span = span(|_| {});
        assert_eq!((span.id, span.parent, span.start_ms, span.end_ms), (0, -1, 1005, 1009));
        assert_eq!((span.operation.as_str(), span.peer.as_str()), ("/a/b", "10.0.0.9:40000"));
        assert_eq!((span.component, span.is_error, span.queue_wait_ns), (7000, false, Some(1_500_000)));
        let tags: Vec<_> = span.tags.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(
            tags,
            [("http.method", "GET"), ("http.url", "http://example.test/a/b"), ("http.status_code", "200")]
        );
    }

    #[test]
    fn a_status_from_400_or_none_at_all_is_an_error() {
        assert!(!span(|exchange| exchange.status = Some(399)).is_error);
        assert!(span(|exchange| exchange.status = Some(404)).is_error);
        let cut = span(|exchange| {
            exchange.status = None;
            exchange.outcome = Outcome::Cut;
        });
        assert!(cut.is_error);
        assert_eq!(cut.tags.len(), 2);
    }

    #[test]
    fn every_form_of_target_has_a_path_and_a_url() {
        let same = |_: &mut Exchange| {};
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(named("http://u:p@h:1/x?y#z", |e| e.host = None), pair("/x", "http://h:1/x"));
        assert_eq!(named("http://h", |e| e.host = None), pair("/", "http://h/"));
        assert_eq!(named("?q", same), pair("/", "http://example.test/"));
        assert_eq!(named("*", same), pair("*", "http://example.test"));
        assert_eq!(
            named("/go/http://h/x", same),
            pair("/go/http://h/x", "http://example.test/go/http://h/x")
        );
        assert_eq!(named("h:443", |e| e.method = "CONNECT".into()), pair("h:443", "http://h:443"));
        assert_eq!(named("/p", |e| e.host = Some("me@h".into())), pair("/p", "http://h/p"));
        assert_eq!(named("/p", |e| e.host = None), pair("/p", "http://127.0.0.1:8000/p"));
    }

    #[test]
    fn a_unix_socket_has_no_peer_and_shows_as_localhost() {
        let span = span(|exchange| {
            exchange.ends = Ends::Unix;
            exchange.host = None;
        });
        assert_eq!(span.peer, "");
        assert_eq!(span.tags[1].1, "http://localhost/a/b");
    }
}
