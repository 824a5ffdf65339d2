//! WebSockets: the handshake as the agent reports it, then bytes that are counted, not copied.
#![expect(clippy::expect_used, reason = "this is how a test fails")]

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::client::Connection;
use harness::client::Mode;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::meters::expect;
use harness::observer::Observer;
use harness::observer::binary;
use harness::observer::instances;
use harness::observer::segments;
use harness::python::Python;
use harness::stage::Stage;
use harness::stage::must;
use harness::stage::package;
use harness::tls::Version;
use harness::traffic::plain;
use harness::traffic::send_all;
use observer::pipeline::input::Bytes;
use observer::pipeline::input::Input;
use observer::pipeline::tape;

const PATIENCE: Duration = Duration::from_secs(30);
/// What the client says: it may be on no tape.
const WORD: &[u8] = b"said in confidence";
const REQUESTS: usize = 2;

/// A masked frame of binary data (opcode 2) or another kind; the mask is of zeros (RFC 6455, 5.2).
fn frame(opcode: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    let len = data.len().to_be_bytes();
    let [.., high, low] = len;
    match data.len() {
        0..126 => frame.push(0x80 | low),
        126..65_536 => frame.extend([0x80 | 126, high, low]),
        _ => {
            frame.push(0x80 | 127);
            frame.extend(len);
        }
    }
    [frame.as_slice(), &[0; 4], data].concat()
}

/// Waits for so many segments of a service.
fn wait_segments(observer: &Observer, service: &str, count: usize) {
    let found = observer.wait(PATIENCE, |lines| segments(lines, service).count() == count);
    assert!(found, "{service}\n{}", observer.stderr());
}

fn is_on_tape(path: &Path, word: &[u8]) -> bool {
    let tape = BufReader::new(must(File::open(path), "open the tape"));
    let (_, inputs) = must(tape::read(tape), "read the tape");
    inputs.map(|input| must(input, "read the tape")).any(
        |input| matches!(&input, Input::Record(Bytes(bytes)) if bytes.windows(word.len()).any(|found| found == word)),
    )
}

fn run(name: &str, class: &'static str, tls: Option<Version>) {
    let stage = Stage::enter(name);
    let python = Python::with(Path::new("python3"), &package().join("apps/frameworks.txt"));
    let mut launch =
        Launch::new(class, "framework_app:app").workers(1).python(&python).env("FRAMEWORK", "fastapi");
    launch.tls = tls;
    let gunicorn = Gunicorn::start(&stage, &launch);
    let path = stage.folder("tape").join("run.tape");
    let mut command = Command::new(binary());
    let target = format!("gunicorn:service={}", gunicorn.service()); // others' records would be on the tape, too
    command.arg("record").arg(&path).args(["--print=json", "--meter-period", "1", "--target", &target]);
    let observer = Observer::spawn(&mut command);
    observer.wait_instances(&gunicorn.workers());
    let service = gunicorn.service();

    let mut socket = must(Connection::open(gunicorn.address()), "connect");
    let handshake = b"GET /socket?token=s3cret HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    must(socket.write_raw(handshake), "ask");
    wait_segments(&observer, service, 1); // so that it is known to be a WebSocket
    let said = [frame(2, WORD), frame(2, &WORD.repeat(20)), frame(2, &WORD.repeat(20_000))];
    for frame in &said {
        must(socket.write_raw(frame), "say");
    }
    // What the server says has no mask; a greeting of five letters comes before it.
    let echoed = 2 + 5 + said.iter().map(|frame| frame.len() - 4).sum::<usize>();
    let (_, heard) = must(socket.read_raw(b"\r\n\r\n", echoed), "listen");
    assert!(heard.ends_with(WORD), "{}", gunicorn.log());
    let end = frame(8, &1_000_u16.to_be_bytes());
    must(socket.write_raw(&end), "say goodbye");
    let heard = heard.len() + socket.drain().len();
    assert!(heard > echoed, "no goodbye\n{}", gunicorn.log());
    for sent in send_all(gunicorn.address(), Mode::New, 1, plain(REQUESTS)) {
        assert_eq!(sent.status, Some(200), "{:?}\n{}", sent.error, gunicorn.log());
    }
    wait_segments(&observer, service, 1 + REQUESTS); // others are read as ever

    let mut worker = String::new();
    observer.wait(PATIENCE, |lines| {
        worker = instances(lines, service)
            .find(|one| one.role == "worker")
            .map_or_else(String::new, |one| one.instance.clone());
        !worker.is_empty()
    });
    let meter = |name: &str, value: usize| (format!("instance_gunicorn_websocket_{name}"), value as f64);
    let wanted = [meter("received", said.concat().len() + end.len()), meter("sent", heard)];
    expect(&observer, &worker, &wanted);
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(report.drops().get("upgraded"), None, "{:?}", report.drops());

    let spans = segments(&report.lines, service).flat_map(|segment| &segment.spans);
    let span = spans.into_iter().find(|span| span.operation == "/socket").expect("its span");
    let tags = ["http.method", "http.url", "http.status_code"].map(|name| span.tag(name));
    let url = if tls.is_some() { "wss://shop/socket" } else { "ws://shop/socket" };
    assert_eq!(tags, [Some("websocket.accept"), Some(url), Some("200")]);
    assert!(!span.is_error);
    assert!(is_on_tape(&path, b"GET /socket") && !is_on_tape(&path, WORD));
}

#[test]
fn asgi() {
    run("websockets-asgi", "asgi", None);
}

#[test]
fn asgi_tls() {
    run("websockets-asgi-tls", "asgi", Some(Version::New));
}

#[test]
fn uvicorn() {
    run("websockets-uvicorn", "uvicorn.workers.UvicornWorker", None);
}

#[test]
fn uvicorn_tls() {
    run("websockets-uvicorn-tls", "uvicorn.workers.UvicornWorker", Some(Version::Old));
}
