//! A connection is the kernel's socket, whichever fd and whichever process its bytes go through.

use std::thread;
use std::time::Duration;

use harness::client::Client;
use harness::client::Connection;
use harness::client::Mode;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::must;
use harness::traffic::send_all;
use harness::verdict::Expectation;

/// What one observer sees by what this kernel has best, and another one at the same time by system calls.
fn run(name: &str, launch: &Launch, losses: &[&str], traffic: impl FnOnce(&Gunicorn) -> Vec<Sent>) {
    let stage = Stage::enter(name);
    let observers = [[].as_slice(), &["--attach", "syscall"]].map(Observer::start);
    let gunicorn = Gunicorn::start(&stage, launch);
    observers.iter().for_each(|observer| observer.wait_instances(&gunicorn.workers()));
    let sent = traffic(&gunicorn);
    observers.iter().for_each(|observer| observer.wait_requests(&gunicorn, &sent));
    for observer in observers {
        Expectation::new(&gunicorn, &sent).losing(losses).check(&observer.stop());
    }
}

/// Answers of one action, with plain requests between them on the worker's own way.
fn alternate(action: &'static str) {
    run(action, &Launch::new("sync", "sockets_app:app").workers(1), &[], |gunicorn| {
        let mut client = Client::new(gunicorn.address(), Mode::New);
        let both = |_| [client.send(&Request::get(action)), client.send(&Request::get("plain"))];
        (0..25).flat_map(both).collect()
    });
}

macro_rules! alternating {
    ($($action:ident)*) => { $(#[test] fn $action() { alternate(stringify!($action)); })* };
}

alternating!(dup half fork passed gathered writev spliced reused);

#[test]
fn sendfile() {
    for class in ["sync", "gthread", "gevent"] {
        run("sendfile", &Launch::new(class, "wsgi_app:app"), &[], |gunicorn| {
            let sizes = [0, 1, 15, 64, 65, 1000, 5000];
            let request = |kib: &i32| Request::get("sendfile").query(&format!("kib={kib}"));
            let requests = sizes.iter().flat_map(|kib| [request(kib), Request::get("plain")]).collect();
            let sent = send_all(gunicorn.address(), Mode::KeepAlive, 1, requests);
            for (sent, kib) in sent.iter().step_by(2).zip(sizes) {
                assert_eq!(sent.body.len(), usize::try_from(kib).unwrap() * 1024, "{class}: {sent:?}");
            }
            sent
        });
    }
}

/// Half a request, and then its fd's number belongs to another client.
#[test]
fn reuse_across_connections() {
    let losses = ["cut", "gap"];
    for (class, args) in [("sync", &[][..]), ("gthread", &["--threads", "4"])] {
        run("reuse", &Launch::new(class, "wsgi_app:app").workers(1).args(args), &losses, |gunicorn| {
            let mut client = Client::new(gunicorn.address(), Mode::New);
            let mut sent = Vec::new();
            for i in 0..60 {
                let mut half = must(Connection::open(gunicorn.address()), "connect");
                must(
                    half.write_raw(&b"GET /plain/half HTTP/1.1\r\nHost: half\r\n\r\n"[..i % 40]),
                    "write half a head",
                );
                thread::sleep(Duration::from_millis(3));
                drop(half);
                sent.push(client.send(&Request::get("plain")));
            }
            sent
        });
    }
}
