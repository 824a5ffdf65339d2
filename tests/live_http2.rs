//! HTTP/2 as gunicorn serves it, over TLS and without: each stream is one segment, as right as one of HTTP/1.
#![expect(clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
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
use harness::stage::tool;
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

impl How {
    /// A gunicorn that is spoken to so.
    fn launch(self, launch: Launch) -> Launch {
        let launch = launch.python(&python()).args(&["--http-protocols", "h2,h1"]);
        match self {
            How::Tls => launch.tls(Version::New),
            How::Prior => launch.args(&["--http2-cleartext", "prior-knowledge"]),
            How::Upgrade => launch.args(&["--http2-cleartext", "both"]),
        }
    }
}

fn python() -> Python {
    Python::with(Path::new("python3"), &package().join("apps/http2.txt"))
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
        get("plain"), // what an upgrade asks for has no body
        Ask { body: 3 << 20, ..ask("POST", "echo") },
        Ask { query: "?kib=3000", ..get("large") },
        Ask { headers: long(), ..get("plain") },
        Ask { body: 200_000, headers: long(), ..ask("POST", "echo") },
    ]
}

fn port(gunicorn: &Gunicorn) -> SocketAddr {
    let (Address::Tcp(to) | Address::Tls(to, _)) = gunicorn.address() else { panic!("no port") };
    *to
}

fn send(gunicorn: &Gunicorn, how: How, connections: &[Vec<Ask>]) -> Vec<Answer> {
    let to = port(gunicorn);
    let mut command = Command::new(python().script("python"));
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
    let observer = Observer::on(&stage, &[]);
    let mut all = Vec::new();
    for how in [How::Tls, How::Prior, How::Upgrade] {
        let gunicorn = Gunicorn::start(&stage, &how.launch(Launch::new(class, app).args(extra)));
        observer.wait_instances(&gunicorn.workers());
        let caller = vec![("sw8", CALLER.to_owned()), ("sw8-correlation", String::new())];
        let traced = Ask { headers: caller, ..get("plain") };
        let connections = vec![mixed(), mixed(), vec![get("plain"), traced], large()];
        let answers = send(&gunicorn, how, &connections);
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

/// By its client, in the middle of a body; by the end of its process, with those beside it.
#[test]
fn what_is_cut_off_is_an_error() {
    let stage = Stage::enter("http2_cut");
    let observer = Observer::on(&stage, &[]);
    for (class, app) in [("gthread", "wsgi_app:app"), ("asgi", "fastapi_app:app")] {
        let launch = Launch::new(class, app).args(&["--graceful-timeout", "1"]);
        let gunicorn = Gunicorn::start(&stage, &How::Prior.launch(launch));
        observer.wait_instances(&gunicorn.workers());
        let reset = || Ask { body: 3_200, reset: true, ..ask("POST", "echo") };
        let connections = [
            vec![reset(), get("plain"), reset(), get("plain")],
            vec![get("leave"), Ask { query: "?ms=900", ..get("slow") }],
        ];
        let answers = send(&gunicorn, How::Prior, &connections);
        assert_eq!(
            answers.iter().filter(|answer| answer.status == Some(200)).count(),
            2,
            "{}",
            gunicorn.log()
        );
        let wanted: BTreeMap<&str, Option<String>> = answers
            .iter()
            .map(|answer| (answer.path.as_str(), answer.status.map(|status| status.to_string())))
            .collect();
        let mut seen = BTreeMap::new();
        observer.wait(PATIENCE, |lines| {
            let spans = segments(lines, gunicorn.service()).filter_map(|segment| segment.spans.last());
            let said = spans.map(|span| {
                assert_eq!(span.is_error, span.tag("http.status_code").is_none());
                (span.operation.clone(), span.tag("http.status_code").map(str::to_owned))
            });
            seen = said.collect();
            seen.len() == wanted.len()
        });
        let seen: BTreeMap<&str, Option<String>> =
            seen.iter().map(|(path, status)| (path.as_str(), status.clone())).collect();
        assert_eq!(seen, wanted, "left: reported\n{}", gunicorn.log());
    }
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(report.drops(), &BTreeMap::new());
}

/// nghttp2's, with many streams on each connection, curl's, which begins in each of the ways, and httpx.
#[test]
fn other_clients_are_read() {
    const MANY: usize = 600;
    let stage = Stage::enter("http2_clients");
    let observer = Observer::on(&stage, &[]);
    for how in [How::Tls, How::Upgrade] {
        let launch = Launch::new("gthread", "wsgi_app:app").args(&["--threads", "4"]);
        let gunicorn = Gunicorn::start(&stage, &how.launch(launch));
        observer.wait_instances(&gunicorn.workers());
        let scheme = if how == How::Tls { "https" } else { "http" };
        let url = |path: &str| format!("{scheme}://{}{path}", port(&gunicorn));
        let said =
            client(tool("h2load"), &["-n", &MANY.to_string(), "-c", "6", "-m", "30", &url("/plain/load")]);
        assert!(said.contains(&format!("{MANY} succeeded")), "{said}\n{}", gunicorn.log());
        let knows = if how == How::Tls { "--http2" } else { "--http2-prior-knowledge" };
        for how in [knows, "--http2"] {
            let said = client(
                tool("curl"),
                &["-sSk", how, "-w", "%{http_version}", "-d", "body", &url("/echo/curl")],
            );
            assert_eq!(said, "body2", "{how}\n{}", gunicorn.log());
        }
        let script = package().join("apps/httpx_client.py").display().to_string();
        let base = url("");
        let said = client(python().script("python"), &[&script, &base, "20"]);
        assert_eq!(said.trim(), "{'HTTP/2'} {200}", "{}", gunicorn.log());
        let count = |lines: &[_], path: &str| {
            let spans = segments(lines, gunicorn.service()).filter_map(|segment| segment.spans.last());
            spans.filter(|span| span.operation == path && span.tag("http.status_code") == Some("200")).count()
        };
        let wanted = [("/plain/load", MANY), ("/echo/curl", 2), ("/plain/httpx", 1), ("/echo/httpx", 20)];
        let mut seen = Vec::new();
        observer.wait(PATIENCE, |lines| {
            seen = wanted.map(|(path, _)| (path, count(lines, path))).to_vec();
            seen == wanted
        });
        assert_eq!(seen, wanted, "{}", observer.stderr());
    }
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(report.drops(), &BTreeMap::new());
}

/// What a program says; it has to succeed.
fn client(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = must(output, format_args!("run {}", program.display()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}: {said}{}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
