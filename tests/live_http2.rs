//! HTTP/2 as gunicorn serves it, over TLS and without: each stream is one segment, as right as one of HTTP/1.
#![expect(clippy::expect_used, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use harness::client::Address;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::observer::segments;
use harness::python::Python;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::must;
use harness::stage::package;
use harness::tls::Version;
use harness::verdict::Expectation;
use serde::Deserialize;
use serde::Serialize;

const PATIENCE: Duration = Duration::from_secs(20);
/// What a caller says of itself: its trace, its segment, its service, its instance, its endpoint and where it called.
const CALLER: &str = "1-dHJhY2U=-c2VnbWVudA==-3-c2hvcA==-c2hvcC0x-L2NhcnQ=-c2hvcC5leGFtcGxlOjgw";

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Agreed on in the TLS handshake.
    Tls,
    /// The client knows.
    Prior,
    /// Asked for over HTTP/1.
    Upgrade,
}

/// What the client is to ask.
#[derive(Debug, Serialize)]
struct Ask {
    method: &'static str,
    path: String,
    query: &'static str,
    headers: Vec<(&'static str, String)>,
    /// Bytes of the body, a multiple of 16.
    body: usize,
    /// Cuts it off after its headers.
    reset: bool,
}

/// What became of it.
#[derive(Deserialize)]
struct Answer {
    method: String,
    path: String,
    host: String,
    status: Option<u16>,
    worker: Option<u32>,
    port: u16,
    start: f64,
    end: f64,
    error: Option<String>,
    size: usize,
}

fn get(action: &str) -> Ask {
    ask("GET", action)
}

fn ask(method: &'static str, action: &str) -> Ask {
    let path = Request::get(action).path;
    Ask { method, path, query: "", headers: Vec::new(), body: 0, reset: false }
}

/// Every sort of request, some dozens at once.
fn mixed() -> Vec<Ask> {
    let sort = |n: usize| match n % 12 {
        0 => get("plain"),
        1 => Ask { body: 320, ..ask("POST", "echo") },
        2 => Ask { query: "?n=7&size=50", ..get("stream") },
        3 => get("empty"),
        4 => get("same"),
        5 => get("missing"),
        6 => get("fail"),
        7 => ask("HEAD", "plain"),
        8 => Ask { query: "?why=test", ..ask("DELETE", "plain") },
        9 => Ask { body: 40_000, ..ask("PUT", "echo") },
        10 => Ask { query: "?ms=5", ..get("slow") },
        _ => Ask { query: "?kib=100", ..get("large") },
    };
    (0..60).map(sort).collect()
}

/// Large bodies in both directions, and headers in several frames.
fn large() -> Vec<Ask> {
    // Their code is twice as long.
    let long = || ["x-a", "x-b", "x-c", "x-d"].map(|name| (name, "~|".repeat(3_900))).to_vec();
    vec![
        Ask { body: 3 << 20, ..ask("POST", "echo") },
        Ask { query: "?kib=3000", ..get("large") },
        Ask { headers: long(), ..get("plain") },
        Ask { body: 200_000, headers: long(), ..ask("POST", "echo") },
        get("plain"),
    ]
}

fn send(gunicorn: &Gunicorn, python: &Python, how: How, connections: &[Vec<Ask>]) -> Vec<Answer> {
    let (Address::Tcp(to) | Address::Tls(to, _)) = gunicorn.address() else { panic!("no port") };
    let mut command = Command::new(python.script("python"));
    command.arg(package().join("apps/http2_client.py")).arg(to.ip().to_string()).arg(to.port().to_string());
    command.arg(match how {
        How::Tls => "tls",
        How::Prior => "prior",
        How::Upgrade => "upgrade",
    });
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = must(command.spawn(), "start the client");
    let text = must(serde_json::to_vec(connections), "say what to ask");
    must(child.stdin.take().expect("a pipe").write_all(&text), "say what to ask");
    let output = must(child.wait_with_output(), "wait for the client");
    assert!(output.status.success(), "the client failed\n{}", gunicorn.log());
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| must(serde_json::from_str(line), format_args!("read {line}"))).collect()
}

fn sent(answers: Vec<Answer>, how: How) -> Vec<Sent> {
    let sent = |answer: Answer| Sent {
        method: answer.method,
        path: answer.path,
        host: answer.host,
        encrypted: how == How::Tls,
        status: answer.status,
        worker: answer.worker,
        port: Some(answer.port),
        start: answer.start,
        end: answer.end,
        framed: true,
        body: Vec::new(),
        error: answer.error,
        abandoned: Vec::new(),
    };
    answers.into_iter().map(sent).collect()
}

fn run(class: &'static str, app: &'static str, extra: &[&str]) {
    let stage = Stage::enter(&format!("http2_{class}"));
    let python = Python::with(Path::new("python3"), &package().join("apps/http2.txt"));
    let observer = Observer::start(&[]);
    let mut all = Vec::new();
    for how in [How::Tls, How::Prior, How::Upgrade] {
        let launch = Launch::new(class, app).python(&python).args(extra).args(&["--http-protocols", "h2,h1"]);
        let launch = match how {
            How::Tls => launch.tls(Version::New),
            How::Prior => launch.args(&["--http2-cleartext", "prior-knowledge"]),
            How::Upgrade => launch.args(&["--http2-cleartext", "both"]),
        };
        let gunicorn = Gunicorn::start(&stage, &launch);
        observer.wait_instances(&gunicorn.workers());
        let caller = vec![("sw8", CALLER.to_owned()), ("sw8-correlation", String::new())];
        let traced = Ask { headers: caller, ..get("plain") };
        let mut connections = vec![mixed(), mixed(), vec![get("plain"), traced]];
        if how != How::Upgrade {
            connections.push(large());
        }
        let answers = send(&gunicorn, &python, how, &connections);
        let sizes: BTreeMap<&str, usize> =
            answers.iter().map(|answer| (answer.path.as_str(), answer.size)).collect();
        for ask in connections.iter().flatten().filter(|ask| ask.body > 0) {
            assert_eq!(sizes.get(ask.path.as_str()), Some(&ask.body), "{ask:?}\n{}", gunicorn.log());
        }
        let traced = connections.iter().flatten().find(|ask| !ask.headers.is_empty()).map(|ask| &ask.path);
        let sent = sent(answers, how);
        observer.wait_requests(&gunicorn, &sent);
        all.push((gunicorn, sent, traced.cloned()));
    }
    let report = observer.stop();
    for (gunicorn, sent, traced) in &all {
        Expectation::new(gunicorn, sent).busy().check_counts(&report);
        let of = |path: &String| {
            segments(&report.lines, gunicorn.service())
                .find(|segment| segment.spans.last().is_some_and(|span| span.operation == *path))
        };
        let segment = traced.as_ref().and_then(of).expect("the one with a caller");
        assert_eq!(segment.trace_id, "trace");
    }
}

#[test]
fn gthread() {
    run("gthread", "flask_app:app", &["--threads", "4"]);
}

#[test]
fn gevent() {
    run("gevent", "wsgi_app:app", &[]);
}

#[test]
fn asgi() {
    run("asgi", "fastapi_app:app", &["--asgi-loop", "asyncio"]);
}

#[test]
fn asgi_uvloop() {
    run("asgi", "fastapi_app:app", &["--asgi-loop", "uvloop"]);
}
