//! Exchange to entry span, by the rules of the SkyWalking Python agent.
use compact_str::CompactString;
use compact_str::ToCompactString;

use super::Reference;
use super::Span;
use super::SpanKind;
use super::SpanLayer;
use super::digits::address;
use super::digits::decimal;
use super::params;
use super::rules::Rules;
use super::w3c;
use crate::clock::KernelTime;
use crate::clock::WallOffset;
use crate::exchange::Ends;
use crate::exchange::Exchange;
use crate::exchange::Outcome;
use crate::identity::framework::Framework;

/// The ids of OAP's `component-libraries.yml` that the agent's plugins send.
fn component(framework: Framework) -> i32 {
    match framework {
        Framework::Python => 7000,
        Framework::Flask => 7001,
        Framework::Django => 7004,
        Framework::Tornado => 7005,
        Framework::Sanic => 7007,
        Framework::Aiohttp => 7008,
        Framework::Pyramid => 7009,
        Framework::Falcon => 7012,
        Framework::FastApi => 7014,
        Framework::Bottle => 7015,
    }
}

/// The client as the framework's plugin names it: Pyramid's and Falcon's without its port, and FastAPI's says so where
/// there is none. Whom a proxy in front names in the PROXY protocol, gunicorn takes for it.
fn peer(exchange: &Exchange, framework: Framework) -> CompactString {
    let tcp = match &exchange.ends {
        Ends::Tcp { peer, .. } => Some(*peer),
        Ends::Unix | Ends::Unknown => None,
    };
    match (exchange.client.or(tcp), framework) {
        (Some(peer), Framework::Pyramid | Framework::Falcon) => peer.ip().to_compact_string(),
        (Some(peer), _) => address(peer),
        (None, Framework::FastApi) if exchange.ends == Ends::Unix => CompactString::const_new("unknown"),
        (None, _) => CompactString::const_new(""),
    }
}

/// The most tags that a span has.
const TAGS: usize = 11;

/// The entry span of a request for `target`, as the root of its segment.
pub(super) fn entry(
    exchange: &Exchange,
    target: &Target<'_>,
    framework: Framework,
    rules: &Rules,
    wall: WallOffset,
    refs: Vec<Reference>,
) -> Span {
    let start_ms = wall.wall_ms(exchange.start);
    let mut tags = Vec::with_capacity(TAGS);
    // What the agent's plugin for it says of a WebSocket that was accepted.
    let is_websocket = framework == Framework::FastApi && exchange.status == Some(101);
    let method = if is_websocket { "websocket.accept".into() } else { exchange.method.clone() };
    tags.extend([("http.method", method), ("http.url", url(exchange, target, is_websocket))]);
    if rules.shows_params(framework) {
        let (_, query) = exchange.target.split_once('?').unwrap_or_default();
        let query = query.split('#').next().unwrap_or_default();
        let params = params::of(query, &rules.redaction, rules.params_length);
        tags.extend(params.map(|params| ("http.params", params.into())));
    }
    if let Some(status) = exchange.status {
        tags.push(("http.status_code", decimal(if is_websocket { 200 } else { status.into() })));
        let is_falcon = framework == Framework::Falcon;
        let said = if is_falcon { exchange.phrase.text() } else { None };
        tags.extend(said.map(|said| ("http.status_msg", said)));
    }
    if !rules.only_agents_tags {
        tags.extend(times(exchange));
        let traceparent = exchange.traceparent.as_ref().filter(|header| w3c::trace_id(header).is_some());
        tags.extend(traceparent.map(|header| ("traceparent", header.clone())));
    }
    Span {
        id: 0,
        parent: -1,
        start_ms,
        end_ms: wall.wall_ms(exchange.end).max(start_ms),
        refs,
        operation: target.operation().into(),
        peer: peer(exchange, framework),
        kind: SpanKind::Entry,
        layer: SpanLayer::Http,
        component: component(framework),
        is_error: match exchange.status {
            Some(status) => status >= 400,
            None => exchange.outcome == Outcome::Cut,
        },
        tags,
        queue_wait_ns: exchange.ready.map(|ready| exchange.start.since(ready)),
    }
}

/// Where the time went, in microseconds: before the worker read the request, of that before it accepted the connection, from
/// there to the first byte of the response, from that to the last write, and both together.
fn times(exchange: &Exchange) -> impl Iterator<Item = (&'static str, CompactString)> {
    let Exchange { ready, accepted, start, first_byte, end, .. } = *exchange;
    let between = |from: Option<KernelTime>, to: Option<KernelTime>| Some(to?.since(from?) / 1_000);
    let all = [
        ("time.queue_us", between(ready, Some(start))),
        ("time.accept_us", between(ready, accepted)),
        ("time.first_byte_us", between(Some(start), first_byte)),
        ("time.transfer_us", between(first_byte, Some(end))),
        ("time.service_us", between(Some(start), Some(end))),
    ];
    all.into_iter().filter_map(|(name, us)| Some((name, decimal(us?))))
}

/// Parts of a request target, without query and fragment.
pub(super) struct Target<'a> {
    /// Host of an absolute URL.
    authority: Option<&'a str>,
    path: &'a str,
}

impl Target<'_> {
    /// Raw path: what the agent calls an endpoint.
    pub(super) fn operation(&self) -> &str {
        if self.path.is_empty() { "/" } else { self.path }
    }

    pub(super) fn of(target: &str) -> Target<'_> {
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

/// Absolute URL. The host is what the client asked for, else the address that it reached; a Unix socket has
/// none, so it shows as `localhost`.
fn url(exchange: &Exchange, target: &Target<'_>, is_websocket: bool) -> CompactString {
    let scheme = match (is_websocket, exchange.encrypted) {
        (false, false) => "http://",
        (false, true) => "https://",
        (true, false) => "ws://",
        (true, true) => "wss://",
    };
    if exchange.method == "CONNECT" && target.authority.is_none() {
        return [scheme, target.path].concat().into();
    }
    let named = exchange.host.as_deref().filter(|host| !host.is_empty()).or(target.authority);
    let reached;
    let host = match (named, &exchange.ends) {
        (Some(named), _) => named.rsplit_once('@').map_or(named, |(_, host)| host),
        (None, Ends::Tcp { local, .. }) => {
            reached = address(*local);
            &reached
        }
        (None, Ends::Unix | Ends::Unknown) => "localhost",
    };
    match target.path {
        "*" => [scheme, host].concat(),
        path if path.starts_with('/') => [scheme, host, path].concat(),
        path => [scheme, host, "/", path].concat(),
    }
    .into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rules::Chosen;
    use super::*;
    use crate::exchange::Phrase;
    use crate::identity::Facts;

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    pub(in crate::trace) fn exchange() -> Exchange {
        Exchange {
            pid: 7,
            tid: 8,
            ends: Ends::Tcp {
                local: "127.0.0.1:8000".parse().unwrap(),
                peer: "10.0.0.9:40000".parse().unwrap(),
            },
            encrypted: false,
            client: None,
            method: "GET".into(),
            target: "/a/b?c=d".into(),
            host: Some("example.test".into()),
            sw8: None,
            correlation: None,
            traceparent: None,
            status: Some(200),
            phrase: Phrase::of(b"OK"),
            ready: Some(KernelTime(4_000_000)),
            accepted: Some(KernelTime(4_250_000)),
            start: KernelTime(5_500_000),
            first_byte: Some(KernelTime(8_000_000)),
            end: KernelTime(9_000_000),
            request_bytes: 1,
            response_bytes: 2,
            outcome: Outcome::Complete,
        }
    }

    fn made(exchange: &Exchange, framework: Framework, chosen: Chosen) -> Span {
        let rules = Rules::new(&chosen, &Facts::default());
        let target = Target::of(&exchange.target);
        entry(exchange, &target, framework, &rules, WallOffset(1_000_000_000), Vec::new())
    }

    #[test]
    fn parameters_stand_before_the_status_where_they_are_shown() {
        let chosen =
            Chosen { params: true, redaction: "c".into(), only_agents_tags: true, ..Chosen::default() };
        let exchange = Exchange { target: "/a?b=1&c=2#d".into(), ..exchange() };
        let span = made(&exchange, Framework::Bottle, chosen);
        let names: Vec<_> = span.tags.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["http.method", "http.url", "http.params", "http.status_code"]);
        assert_eq!(span.tags[2].1, "b=[1]\nc=[***]");
        assert_eq!(span.tags[1].1, "http://example.test/a");
    }

    fn span(change: impl FnOnce(&mut Exchange)) -> Span {
        let mut exchange = exchange();
        change(&mut exchange);
        made(&exchange, Framework::Python, Chosen::default())
    }

    fn named(target: &str, change: impl FnOnce(&mut Exchange)) -> (CompactString, CompactString) {
        let span = span(|exchange| {
            exchange.target = target.into();
            change(exchange);
        });
        (span.operation, span.tags[1].1.clone())
    }

    #[test]
    fn has_the_agents_fields_and_tag_order() {
        let chosen = Chosen { only_agents_tags: true, ..Chosen::default() };
        let exchange = Exchange { traceparent: Some(W3C.into()), ..exchange() };
        let span = made(&exchange, Framework::Python, chosen);
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
    fn times_and_a_foreign_trace_stand_behind_the_agents_tags() {
        let ours = |change: &dyn Fn(&mut Exchange)| {
            let span = span(change);
            let tags = span.tags.into_iter().skip_while(|(name, _)| *name != "http.status_code").skip(1);
            tags.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            ours(&|exchange| exchange.traceparent = Some(W3C.into())),
            format!(
                "time.queue_us=1500 time.accept_us=250 time.first_byte_us=2500 time.transfer_us=1000 \
                 time.service_us=3500 traceparent={W3C}"
            )
        );
        let unknown = ours(&|exchange| {
            (exchange.ready, exchange.accepted, exchange.first_byte) = (None, None, None);
        });
        assert_eq!(unknown, "time.service_us=3500");
        // A connection that waited for its request.
        let idle = ours(&|exchange| exchange.accepted = Some(KernelTime(1)));
        assert!(idle.contains("time.accept_us=0 "), "{idle}");
    }

    #[test]
    fn a_framework_has_its_component_and_its_peer() {
        let span = |ends: Ends, framework| {
            let exchange = Exchange { ends, ..exchange() };
            let span = made(&exchange, framework, Chosen::default());
            (span.component, span.peer)
        };
        let tcp = || exchange().ends;
        assert_eq!(span(tcp(), Framework::Flask), (7001, "10.0.0.9:40000".into()));
        assert_eq!(span(tcp(), Framework::Pyramid), (7009, "10.0.0.9".into()));
        assert_eq!(span(tcp(), Framework::Falcon), (7012, "10.0.0.9".into()));
        assert_eq!(span(Ends::Unix, Framework::FastApi), (7014, "unknown".into()));
        assert_eq!(span(Ends::Unix, Framework::Bottle), (7015, "".into()));
    }

    #[test]
    fn a_websocket_is_what_the_plugin_of_the_framework_calls_it() {
        let tags = |framework, encrypted| {
            let asked = Exchange { status: Some(101), encrypted, target: "/ws".into(), ..exchange() };
            let span = made(&asked, framework, Chosen { only_agents_tags: true, ..Chosen::default() });
            span.tags.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(tags(Framework::FastApi, false), ["websocket.accept", "ws://example.test/ws", "200"]);
        assert_eq!(tags(Framework::FastApi, true), ["websocket.accept", "wss://example.test/ws", "200"]);
        assert_eq!(tags(Framework::Python, false), ["GET", "http://example.test/ws", "101"]);
    }

    #[test]
    fn what_is_said_of_the_status_is_a_tag_where_the_plugin_has_it() {
        let tags = |framework, said: &str| {
            let asked = Exchange { status: Some(404), phrase: Phrase::of(said.as_bytes()), ..exchange() };
            let span = made(&asked, framework, Chosen { only_agents_tags: true, ..Chosen::default() });
            span.tags.into_iter().skip(2).map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let code = "http.status_code=404";
        assert_eq!(tags(Framework::Falcon, "Not Found"), [code, "http.status_msg=Not Found"]);
        assert_eq!(
            (tags(Framework::Falcon, ""), tags(Framework::Bottle, "No")),
            (vec![code.into()], vec![code.into()])
        );
    }

    #[test]
    fn a_proxy_in_front_names_the_client() {
        let client = Some("10.9.9.9:1".parse().unwrap());
        let span = |ends: Ends| span(|exchange| (exchange.client, exchange.ends) = (client, ends)).peer;
        assert_eq!((span(exchange().ends), span(Ends::Unix)), ("10.9.9.9:1".into(), "10.9.9.9:1".into()));
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
        assert!(cut.tags.iter().all(|(name, _)| *name != "http.status_code"));
    }

    #[test]
    fn every_form_of_target_has_a_path_and_a_url() {
        let same = |_: &mut Exchange| {};
        let pair = |a: &str, b: &str| (CompactString::from(a), CompactString::from(b));
        assert_eq!(named("http://u:p@h:1/x?y#z", |e| e.host = None), pair("/x", "http://h:1/x"));
        assert_eq!(named("http://h", |e| e.host = None), pair("/", "http://h/"));
        assert_eq!(named("?q", same), pair("/", "http://example.test/"));
        assert_eq!(named("*", same), pair("*", "http://example.test"));
        assert_eq!(named("/x", |e| e.encrypted = true), pair("/x", "https://example.test/x"));
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
