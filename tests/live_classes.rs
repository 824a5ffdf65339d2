//! Every worker class, with the observer there first and late: each request once, under the worker that answered.

use harness::classes::asgi;
use harness::classes::asgi_uvloop;
use harness::classes::gevent;
use harness::classes::gthread;
use harness::classes::sync;
use harness::classes::tornado;
use harness::classes::uvicorn_asyncio;
use harness::classes::uvicorn_uvloop;
use harness::client::Mode;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::stage::Stage;
use harness::traffic::mixed;
use harness::traffic::send_all;
use harness::verdict::Expectation;
use harness::verdict::check_instances;

const REQUESTS: usize = 280;

/// Who is there first.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Observer,
    Gunicorn,
}

fn run(name: &str, launch: &Launch, first: First) {
    let stage = Stage::enter(name);
    let early = (first == First::Observer).then(|| Observer::start(&[]));
    let mut gunicorn = Gunicorn::start(&stage, launch);
    let observer = early.unwrap_or_else(|| Observer::start(&[]));
    let workers = gunicorn.workers();
    observer.wait_instances(&workers);
    let mut sent = send_all(gunicorn.address(), Mode::KeepAlive, 4, mixed(REQUESTS));
    sent.extend(send_all(gunicorn.address(), Mode::New, 4, mixed(REQUESTS)));
    observer.wait_requests(&gunicorn, &sent);
    gunicorn.stop();
    let all = [vec![gunicorn.master()], workers.clone()].concat();
    observer.wait_gone(&all);
    let report = observer.stop();
    Expectation::new(&gunicorn, &sent).check(&report);
    check_instances(&report, &gunicorn, &workers);
}

macro_rules! each_class {
    ($($class:ident)*) => {
        mod observer_first {
            $(#[test]
            fn $class() {
                super::run(stringify!($class), &super::$class(), super::First::Observer);
            })*
        }
        mod observer_late {
            $(#[test]
            fn $class() {
                super::run(stringify!($class), &super::$class(), super::First::Gunicorn);
            })*
        }
    };
}

each_class!(sync gthread gevent tornado uvicorn_asyncio uvicorn_uvloop asgi asgi_uvloop);
