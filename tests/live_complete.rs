//! At full speed, with connections, batches and cuts as chance has them: each request once, under the worker that served it.

use std::time::Instant;

use harness::classes::asgi;
use harness::classes::asgi_uvloop;
use harness::classes::gevent;
use harness::classes::gthread;
use harness::classes::sync;
use harness::classes::tornado;
use harness::classes::uvicorn_asyncio;
use harness::classes::uvicorn_uvloop;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::random::Random;
use harness::scrape;
use harness::stage::Stage;
use harness::verdict::Expectation;

/// Requests for each class, unless the environment says how many.
const REQUESTS: usize = 3_000;
/// The observer prints through a pipe that this test's own threads have to empty beside all that they send: for that long the
/// ring keeps what it cannot print.
const RING: &str = "67108864";
/// The most requests of a batch.
const DEPTH: usize = 12;

fn run(name: &str, launch: &Launch, depth: usize) {
    let stage = Stage::enter(&format!("complete-{name}"));
    let address = scrape::free();
    let observer = Observer::on(&stage, &["--metrics-listen", &address.to_string(), "--ring-size", RING]);
    let gunicorn = Gunicorn::start(&stage, launch);
    observer.wait_instances(&gunicorn.workers());
    let begin = Instant::now();
    let sent = Random::new(REQUESTS).depth(depth).send(gunicorn.address());
    let took = begin.elapsed();
    observer.wait_requests(&gunicorn, &sent);
    // Another process of the host that is inside a bpf() call takes records from us: a failure says whether there was one.
    let page = scrape::page(address);
    let passed_over: Vec<_> =
        page.series("sw_observe_program_misses_total").filter(|(_, misses)| *misses > 0.0).collect();
    let report = observer.stop();
    let abandoned: usize = sent.iter().map(|sent| sent.abandoned.len()).sum();
    eprintln!("{name}: {} in {took:?}, {abandoned} tries more, lost {:?}", sent.len(), report.drops());
    eprintln!("{name}: the kernel passed over {passed_over:?}");
    Expectation::new(&gunicorn, &sent).busy().check_counts(&report);
}

macro_rules! each_class {
    ($($class:ident $depth:expr;)*) => {
        $(#[test]
        fn $class() {
            super::run(stringify!($class), &super::$class(), $depth);
        })*
    };
}

mod every_request_once {
    use super::DEPTH;
    each_class! {
        sync 1; // it closes after each
        gthread DEPTH;
        gevent DEPTH;
        tornado DEPTH;
        uvicorn_asyncio DEPTH;
        uvicorn_uvloop DEPTH;
        asgi DEPTH;
        asgi_uvloop DEPTH;
    }
}
