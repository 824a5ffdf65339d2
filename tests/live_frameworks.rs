//! Which framework a worker runs, as its interpreter's memory tells: real ones, on every worker class and Python.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::client::Client;
use harness::client::Mode;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Line;
use harness::observer::Observer;
use harness::observer::binary;
use harness::observer::segments;
use harness::python::Python;
use harness::python::installed;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::package;
use harness::stage::wait;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
const UVICORN: &str = "uvicorn.workers.UvicornWorker";
const AIOHTTP: &str = "aiohttp.GunicornWebWorker";

/// Worker class, function of `framework_app`, component.
const ALL: [(&str, &str, i32); 16] = [
    ("sync", "flask", 7001),
    ("sync", "wrapped", 7001),
    ("tornado", "flask", 7001),
    ("sync", "django", 7004),
    ("tornado", "tornado", 7005),
    ("tornado", "bare", 7000),
    (UVICORN, "sanic", 7007),
    (AIOHTTP, "aiohttp", 7008),
    ("sync", "client", 7000),
    ("gthread", "pyramid", 7009),
    ("sync", "falcon", 7012),
    (UVICORN, "fastapi", 7014),
    ("asgi", "fastapi", 7014),
    (UVICORN, "quart", 7000),
    ("gthread", "bottle", 7015),
    ("sync", "bare", 7000),
];

/// Releases of CPython of which this machine may have one.
const RELEASES: [&str; 8] = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"];

fn environment() -> Python {
    Python::with(Path::new("python3"), &package().join("apps/frameworks.txt"))
}

fn ask(gunicorn: &Gunicorn, count: usize) -> Vec<Sent> {
    let mut client = Client::new(gunicorn.address(), Mode::New);
    let sent: Vec<Sent> = (0..count).map(|_| client.send(&Request::get("plain"))).collect();
    for one in &sent {
        assert_eq!(one.status, Some(200), "{:?}\n{}", one.error, gunicorn.log());
    }
    sent
}

/// Components of a service's segments in the order in which they came, once there are `count`.
fn components(observer: &Observer, service: &str, count: usize) -> Vec<i32> {
    let of = |lines: &[Line]| -> Vec<i32> {
        segments(lines, service).flat_map(|one| &one.spans).map(|span| span.component).collect()
    };
    let mut found = Vec::new();
    observer.wait(PATIENCE, |lines| {
        found = of(lines);
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{service}\n{}", observer.stderr());
    found
}

fn launch(python: &Python, class: &'static str, framework: &str) -> Launch {
    let launch = Launch::new(class, "framework_app:app").python(python).env("FRAMEWORK", framework);
    // aiohttp's worker has a format of its own and refuses gunicorn's.
    if class == AIOHTTP { launch.args(&["--access-logformat", "%P"]) } else { launch }
}

/// From the first request on, whoever was there first.
#[test]
fn every_framework_has_its_component() {
    let stage = Stage::enter("frameworks");
    let python = environment();
    for late in [false, true] {
        let early = (!late).then(|| Observer::start(&[]));
        let started: Vec<Gunicorn> = ALL
            .iter()
            .map(|(class, framework, _)| Gunicorn::start(&stage, &launch(&python, class, framework)))
            .collect();
        let observer = early.unwrap_or_else(|| Observer::start(&[]));
        for (gunicorn, (class, framework, component)) in started.iter().zip(ALL) {
            observer.wait_instances(&gunicorn.workers());
            let sent = ask(gunicorn, 6);
            let found = components(&observer, gunicorn.service(), sent.len());
            assert_eq!(found, [component; 6], "{framework} on {class}, late: {late}\n{}", observer.stderr());
        }
        observer.stop().assert_code(0);
    }
}

/// What the application is cannot be found by its name: what is imported tells.
fn nameless(name: &str, change: impl Fn(Launch) -> Launch) {
    let stage = Stage::enter(name);
    let python = environment();
    let observer = Observer::start(&[]);
    for (class, framework, component) in ALL {
        // Tornado's worker imports Tornado itself, and nothing says that this is none of Tornado's.
        if (class, framework) == ("tornado", "bare") || framework == "quart" {
            continue;
        }
        let gunicorn = Gunicorn::start(&stage, &change(launch(&python, class, framework).workers(1)));
        let sent = ask(&gunicorn, 2);
        let found = components(&observer, gunicorn.service(), sent.len());
        assert_eq!(found, [component; 2], "{framework} on {class}\n{}", observer.stderr());
    }
    observer.stop().assert_code(0);
}

/// What a call returns has none.
#[test]
fn an_application_without_a_name() {
    nameless("frameworks-nameless", |launch| {
        let mut launch = launch.env("NAMELESS", "1");
        launch.app = "framework_app:create()";
        launch
    });
}

/// Nothing on the command line says what it serves.
#[test]
fn a_gunicorn_inside_another_program() {
    nameless("frameworks-embedded", |launch| launch.embedded("framework_server.py"));
}

/// A framework that is imported with the first request is found soon after it.
#[test]
fn a_framework_that_comes_late() {
    let stage = Stage::enter("frameworks-lazy");
    let observer = Observer::start(&[]);
    let gunicorn = Gunicorn::start(&stage, &launch(&environment(), "sync", "lazy"));
    let mut sent = 0;
    let found = wait(PATIENCE, || {
        sent += ask(&gunicorn, 1).len();
        let found = components(&observer, gunicorn.service(), sent);
        (found.last() == Some(&7001)).then_some(found)
    });
    let found = found.unwrap();
    assert_eq!(found.first(), Some(&7000));
    assert!(found.is_sorted(), "it was forgotten: {found:?}");
    observer.stop().assert_code(0);
}

/// A target's word goes first, and the peer follows it.
#[test]
fn a_target_says_what_it_runs() {
    let stage = Stage::enter("frameworks-chosen");
    let gunicorn = Gunicorn::start(&stage, &launch(&environment(), "sync", "flask"));
    let target = format!("gunicorn:service={},framework=falcon", gunicorn.service());
    let observer = Observer::spawn(Command::new(binary()).args(["--target", &target, "--print=json"]));
    observer.wait_instances(&gunicorn.workers());
    ask(&gunicorn, 3);
    assert_eq!(components(&observer, gunicorn.service(), 3), [7012; 3]);
    let report = observer.stop();
    let mut peers = segments(&report.lines, gunicorn.service()).flat_map(|one| &one.spans);
    assert!(peers.all(|span| span.peer == "127.0.0.1"));
}

/// One framework on every CPython of this machine, and on one without symbols; a reload looks again.
#[test]
fn every_interpreter_tells() {
    let stage = Stage::enter("frameworks-pythons");
    let observer = Observer::start(&[]);
    let mut seen = 0;
    for interpreter in RELEASES.into_iter().flat_map(installed) {
        let python = Python::with(&interpreter, &package().join("apps/bottle.txt"));
        let stripped = python.stripped(&stage.folder("stripped"));
        for python in [Some(python), stripped].into_iter().flatten() {
            let gunicorn = Gunicorn::start(&stage, &launch(&python, "sync", "bottle").workers(1));
            ask(&gunicorn, 2);
            let said = components(&observer, gunicorn.service(), 2);
            assert_eq!(said, [7015; 2], "{}\n{}", interpreter.display(), observer.stderr());
            let workers = gunicorn.workers();
            gunicorn.signal(Signal::HUP);
            gunicorn.wait_workers(1, &workers);
            ask(&gunicorn, 2);
            assert_eq!(components(&observer, gunicorn.service(), 4), [7015; 4]);
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} interpreters");
    observer.stop().assert_code(0);
}
