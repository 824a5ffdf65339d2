//! Behind a real nginx, over Unix sockets and TCP, with kept connections and without: each request once, as the client asked.

use harness::classes::asgi;
use harness::classes::gthread;
use harness::classes::sync;
use harness::classes::uvicorn_uvloop;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::nginx::Nginx;
use harness::nginx::Upstream;
use harness::observer::Observer;
use harness::random::Random;
use harness::stage::Stage;
use harness::verdict::Expectation;

const REQUESTS: usize = 1_000;

fn run(name: &str, launches: &[Launch], upstream: Upstream) {
    let stage = Stage::enter(name);
    let observer = Observer::on(&stage, &[]);
    let mut all = Vec::new();
    for launch in launches {
        let gunicorn = Gunicorn::start(&stage, launch);
        observer.wait_instances(&gunicorn.workers());
        let nginx = Nginx::start(&stage, &gunicorn, upstream);
        let sent = Random::new(REQUESTS).depth(4).send(&nginx.address());
        // The worker's client is nginx.
        let sent: Vec<_> = sent.into_iter().map(|sent| Sent { port: None, ..sent }).collect();
        observer.wait_requests(&gunicorn, &sent);
        assert_eq!(nginx.log(), "", "nginx complains");
        all.push((gunicorn, sent));
    }
    let report = observer.stop();
    for (gunicorn, sent) in &all {
        Expectation::new(gunicorn, sent).busy().check_counts(&report);
    }
}

#[test]
fn plain_proxying() {
    run("nginx-plain", &[sync(), gthread(), asgi(), sync().unix()], Upstream::Plain);
}

#[test]
fn kept_connections() {
    run("nginx-kept", &[gthread().unix(), uvicorn_uvloop().unix(), gthread(), asgi()], Upstream::Kept);
}
