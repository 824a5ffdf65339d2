//! Things that change while the observer watches, and observers that come in the middle.

use harness::client::Client;
use harness::client::Mode;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::kill;
use harness::observer::Observer;
use harness::observer::instances;
use harness::request::Request;
use harness::stage::Stage;
use harness::traffic::mixed;
use harness::traffic::plain;
use harness::traffic::send_all;
use harness::verdict::Expectation;
use harness::verdict::check_instances;
use rustix::process::Signal;

fn launches() -> [Launch; 3] {
    [
        Launch::new("sync", "wsgi_app:app"),
        Launch::new("gthread", "flask_app:app").args(&["--threads", "4"]),
        Launch::new("uvicorn.workers.UvicornWorker", "fastapi_app:app"),
    ]
}

fn traffic(gunicorn: &Gunicorn) -> Vec<Sent> {
    send_all(gunicorn.address(), Mode::New, 3, mixed(70))
}

/// Changes gunicorn between two rounds of traffic; `change` returns when the new workers are ready.
fn changed(name: &str, launch: &Launch, change: impl Fn(&Gunicorn)) {
    let stage = Stage::enter(name);
    let observer = Observer::start(&[]);
    let mut gunicorn = Gunicorn::start(&stage, launch);
    observer.wait_instances(&gunicorn.workers());
    let mut sent = traffic(&gunicorn);
    change(&gunicorn);
    observer.wait_instances(&gunicorn.workers());
    sent.extend(traffic(&gunicorn));
    observer.wait_requests(&gunicorn, &sent);
    let workers = gunicorn.ever();
    gunicorn.stop();
    observer.wait_gone(&[vec![gunicorn.master()], workers.clone()].concat());
    let report = observer.stop();
    Expectation::new(&gunicorn, &sent).check(&report);
    check_instances(&report, &gunicorn, &workers);
}

#[test]
fn reload() {
    for launch in launches() {
        changed("reload", &launch, |gunicorn| {
            let old = gunicorn.workers();
            gunicorn.signal(Signal::HUP);
            gunicorn.wait_workers(2, &old);
        });
    }
}

#[test]
fn a_hook_that_forks_between_slot_and_fork() {
    for launch in launches() {
        changed("pre_fork", &launch.env("TEST_PRE_FORK_FORKS", "1"), |gunicorn| {
            let old = gunicorn.workers();
            gunicorn.signal(Signal::HUP);
            gunicorn.wait_workers(2, &old);
        });
    }
}

#[test]
fn a_killed_worker_is_replaced() {
    for launch in launches() {
        changed("respawn", &launch, |gunicorn| {
            let old = gunicorn.workers();
            for worker in &old {
                kill(*worker, Signal::KILL);
            }
            gunicorn.wait_workers(2, &old);
        });
    }
}

#[test]
fn more_workers_and_fewer() {
    for launch in launches() {
        changed("scaled", &launch, |gunicorn| {
            gunicorn.signal(Signal::TTIN);
            gunicorn.wait_workers(3, &[]);
            gunicorn.signal(Signal::TTOU);
            gunicorn.wait_workers(2, &[]);
        });
    }
}

/// A connection that was open and used before the observer came.
#[test]
fn a_connection_older_than_the_observer() {
    for launch in launches().into_iter().skip(1) {
        let stage = Stage::enter("older");
        let gunicorn = Gunicorn::start(&stage, &launch.args(&["--keep-alive", "60"]));
        let mut clients: Vec<_> = (0..4).map(|_| Client::new(gunicorn.address(), Mode::KeepAlive)).collect();
        let ports: Vec<_> =
            clients.iter_mut().map(|client| client.send(&Request::get("plain")).port).collect();
        let observer = Observer::start(&[]);
        let requests = plain(40);
        let sent: Vec<_> =
            requests.iter().enumerate().map(|(i, request)| clients[i % 4].send(request)).collect();
        assert!(sent.iter().all(|sent| ports.contains(&sent.port)), "a connection was not kept");
        observer.wait_requests(&gunicorn, &sent);
        Expectation::new(&gunicorn, &sent).check(&observer.stop());
    }
}

/// A request is under way while the observer comes: the next ones on its connection are right.
#[test]
fn a_request_older_than_the_observer() {
    for launch in launches().into_iter().skip(1) {
        let stage = Stage::enter("underway");
        let gunicorn = Gunicorn::start(&stage, &launch);
        let address = gunicorn.address().clone();
        let waiting = std::thread::spawn(move || {
            let mut client = Client::new(&address, Mode::KeepAlive);
            let first = client.send(&Request::get("slow").query("ms=4000"));
            (first, [client.send(&Request::get("plain")), client.send(&Request::post("echo", "after"))])
        });
        let observer = Observer::start(&[]);
        let (first, sent) = waiting.join().unwrap();
        observer.wait_requests(&gunicorn, &sent);
        let report = observer.stop();
        Expectation::new(&gunicorn, &sent)
            .maybe(&[first])
            .losing(&["response_without_request"])
            .check(&report);
    }
}

#[test]
fn one_observer_after_the_other() {
    let stage = Stage::enter("restarted");
    let gunicorn = Gunicorn::start(&stage, &Launch::new("gthread", "flask_app:app"));
    for _ in 0..3 {
        let observer = Observer::start(&[]);
        observer.wait_instances(&gunicorn.workers());
        let sent = traffic(&gunicorn);
        observer.wait_requests(&gunicorn, &sent);
        Expectation::new(&gunicorn, &sent).check(&observer.stop());
        traffic(&gunicorn);
    }
}

#[test]
fn two_observers_at_once_see_the_same() {
    let stage = Stage::enter("both");
    let gunicorn = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app"));
    let observers = [Observer::start(&[]), Observer::start(&[])];
    let sent = traffic(&gunicorn);
    for observer in observers {
        observer.wait_requests(&gunicorn, &sent);
        Expectation::new(&gunicorn, &sent).check(&observer.stop());
    }
}

/// Where the service's name comes from, strongest first.
#[test]
fn names_of_services() {
    let stage = Stage::enter("names");
    let own = |suffix: &str| format!("{}-{suffix}", stage.service());
    let (agent, otel, name) = (own("agent"), own("otel"), own("name"));
    let base = || Launch::new("sync", "wsgi_app:app").workers(1);
    let named = || base().args(&["--name", &name]);
    let with_otel = || named().env("SW_AGENT_NAME", "").env("OTEL_SERVICE_NAME", &otel);
    let with_agent = || with_otel().env("SW_AGENT_NAME", &agent);
    let flag = own("flag");
    let namespaced = format!("{agent}|space");
    let cases: [(&str, Launch, &[&str]); 6] = [
        (&flag, with_agent(), &["--service", &flag]),
        (&agent, with_agent(), &[]),
        (&namespaced, with_agent().env("SW_AGENT_NAMESPACE", "space"), &[]),
        (&otel, with_otel(), &[]),
        (&name, named().env("SW_AGENT_NAME", ""), &[]),
        ("wsgi_app:app", base().env("SW_AGENT_NAME", ""), &[]),
    ];
    for (wanted, launch, args) in cases {
        let observer = Observer::start(args);
        let gunicorn = Gunicorn::start(&stage, &launch);
        let pids = [gunicorn.master(), gunicorn.workers()[0]];
        observer.wait_instances(&pids);
        let report = observer.stop();
        let mut found: Vec<_> = instances(&report.lines, wanted).map(|instance| instance.pid).collect();
        found.sort_unstable();
        found.retain(|pid| pids.contains(pid));
        assert_eq!(found, pids, "service {wanted}; lines: {:?}", report.lines);
    }
}
