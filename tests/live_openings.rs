//! What may come before HTTP on a connection, and what is none.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use harness::client::Connection;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::observer::segments;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;

const PATIENCE: Duration = Duration::from_secs(20);
/// Whom the first two name.
const CLIENT: &str = "10.0.0.9:40000";
const LINE: &[u8] = b"PROXY TCP4 10.0.0.9 127.0.0.1 40000 80\r\n";
/// The same in the second version, with a field of three bytes behind the addresses.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\x0a\0\0\x09\x7f\0\0\x01\x9c\x40\0\x50\x04\0\0";
/// From a proxy that speaks for itself.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Requests behind each header, whole and cut, are reported, and their peer is the client that gunicorn takes for it, also on requests that follow.
fn proxied(launch: Launch) {
    let stage = Stage::enter("proxied");
    let observer = Observer::start(&[]);
    let gunicorn = Gunicorn::start(&stage, &launch.args(&["--proxy-protocol", "auto"]));
    observer.wait_instances(&gunicorn.workers());
    let mut wanted = BTreeMap::new();
    for (header, named) in [(LINE, true), (HEADER, true), (LOCAL, false)] {
        for cut in [0, 1, 7, 13, header.len() - 1] {
            let mut connection = Connection::open(gunicorn.address()).unwrap();
            let (first, rest) = header.split_at(cut);
            connection.write_raw(first).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            connection.write_raw(rest).unwrap();
            for number in 0..3 {
                if !connection.is_open() {
                    break; // a sync worker closes
                }
                let sent = connection.send(&Request::get("peer"));
                assert_eq!(sent.status, Some(200), "{:?}\n{}", sent.error, gunicorn.log());
                let peer = String::from_utf8(sent.body).unwrap();
                // Gunicorn forgets it after the first request.
                assert!(!named || number > 0 || peer == CLIENT, "gunicorn takes {peer} for the client");
                let own = sent.port.map_or_else(String::new, |port| format!("127.0.0.1:{port}"));
                wanted.insert(sent.path, if named { CLIENT.to_owned() } else { own });
            }
        }
    }
    let seen = |lines: &[_]| -> BTreeMap<String, String> {
        let spans = segments(lines, gunicorn.service()).filter_map(|segment| segment.spans.last());
        spans.map(|span| (span.operation.clone(), span.peer.clone())).collect()
    };
    observer.wait(PATIENCE, |lines| seen(lines) == wanted);
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(seen(&report.lines), wanted, "left: reported");
    assert_eq!(report.drops(), &BTreeMap::new());
}

#[test]
fn a_proxy_names_the_client() {
    for class in ["sync", "gthread", "gevent"] {
        proxied(Launch::new(class, "wsgi_app:app"));
    }
    proxied(Launch::new("sync", "wsgi_app:app").unix());
}

/// A packet of uwsgi's protocol: the variables of one request.
fn packet(path: &str) -> Vec<u8> {
    let word = |n: usize| u16::try_from(n).unwrap().to_le_bytes();
    let variables = [
        ("REQUEST_METHOD", "GET"),
        ("PATH_INFO", path),
        ("REQUEST_URI", path),
        ("QUERY_STRING", ""),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("HTTP_HOST", "localhost"),
    ];
    let text = |text: &str| [&word(text.len()), text.as_bytes()].concat();
    let body: Vec<u8> =
        variables.iter().flat_map(|(name, value)| [text(name), text(value)].concat()).collect();
    [&[0][..], &word(body.len()), &[0], &body].concat()
}

/// Each is counted once under its name, and nothing else is: the next connection is read as ever.
#[test]
fn what_is_not_read_is_named() {
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03";
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let stage = Stage::enter("named");
    let observer = Observer::start(&[]);
    let web = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app"));
    let uwsgi = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app").args(&["--protocol", "uwsgi"]));
    observer.wait_instances(&[web.workers(), uwsgi.workers()].concat());
    let speak = |gunicorn: &Gunicorn, bytes: &[u8]| {
        let mut connection = Connection::open(gunicorn.address()).unwrap();
        connection.write_raw(bytes).unwrap();
        connection.finish_writing();
        String::from_utf8_lossy(&connection.drain()).into_owned()
    };
    for _ in 0..3 {
        speak(&web, HELLO);
        speak(&web, PREFACE);
        speak(&web, b"hello\r\n\r\n");
        let answer = speak(&uwsgi, &packet("/plain/1"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}\n{}", uwsgi.log());
    }
    let sent = Connection::open(web.address()).unwrap().send(&Request::get("plain"));
    let is_there = || {
        let mut found = false;
        observer.wait(Duration::ZERO, |lines| {
            found = segments(lines, web.service()).any(|segment| segment.spans[0].operation == sent.path);
            true
        });
        found.then_some(())
    };
    assert!(wait(PATIENCE, is_there).is_some(), "{}", observer.stderr());
    let report = observer.stop();
    report.assert_code(0);
    let wanted = ["tls", "http2", "not_http", "uwsgi"].map(|reason| (reason.to_owned(), 3));
    assert_eq!(report.drops(), &BTreeMap::from(wanted));
    assert_eq!(segments(&report.lines, uwsgi.service()).count(), 0);
}
