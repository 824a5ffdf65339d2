//! Many processes that live briefly: beside gunicorn, below its workers, and its workers themselves.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use harness::client::Client;
use harness::client::Mode;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::alive;
use harness::gunicorn::cpu_ticks;
use harness::gunicorn::kill;
use harness::life::cause;
use harness::life::named;
use harness::life::role;
use harness::observer::Line;
use harness::observer::Observer;
use harness::observer::Report;
use harness::observer::instances;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::package;
use harness::stage::wait;
use harness::traffic::Traffic;
use harness::traffic::plain;
use harness::traffic::send_all;
use harness::verdict::Expectation;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a storm lasts.
const STORM: Duration = Duration::from_secs(30);
/// How many processes it starts each second.
const RATE: u32 = 1000;

/// A process that forks; it ends by itself when it has forked enough.
struct Storm(Child);

impl Storm {
    fn start(rate: u32, time: Duration) -> Self {
        let script = package().join("apps/storm.py");
        let mut command = Command::new("python3");
        command.args(["-I", "-S"]).arg(script).arg(rate.to_string()).arg(time.as_secs().to_string());
        Self(command.stdout(Stdio::piped()).spawn().expect("start the storm"))
    }

    /// Waits for its end; says how many processes it has started.
    fn end(mut self) -> u32 {
        let ended = wait(STORM * 2, || self.0.try_wait().ok().flatten());
        assert!(ended.is_some_and(|status| status.success()), "the storm did not end well: {ended:?}");
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        said.trim().parse().unwrap()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The workers that gunicorn logged and no others are instances, each as often as it was logged.
fn assert_workers(report: &Report, gunicorn: &Gunicorn) {
    let mut seen: Vec<_> = instances(&report.lines, gunicorn.service())
        .filter(|found| found.role == "worker")
        .map(|found| found.pid)
        .collect();
    let mut logged = gunicorn.ever();
    seen.sort_unstable();
    logged.sort_unstable();
    assert_eq!(seen, logged, "workers (left: reported)\n{}", report.stderr);
}

/// Every worker whose end is over by itself has the cause `recycle`.
fn assert_recycled(report: &Report, gunicorn: &Gunicorn, recycled: &[u32]) {
    let wrong: Vec<_> = recycled
        .iter()
        .map(|pid| (pid, cause(&report.lines, gunicorn.service(), *pid)))
        .filter(|(_, cause)| *cause != Some("recycle"))
        .collect();
    assert!(wrong.is_empty(), "of {} recycled workers these have another cause: {wrong:?}", recycled.len());
}

/// What was answered, and what a worker refused because its time had come.
fn parted(sent: Vec<Sent>) -> (Vec<Sent>, Vec<Sent>) {
    sent.into_iter().partition(|sent| sent.error.is_none())
}

/// A thousand processes a second, thirty seconds, beside workers that are busy and replaced all the time.
#[test]
fn a_storm_beside_gunicorn() {
    let stage = Stage::enter("storm");
    let observer = Observer::start(&[]);
    let gunicorn =
        Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app").args(&["--max-requests", "40"]));
    observer.wait_instances(&gunicorn.workers());
    let (begin, before) = (Instant::now(), cpu_ticks(observer.pid()));
    let storm = Storm::start(RATE, STORM);
    let mut sent = Vec::new();
    while begin.elapsed() < STORM {
        sent.extend(send_all(gunicorn.address(), Mode::New, 2, plain(20)));
        std::thread::sleep(Duration::from_millis(100));
    }
    let forks = storm.end();
    let ticks = cpu_ticks(observer.pid()) - before;
    let (served, refused) = parted(sent);
    observer.wait_requests(&gunicorn, &served);
    let gone = || gunicorn.ever().into_iter().filter(|pid| !alive(*pid)).collect::<Vec<_>>();
    let recycled = gone();
    observer.wait_gone(&recycled);
    observer.wait_instances(&gunicorn.workers());
    let report = observer.stop();
    println!(
        "cost: {forks} processes in {STORM:?} beside {} requests by {} workers: the observer used {} ms of CPU",
        served.len(),
        gunicorn.ever().len(),
        ticks * 10,
    );
    assert!(forks > RATE * 15, "this machine was too slow for a storm: {forks} processes");
    assert!(recycled.len() > 5, "only {} workers were replaced", recycled.len());
    Expectation::new(&gunicorn, &served).brief().maybe(&refused).losing(&["cut"]).check(&report);
    assert_workers(&report, &gunicorn);
    assert_recycled(&report, &gunicorn, &recycled);
}

/// Two hundred a second in a request: app children, and nothing else.
#[test]
fn a_storm_in_a_worker() {
    let stage = Stage::enter("storm-in");
    let observer = Observer::start(&[]);
    let gunicorn = Gunicorn::start(&stage, &Launch::new("gthread", "wild_app:app").args(&["--threads", "2"]));
    observer.wait_instances(&gunicorn.workers());
    let storm = Request::get("storm").query("n=1000&hz=200");
    let sent = vec![Client::new(gunicorn.address(), Mode::New).send(&storm)];
    let sent = [sent, send_all(gunicorn.address(), Mode::New, 2, plain(50))].concat();
    observer.wait_requests(&gunicorn, &sent);
    let report = observer.stop();
    Expectation::new(&gunicorn, &sent).check(&report);
    assert_workers(&report, &gunicorn);
    let workers = gunicorn.ever();
    let children: BTreeSet<_> = report.lines.iter().filter_map(|line| child_of(line, &workers)).collect();
    assert!((950..=1000).contains(&children.len()), "{} of 1000 app children have a role", children.len());
    let left: Vec<_> = children.iter().filter(|pid| role(&report.lines, **pid).is_some()).collect();
    assert!(left.is_empty(), "app children that have ended keep a role: {left:?}");
    assert!(named(&report.lines, gunicorn.service(), "Exit").is_empty(), "an app child's end is an event");
}

fn child_of(line: &Line, workers: &[u32]) -> Option<u32> {
    let Line::Process { pid, role: Some(role), parent: Some(parent) } = line else { return None };
    (role == "app-child" && workers.contains(parent)).then_some(*pid)
}

/// The two workers that stay when there are no more requests: one that is on its way out counts as alive until the end.
fn settled(gunicorn: &Gunicorn) -> Vec<u32> {
    let staying = wait(PATIENCE, || {
        let workers = gunicorn.wait_workers(2, &[]);
        std::thread::sleep(Duration::from_secs(1));
        (gunicorn.workers() == workers).then_some(workers)
    });
    staying.expect("workers still come and go")
}

/// Workers that serve one to twenty requests each, under load.
fn short_lives(launch: &Launch, request: impl Fn() -> Request) {
    for limit in ["1", "2", "5", "20"] {
        let stage = Stage::enter("short");
        let observer = Observer::start(&[]);
        let mut gunicorn = Gunicorn::start(&stage, &launch.clone().args(&["--max-requests", limit]));
        let (served, refused) =
            parted(send_all(gunicorn.address(), Mode::New, 4, (0..240).map(|_| request()).collect()));
        observer.wait_requests(&gunicorn, &served);
        // A worker that is stopped before its first heartbeat is none, so the last ones get time for it.
        let last = settled(&gunicorn);
        observer.wait_instances(&last);
        let recycled: Vec<_> = gunicorn.ever().into_iter().filter(|pid| !last.contains(pid)).collect();
        observer.wait_gone(&recycled);
        gunicorn.stop();
        observer.wait_gone(&gunicorn.ever());
        let report = observer.stop();
        assert!(recycled.len() > 2, "only {} workers were replaced", recycled.len());
        assert!(served.len() >= 200, "only {} of 240 were served", served.len());
        Expectation::new(&gunicorn, &served).brief().maybe(&refused).losing(&["cut"]).check(&report);
        assert_counts(&report, &gunicorn, &refused);
        assert_workers(&report, &gunicorn);
        assert_recycled(&report, &gunicorn, &recycled);
    }
}

#[test]
fn short_lives_sync() {
    short_lives(&Launch::new("sync", "wsgi_app:app"), || Request::get("plain"));
}

#[test]
fn short_lives_gthread() {
    short_lives(&Launch::new("gthread", "flask_app:app").args(&["--threads", "4"]), || Request::get("plain"));
}

/// uvicorn looks at its limit a few times a second, so its requests take their time.
#[test]
fn short_lives_uvicorn() {
    let launch = Launch::new("uvicorn.workers.UvicornWorker", "fastapi_app:app");
    short_lives(&launch, || Request::get("slow").query("ms=60"));
}

/// What each worker counted is what is reported of it; a request that got no answer may be reported or not.
fn assert_counts(report: &Report, gunicorn: &Gunicorn, refused: &[Sent]) {
    let paths: BTreeSet<_> = refused.iter().map(|sent| sent.path.as_str()).collect();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for segment in harness::observer::segments(&report.lines, gunicorn.service()) {
        if !segment.spans.iter().any(|span| paths.contains(span.operation.as_str())) {
            *seen.entry(&segment.instance).or_default() += 1;
        }
    }
    for (worker, count) in gunicorn.counts() {
        let name = gunicorn.worker_name(worker);
        let reported = seen.remove(name.as_str()).unwrap_or(0);
        let is_right = reported == count || (reported < count && count - reported <= refused.len());
        assert!(is_right, "{name} counted {count} requests, reported are {reported}");
    }
    assert!(seen.is_empty(), "these counted no requests: {seen:?}");
}

/// Workers that die at import again and again: no instance, one event with a rate, over when the master is.
#[test]
fn crash_loops() {
    for (how, why) in [("segv", "crash"), ("exit", "boot-failure")] {
        for late in [false, true] {
            let stage = Stage::enter("crash-loop");
            let early = (!late).then(|| Observer::start(&[]));
            let launch = Launch::new("sync", "wild_app:app").env("WILD_IMPORT", how);
            let mut gunicorn = Gunicorn::looping(&stage, &launch);
            let observer = early.unwrap_or_else(|| Observer::start(&[]));
            let looping = |lines: &[Line]| !named(lines, gunicorn.service(), "CrashLoop").is_empty();
            assert!(observer.wait(PATIENCE, looping), "no crash loop is reported\n{}", observer.stderr());
            std::thread::sleep(Duration::from_secs(5));
            let booted = gunicorn.booted();
            gunicorn.stop();
            let master = gunicorn.master();
            observer.wait_gone(&[master]);
            let report = observer.stop();
            report.assert_code(0);
            let loops = named(&report.lines, gunicorn.service(), "CrashLoop");
            let [found] = loops.as_slice() else { panic!("{} crash loops: {loops:?}", loops.len()) };
            assert_eq!(found.instance, gunicorn.master_name());
            assert!(found.end_ms.is_some(), "it does not end with its master: {found:?}");
            assert_eq!(found.kind, "Error");
            assert_eq!(found.parameters.get("last_cause").map(String::as_str), Some(why), "{found:?}");
            let number = |name: &str| found.parameters.get(name).and_then(|text| text.parse::<f64>().ok());
            let (deaths, rate) = (number("deaths").unwrap(), number("per_minute").unwrap());
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let most = booted.len() as f64 + 50.0;
            assert!(deaths > 10.0 && deaths <= most, "{deaths} deaths of {} workers", booted.len());
            assert!((60.0..6000.0).contains(&rate), "{rate} a minute; it is some 16 a second");
            let exits = named(&report.lines, gunicorn.service(), "Exit");
            assert!(exits.len() < 20, "{} ends are reported one by one", exits.len());
            let roles: Vec<_> =
                instances(&report.lines, gunicorn.service()).map(|i| i.role.as_str()).collect();
            assert!(roles == ["master"], "instances: {roles:?}");
            assert_eq!(cause(&report.lines, gunicorn.service(), master), Some("shutdown"));
        }
    }
}

/// A master may be gone before its first slot is read: its end is told, under its name.
#[test]
fn a_master_that_fails_while_nobody_reads() {
    let stage = Stage::enter("unread");
    let observer = Observer::start(&[]);
    let configured = stage.folder("marks").join("configured");
    let marked = configured.display().to_string();
    let launch = Launch::new("sync", "no_such_app:app").env("TEST_SLOW_CONFIG", &marked);
    let gunicorn = std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(
                wait(PATIENCE, || configured.exists().then_some(())).is_some(),
                "gunicorn does not start"
            );
            std::thread::sleep(Duration::from_millis(500)); // of the 2 s before the first slot
            kill(observer.pid(), Signal::STOP);
        });
        Gunicorn::failing(&stage, &launch)
    });
    kill(observer.pid(), Signal::CONT);
    observer.wait_gone(&[gunicorn.master()]);
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(cause(&report.lines, gunicorn.service(), gunicorn.master()), Some("boot-failure"));
    let names: Vec<_> =
        instances(&report.lines, gunicorn.service()).map(|found| found.instance.clone()).collect();
    assert_eq!(names, [gunicorn.master_name()]);
}

/// The traffic goes on while workers are replaced by order, by themselves and by force.
#[test]
fn everything_at_once() {
    let stage = Stage::enter("at-once");
    let observer = Observer::start(&[]);
    let launch = Launch::new("gthread", "wild_app:app").args(&["--threads", "2", "--max-requests", "50"]);
    let gunicorn = Gunicorn::start(&stage, &launch);
    observer.wait_instances(&gunicorn.workers());
    let storm = Storm::start(200, Duration::from_secs(10));
    let traffic = Traffic::endless(gunicorn.address(), Mode::New, 2, "plain");
    for signal in [Signal::HUP, Signal::TTIN, Signal::TTOU, Signal::HUP] {
        std::thread::sleep(Duration::from_secs(2));
        gunicorn.signal(signal);
    }
    storm.end();
    let (served, refused) = parted(traffic.finish());
    observer.wait_requests(&gunicorn, &served);
    gunicorn.wait_workers(2, &[]);
    observer.wait_instances(&gunicorn.workers());
    let report = observer.stop();
    Expectation::new(&gunicorn, &served).brief().maybe(&refused).losing(&["cut"]).check(&report);
    assert_workers(&report, &gunicorn);
}
