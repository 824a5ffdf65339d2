//! Full speed, workers that come and go, and observers that die: every request is reported, none is disturbed.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::classes::gthread;
use harness::classes::sync;
use harness::classes::uvicorn_uvloop;
use harness::client::Client;
use harness::client::Mode;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::kill;
use harness::observer::Observer;
use harness::observer::segments;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;
use harness::traffic::Traffic;
use harness::traffic::plain;
use harness::traffic::send_all;
use harness::verdict::Expectation;
use rustix::process::Signal;

const REQUESTS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the traffic has gone on for some requests more.
fn pass(traffic: &Traffic, count: usize) {
    let goal = traffic.sent() + count;
    let reached = wait(PATIENCE, || (traffic.sent() >= goal).then_some(()));
    assert!(reached.is_some(), "the traffic stands still at {} of {goal}", traffic.sent());
}

fn assert_answered(sent: &[Sent]) {
    let bad: Vec<_> =
        sent.iter().filter(|sent| sent.status != Some(200) || sent.error.is_some()).take(5).collect();
    assert!(bad.is_empty(), "requests failed: {bad:?}");
}

fn ten_thousand(name: &str, launch: &Launch, mode: Mode) {
    let stage = Stage::enter(name);
    let observer = Observer::start(&[]);
    let gunicorn = Gunicorn::start(&stage, launch);
    observer.wait_instances(&gunicorn.workers());
    let sent = send_all(gunicorn.address(), mode, 4, plain(REQUESTS));
    observer.wait_requests(&gunicorn, &sent);
    let report = observer.stop();
    Expectation::new(&gunicorn, &sent).check_counts(&report);
}

#[test]
fn sync_new_connections() {
    ten_thousand("load-sync", &sync(), Mode::New);
}

#[test]
fn gthread_new_connections() {
    ten_thousand("load-gthread", &gthread(), Mode::New);
}

#[test]
fn gthread_keep_alive() {
    ten_thousand("load-gthread", &gthread(), Mode::KeepAlive);
}

#[test]
fn uvicorn_new_connections() {
    ten_thousand("load-uvicorn", &uvicorn_uvloop(), Mode::New);
}

#[test]
fn uvicorn_keep_alive() {
    ten_thousand("load-uvicorn", &uvicorn_uvloop(), Mode::KeepAlive);
}

/// An observer is killed under load; its successor sees everything that is sent after it is ready.
#[test]
fn a_killed_observer_disturbs_nobody_and_the_next_takes_over() {
    for (launch, mode) in
        [(sync(), Mode::New), (gthread(), Mode::KeepAlive), (uvicorn_uvloop(), Mode::KeepAlive)]
    {
        let stage = Stage::enter("killed");
        let gunicorn = Gunicorn::start(&stage, &launch);
        let first = Observer::start(&[]);
        first.wait_instances(&gunicorn.workers());
        let before = send_all(gunicorn.address(), mode, 4, plain(100));
        first.wait_requests(&gunicorn, &before);
        let endless = || Traffic::endless(gunicorn.address(), mode, 4, "plain");
        let traffic = endless();
        pass(&traffic, 1000);
        kill(first.pid(), Signal::KILL);
        pass(&traffic, 2000); // the kernel is taking the probes away: while processors are busy that takes its time
        let mut during = traffic.finish();
        let killed = first.end(Signal::KILL);
        let traffic = endless();
        pass(&traffic, 500);
        let second = Observer::start(&[]);
        second.wait_instances(&gunicorn.workers());
        pass(&traffic, 1000);
        during.extend(traffic.finish());
        let after = send_all(gunicorn.address(), mode, 4, plain(500));
        assert_answered(&during);
        second.wait_requests(&gunicorn, &after);
        let report = second.stop();
        // A request or response under way when the second one came has no beginning for it.
        Expectation::new(&gunicorn, &after)
            .maybe(&during)
            .losing(&["response_without_request", "gap", "not_http"])
            .check(&report);
        Expectation::new(&gunicorn, &before).maybe(&during).check_killed(&killed);
    }
}

#[test]
fn a_stop_under_load_is_clean_and_bounded() {
    let stage = Stage::enter("stopped");
    let gunicorn = Gunicorn::start(&stage, &gthread());
    for signal in [Signal::TERM, Signal::INT] {
        let observer = Observer::start(&[]);
        let traffic = Traffic::endless(gunicorn.address(), Mode::KeepAlive, 4, "plain");
        pass(&traffic, 500);
        let report = observer.end(signal);
        assert_answered(&traffic.finish());
        report.assert_code(0);
        report.drops();
        // As long as a stop may take: the kernel takes the probes away one after the other.
        assert!(
            report.took < Duration::from_secs(10),
            "it took {:?} to stop\n{}",
            report.took,
            report.stderr
        );
    }
}

/// The worker ends in the middle of a request: the request is reported as an error or counted as cut.
#[test]
fn a_worker_that_dies_in_a_request() {
    let stage = Stage::enter("dies");
    let observer = Observer::start(&[]);
    let gunicorn = Gunicorn::start(&stage, &gthread().workers(1));
    let mut all = Vec::new();
    let mut died = Vec::new();
    let mut client = Client::new(gunicorn.address(), Mode::New);
    for round in 0..4 {
        let workers = gunicorn.workers();
        observer.wait_instances(&workers);
        if round % 2 == 0 {
            died.push(client.send(&Request::get("leave")));
        } else {
            let slow = Request::get("slow").query("ms=60000");
            let address = gunicorn.address().clone();
            let waiting = std::thread::spawn(move || Client::new(&address, Mode::New).send(&slow));
            let served = gunicorn.counts().get(&workers[0]).copied().unwrap_or(0);
            let reached = wait(PATIENCE, || (gunicorn.counts().get(&workers[0])? > &served).then_some(()));
            assert!(reached.is_some(), "the slow request is not served\n{}", gunicorn.log());
            kill(workers[0], Signal::KILL);
            died.push(waiting.join().unwrap());
        }
        gunicorn.wait_workers(1, &workers);
        observer.wait_gone(&workers);
        all.push(client.send(&Request::get("plain")));
    }
    assert!(died.iter().all(|sent| sent.status.is_none()), "{died:?}");
    observer.wait_requests(&gunicorn, &all);
    let report = observer.stop();
    let ends: BTreeSet<_> = died.iter().map(|sent| sent.path.as_str()).collect();
    let failed = segments(&report.lines, gunicorn.service())
        .filter(|segment| ends.contains(segment.spans[0].operation.as_str()))
        .inspect(|segment| assert!(segment.spans[0].is_error, "{segment:?}"))
        .count() as u64;
    let cut = report.drops().get("cut").copied().unwrap_or(0);
    assert_eq!(
        failed.max(cut),
        4,
        "{failed} error segments and {cut} cuts; {:?}\n{}",
        report.drops(),
        report.stderr
    );
    Expectation::new(&gunicorn, &all).maybe(&died).losing(&["cut"]).check(&report);
}

/// Workers are replaced after five requests each, under load.
#[test]
fn recycled_workers() {
    for (launch, mode) in [(sync(), Mode::New), (gthread(), Mode::New), (uvicorn_uvloop(), Mode::New)] {
        let stage = Stage::enter("recycled");
        let observer = Observer::start(&[]);
        let gunicorn = Gunicorn::start(&stage, &launch.args(&["--max-requests", "5"]));
        let sent = send_all(gunicorn.address(), mode, 4, plain(300));
        // A worker may refuse a connection that it had accepted when its time came; that is no served request.
        let (served, refused): (Vec<_>, Vec<_>) = sent.into_iter().partition(|sent| sent.error.is_none());
        observer.wait_requests(&gunicorn, &served);
        let report = observer.stop();
        assert!(refused.len() < 60, "{} of 300 failed: {:?}", refused.len(), refused.first());
        Expectation::new(&gunicorn, &served).brief().maybe(&refused).losing(&["cut"]).check(&report);
    }
}

#[test]
fn a_full_ring_is_counted_and_what_follows_is_right() {
    for (launch, mode) in [(sync(), Mode::New), (uvicorn_uvloop(), Mode::KeepAlive)] {
        let stage = Stage::enter("full");
        let gunicorn = Gunicorn::start(&stage, &launch);
        let observer = Observer::start(&["--ring-size", "1048576"]);
        observer.wait_instances(&gunicorn.workers());
        kill(observer.pid(), Signal::STOP); // nobody reads
        let during = send_all(gunicorn.address(), mode, 2, plain(4000));
        kill(observer.pid(), Signal::CONT);
        let heard = wait(PATIENCE, || {
            let mut client = Client::new(gunicorn.address(), Mode::New);
            let sent = client.send(&Request::get("plain"));
            observer
                .wait(Duration::from_secs(1), |lines| {
                    segments(lines, gunicorn.service()).any(|segment| segment.spans[0].operation == sent.path)
                })
                .then_some(sent)
        });
        let heard = heard.expect("the observer hears again");
        let after = send_all(gunicorn.address(), mode, 2, plain(200));
        observer.wait_requests(&gunicorn, &after);
        let report = observer.stop();
        assert!(report.drops().get("ring_full").is_some_and(|n| *n > 0), "{:?}", report.drops());
        Expectation::new(&gunicorn, &after)
            .maybe(&during)
            .maybe(&[heard])
            .losing(&["ring_full", "gap", "response_without_request"])
            .check(&report);
    }
}
