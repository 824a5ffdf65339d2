//! Workers that encrypt themselves: their requests are reported as those of others are.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::classes::asgi;
use harness::classes::asgi_uvloop;
use harness::classes::gevent;
use harness::classes::gthread;
use harness::classes::sync;
use harness::classes::tornado;
use harness::classes::uvicorn_asyncio;
use harness::classes::uvicorn_uvloop;
use harness::client::Address;
use harness::client::Connection;
use harness::client::Mode;
use harness::client::Sent;
use harness::code::foreign_bytes;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::observer::segments;
use harness::python::inside;
use harness::python::old;
use harness::python::releases;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::must;
use harness::stage::wait;
use harness::tls::Version;
use harness::traffic::mixed;
use harness::traffic::send_all;
use harness::verdict::Expectation;
use harness::verdict::check_instances;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
const REQUESTS: usize = 140;
/// How the name of the library begins that the probes are in.
const LIBRARY: &str = "libssl";

/// Small and large bodies in both directions.
fn bodies() -> Vec<Request> {
    vec![
        Request::post("echo", vec![b'u'; 3 << 20]),
        Request::get("large").query("kib=6000"),
        Request { method: "PUT", ..Request::post("echo", vec![b'u'; 16_384]) },
        Request::get("large").query("kib=16"),
        Request { cuts: (1..60).collect(), ..Request::get("plain") },
        Request { expects: true, ..Request::post("echo", "expected") },
    ]
}

fn run(name: &str, launch: Launch, is_late: bool) {
    let stage = Stage::enter(name);
    let early = (!is_late).then(|| Observer::start(&[]));
    let mut gunicorn = Gunicorn::start(&stage, &launch.tls(Version::New));
    let observer = early.unwrap_or_else(|| Observer::start(&[]));
    let workers = gunicorn.workers();
    observer.wait_instances(&workers);
    let mut sent = send_all(gunicorn.address(), Mode::KeepAlive, 4, mixed(REQUESTS));
    sent.extend(send_all(gunicorn.address(), Mode::New, 4, mixed(REQUESTS)));
    sent.extend(send_all(gunicorn.address(), Mode::KeepAlive, 2, bodies()));
    observer.wait_requests(&gunicorn, &sent);
    gunicorn.stop();
    observer.wait_gone(&[vec![gunicorn.master()], workers.clone()].concat());
    let report = observer.stop();
    Expectation::new(&gunicorn, &sent).check(&report);
    check_instances(&report, &gunicorn, &workers);
}

macro_rules! each_class {
    ($($class:ident)*) => {
        mod observer_first {
            $(#[test]
            fn $class() {
                super::run(concat!("tls_", stringify!($class)), super::$class(), false);
            })*
        }
        mod observer_late {
            $(#[test]
            fn $class() {
                super::run(concat!("tls_", stringify!($class)), super::$class(), true);
            })*
        }
    };
}

each_class!(sync gthread gevent tornado uvicorn_asyncio uvicorn_uvloop asgi asgi_uvloop);

/// Both versions of the protocol on every CPython, whose calls and whose OpenSSL differ.
#[test]
fn every_release_is_read() {
    let launches = releases().into_iter().flat_map(|(_, python)| {
        [(Version::Old, "sync"), (Version::New, "gthread")]
            .map(|(version, class)| Launch::new(class, "wsgi_app:app").python(&python).tls(version))
    });
    all_are_read("tls_releases", launches.collect());
}

/// Every one of these with one worker, beside one another, and what was sent to each over kept and over new connections.
fn all_are_read(name: &str, launches: Vec<Launch>) {
    let stage = Stage::enter(name);
    let observer = Observer::start(&[]);
    let mut all: Vec<(Gunicorn, Vec<Sent>)> = Vec::new();
    for launch in launches {
        let gunicorn = Gunicorn::start(&stage, &launch.workers(1));
        observer.wait_instances(&gunicorn.workers());
        let mut sent = send_all(gunicorn.address(), Mode::KeepAlive, 1, mixed(13));
        sent.extend(send_all(gunicorn.address(), Mode::New, 2, mixed(13)));
        let failed: Vec<&Sent> = sent.iter().filter(|sent| sent.status.is_none()).collect();
        assert!(failed.is_empty(), "{failed:?}\n{}", gunicorn.log());
        observer.wait_requests(&gunicorn, &sent);
        all.push((gunicorn, sent));
    }
    let report = observer.stop();
    for (gunicorn, sent) in &all {
        Expectation::new(gunicorn, sent).check(&report);
    }
}

/// OpenSSL as a part of the interpreter, with symbols and without, and of the module: sessions on sockets and on memory.
#[test]
fn an_openssl_inside_is_read() {
    let folder = Stage::enter("tls_bare").folder("python");
    let launches = inside(&folder).into_iter().flat_map(|python| {
        [Launch::new("gthread", "wsgi_app:app"), asgi()]
            .map(|launch| launch.python(&python).tls(Version::New))
    });
    all_are_read("tls_inside", launches.collect());
}

/// The last release of the OpenSSL before 3, with sessions on sockets, on greenlets' sockets and on memory.
#[test]
fn openssl_1_1_1_is_read() {
    let python = old();
    let classes = [sync(), gevent(), uvicorn_asyncio(), uvicorn_uvloop()];
    let versions = [Version::Old, Version::New, Version::Old, Version::New];
    let launches = classes.into_iter().zip(versions);
    let launches = launches.map(|(launch, version)| launch.python(&python).tls(version));
    all_are_read("tls_old", launches.collect());
}

/// A Unix socket, which has no address that TLS could be told by.
#[test]
fn a_unix_socket_is_read() {
    let launches = [gthread(), gevent(), asgi(), uvicorn_uvloop()];
    all_are_read("tls_unix", launches.map(|launch| launch.unix().tls(Version::New)).into());
}

/// A connection that was there before the observer: from the next request on it is read.
#[test]
fn a_session_is_joined() {
    for launch in [gthread(), gevent(), uvicorn_asyncio(), uvicorn_uvloop()] {
        let stage = Stage::enter("tls_joined");
        let launch = launch.workers(1).args(&["--keep-alive", "30"]).tls(Version::New);
        let gunicorn = Gunicorn::start(&stage, &launch);
        let mut connection = must(Connection::open(gunicorn.address()), "connect");
        let before = connection.send(&Request::get("plain"));
        assert_eq!(before.status, Some(200), "{:?}\n{}", before.error, gunicorn.log());
        let observer = Observer::start(&[]);
        observer.wait_instances(&gunicorn.workers());
        let sent: Vec<Sent> = mixed(11).iter().map(|request| connection.send(request)).collect();
        observer.wait_requests(&gunicorn, &sent);
        Expectation::new(&gunicorn, &sent).check(&observer.stop());
    }
}

/// What a worker asks others over TLS meanwhile, on the same thread, is taken for nobody's request: neither where it encrypts
/// itself nor where it does not and clients speak TLS to it all the same.
#[test]
fn sessions_that_ask_are_not_those_that_serve() {
    let stage = Stage::enter("tls_outward");
    let observer = Observer::start(&[]);
    let inner = Gunicorn::start(&stage, &gthread().tls(Version::New));
    let Address::Tls(to, _) = inner.address() else { panic!("not TLS") };
    let launch = |class| Launch::new(class, "outward_app:app").workers(1);
    let mut outward = Vec::new();
    let classes = ["uvicorn.workers.UvicornWorker", "uvicorn.workers.UvicornH11Worker"];
    for class in classes {
        for (launch, encrypts) in [(launch(class).tls(Version::New), true), (launch(class), false)] {
            let outer = Gunicorn::start(&stage, &launch);
            observer.wait_instances(&[inner.workers(), outer.workers()].concat());
            let inside: Vec<Request> = (0..60).map(|_| Request::get("plain")).collect();
            let ask = |inside: &Request| {
                Request::get("ask").query(&format!("port={}&path={}", to.port(), inside.path))
            };
            let sent = send_all(outer.address(), Mode::New, 6, inside.iter().map(ask).collect());
            let wrong = sent.iter().find(|sent| sent.status != Some(200) || !sent.body.ends_with(b"200 OK"));
            assert!(wrong.is_none(), "{encrypts}: {wrong:?}\n{}", outer.log());
            observer.wait_requests(&outer, &sent);
            let mut seen = Vec::new();
            observer.wait(PATIENCE, |lines| {
                let paths = segments(lines, inner.service()).filter_map(|segment| segment.spans.last());
                seen = paths.map(|span| span.operation.clone()).collect();
                inside.iter().all(|request| seen.contains(&request.path))
            });
            let missing: Vec<&Request> =
                inside.iter().filter(|inside| !seen.contains(&inside.path)).collect();
            assert!(missing.is_empty(), "{encrypts}: {missing:?}\n{}", observer.stderr());
            outward.push((outer, sent));
        }
    }
    let report = observer.stop();
    for (outer, sent) in &outward {
        Expectation::new(outer, sent).check(&report);
    }
    let all = segments(&report.lines, inner.service()).count();
    assert_eq!(all, 60 * outward.len());
}

/// Left encrypted when that is wanted: counted, and no instruction is marked.
#[test]
fn what_is_not_to_be_read_is_counted() {
    let stage = Stage::enter("tls_left");
    let observer = Observer::start(&["--no-worker-tls"]);
    let gunicorn = Gunicorn::start(&stage, &gevent().workers(1).tls(Version::New));
    observer.wait_instances(&gunicorn.workers());
    let sent = send_all(gunicorn.address(), Mode::New, 1, mixed(5));
    assert!(sent.iter().all(|sent| sent.status.is_some()), "{}", gunicorn.log());
    assert_eq!(foreign_bytes(gunicorn.master(), LIBRARY), 0);
    let mut gunicorn = gunicorn;
    gunicorn.stop();
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(report.drops(), &BTreeMap::from([("tls".to_owned(), 5)]));
    assert_eq!(segments(&report.lines, gunicorn.service()).count(), 0);
}

/// The probes stay in the file when all workers go, and are taken out with the last process that uses it or with the
/// observer, however that ends.
#[test]
fn code_is_marked_only_while_it_is_watched() {
    let stage = Stage::enter("tls_marked");
    let gunicorn = Gunicorn::start(&stage, &gthread().workers(1).tls(Version::New));
    let marks = || foreign_bytes(gunicorn.master(), LIBRARY);
    for signal in [Signal::TERM, Signal::KILL] {
        assert_eq!(marks(), 0);
        let old = gunicorn.workers();
        let observer = Observer::start(&["--meter-period", "1"]);
        observer.wait_instances(&old);
        assert!((6..16).contains(&marks()), "{} marks", marks());
        gunicorn.signal(Signal::HUP);
        let workers = gunicorn.wait_workers(1, &old);
        observer.wait_instances(&workers);
        let sent = send_all(gunicorn.address(), Mode::New, 2, mixed(14));
        observer.wait_requests(&gunicorn, &sent);
        assert!((6..16).contains(&marks()), "{} marks", marks());
        let report = observer.end(signal);
        if signal == Signal::TERM {
            Expectation::new(&gunicorn, &sent).check(&report);
        }
        assert!(wait(PATIENCE, || (marks() == 0).then_some(())).is_some(), "{} marks", marks());
    }
    // A process that is not watched maps the same file and tells when it is free of them.
    let bystander = Gunicorn::start(&stage, &sync().workers(1).args(&["--name", "bystander"]));
    let observer = Observer::start(&["--meter-period", "1", "--exclude", "cmd=*bystander*"]);
    observer.wait_instances(&gunicorn.workers());
    let mut gunicorn = gunicorn;
    gunicorn.stop();
    let marks = || foreign_bytes(bystander.master(), LIBRARY);
    assert!(wait(PATIENCE, || (marks() == 0).then_some(())).is_some(), "{} marks", marks());
    observer.stop().assert_code(0);
}
