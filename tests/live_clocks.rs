//! How long the interpreter's collector runs and threads wait for its lock, against its own clocks.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and says what it compared"
)]

use std::thread;
use std::time::Duration;

use harness::client::Client;
use harness::client::Mode;
use harness::code::foreign_bytes;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::meters;
use harness::meters::Meters;
use harness::observer::Observer;
use harness::python::Python;
use harness::python::releases;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;
use rustix::process::Signal;
use serde::Deserialize;

const PATIENCE: Duration = Duration::from_secs(20);
/// What a callback and the probe see differently of one run, in milliseconds: building the callback's arguments.
const EACH_MS: f64 = 0.06;
/// How often runs may be told differently by the two.
const ATTEMPTS: usize = 4;

/// What `clocks_app.collect` says of a generation.
#[derive(Debug, Deserialize)]
struct Pause {
    seconds: f64,
    longest: f64,
    runs: f64,
}

/// A gunicorn with one worker, and what is reported of that.
struct Watched<'a> {
    observer: &'a Observer,
    gunicorn: Gunicorn,
    client: Client,
    worker: String,
}

impl<'a> Watched<'a> {
    fn start(stage: &Stage, observer: &'a Observer, launch: &Launch) -> Self {
        let gunicorn = Gunicorn::start(stage, launch);
        let client = Client::new(gunicorn.address(), Mode::New);
        let worker = gunicorn.worker_name(*gunicorn.workers().first().unwrap());
        Self { observer, gunicorn, client, worker }
    }

    fn ask<T: for<'b> Deserialize<'b>>(&mut self, request: Request) -> T {
        let sent = self.client.send(&request);
        assert_eq!(sent.status, Some(200), "{:?}\n{}", sent.error, self.gunicorn.log());
        serde_json::from_slice(&sent.body).unwrap()
    }

    /// Every batch that was reported of the worker.
    fn batches(&self) -> Vec<Meters> {
        let mut all = Vec::new();
        self.observer.wait(Duration::ZERO, |lines| {
            all = meters::batches(lines, &self.worker).into_iter().cloned().collect();
            true
        });
        all
    }

    /// Waits for a batch that satisfies a condition; its position.
    fn wait(&self, what: &str, is: impl Fn(&Meters) -> bool) -> usize {
        let found = wait(PATIENCE, || self.batches().iter().position(&is));
        found.unwrap_or_else(|| panic!("{what}: {:#?}\n{}", self.batches().last(), self.observer.stderr()))
    }

    /// Waits for two batches more: the first of them may have been made before what happened last.
    fn next(&self) -> Meters {
        let wanted = self.batches().len() + 2;
        wait(PATIENCE, || self.batches().get(wanted - 1).cloned()).unwrap()
    }
}

fn generation(name: &str, number: usize) -> String {
    format!("instance_gunicorn_{name}{{generation={number}}}")
}

/// Whether the batch was made after these runs.
fn is_after(pauses: &[Pause; 3], meters: &Meters) -> bool {
    let runs = pauses.iter().enumerate();
    runs.into_iter()
        .all(|(number, pause)| meters.get(&generation("gc_collections", number)) == Some(&pause.runs))
}

/// What is not as the callbacks saw it in the runs between two batches. Between the probe and a callback the process may have
/// to wait for a processor, which makes either of the two longer.
fn faults(batches: &[Meters], [before, after]: [&[Pause; 3]; 2]) -> Vec<String> {
    let (then, now) = (batches.first().unwrap(), batches.last().unwrap());
    let mut faults = Vec::new();
    for (number, (before, after)) in before.iter().zip(after).enumerate() {
        let of = |meters: &Meters, name| meters.get(&generation(name, number)).copied();
        let (is, runs) = ((after.seconds - before.seconds) * 1e3, after.runs - before.runs);
        let reported = of(now, "gc_pause").unwrap() - of(then, "gc_pause").unwrap();
        if runs == 0.0 || (reported - is).abs() > 0.1 * is + EACH_MS * runs {
            faults.push(format!("generation {number}: {is} ms in {runs} runs, reported {reported}"));
        }
        // 3.15 keeps sums only.
        let longest = batches.iter().skip(1).filter_map(|batch| of(batch, "gc_pause_max")).reduce(f64::max);
        let is = after.longest * 1e3;
        if longest.is_some_and(|longest| (longest - is).abs() > 0.1 * is + EACH_MS) {
            faults.push(format!("generation {number}: {is} ms at most, reported {longest:?}"));
        }
    }
    faults
}

/// The collector's runs, as its callbacks see them.
fn compare_pauses(stage: &Stage, observer: &Observer, launch: &Launch) {
    let mut watched = Watched::start(stage, observer, launch);
    watched.wait("the collector is timed", |meters| meters.contains_key(&generation("gc_pause", 0)));
    let mut before: [Pause; 3] = watched.ask(Request::get("collect"));
    let mut then = watched.wait("the first runs", |meters| is_after(&before, meters));
    let mut all = Vec::new();
    let last = loop {
        let after: [Pause; 3] = watched.ask(Request::get("collect"));
        let now = watched.wait("all runs", |meters| is_after(&after, meters));
        let batches = watched.batches();
        let faults = faults(&batches[then..=now], [&before, &after]);
        if faults.is_empty() {
            break batches[now].clone();
        }
        all.push(faults);
        assert!(all.len() < ATTEMPTS, "{all:#?}");
        (before, then) = (after, now);
    };
    let time = last["instance_pvm_gc_time"];
    let sum: f64 = (0..3).map(|number| last[&generation("gc_pause", number)]).sum();
    assert!((time - sum).abs() < 0.001, "{sum} ms by generation, {time} in all");
    // The worker that follows begins anew, with whatever clock it has.
    let old = watched.gunicorn.workers();
    watched.gunicorn.signal(Signal::HUP);
    let next = *watched.gunicorn.wait_workers(1, &old).first().unwrap();
    watched.worker = watched.gunicorn.worker_name(next);
    let first =
        watched.wait("its collector is timed", |meters| meters.contains_key(&generation("gc_pause", 0)));
    let fresh = watched.batches()[first]["instance_pvm_gc_time"];
    assert!(fresh < 0.2 * time, "{time} ms of one worker, {fresh} of the next");
}

/// Waits for the lock, as threads see them that want to run; none by threads that wait for something else.
fn compare_waits(stage: &Stage, observer: &Observer, launch: &Launch) {
    const WAITED: &str = "instance_gunicorn_gil_wait";
    let mut watched = Watched::start(stage, observer, launch);
    let _: [f64; 2] = watched.ask(Request::get("idle").query("ms=2500")); // several threads, so that it is timed
    watched.wait("waits are timed", |meters| meters.contains_key(WAITED));
    let begin = watched.next()[WAITED];
    let [other, _]: [f64; 2] = watched.ask(Request::get("idle").query("ms=1000"));
    let between = watched.next()[WAITED];
    let (is, reported) = (other * 1e3, between - begin);
    assert!(is > 2_500.0 && reported < 50.0, "{is} ms of other waits, of which {reported} are reported");
    let [least, most]: [f64; 2] = watched.ask(Request::get("contend").query("ms=1500"));
    let reported = watched.next()[WAITED] - between;
    let wanted = least * 0.9e3..most * 1.1e3;
    assert!(least > 1.0 && wanted.contains(&reported), "{wanted:?} ms of waits, reported {reported}");
}

fn each(
    name: &str,
    compare: impl Fn(&Stage, &Observer, &Launch) + Sync,
    classes: &[(&'static str, &[&str])],
) {
    let stage = Stage::enter(name);
    let observer = Observer::start(&["--meter-period", "1"]);
    for (path, python) in releases() {
        let stripped = python.stripped(&stage.folder("stripped"));
        let builds: Vec<&Python> = std::iter::once(&python).chain(&stripped).collect();
        thread::scope(|scope| {
            for (class, args) in classes {
                for build in &builds {
                    let launch = Launch::new(class, "clocks_app:app").workers(1).python(build).args(args);
                    let (stage, observer, compare) = (&stage, &observer, &compare);
                    scope.spawn(move || compare(stage, observer, &launch));
                }
            }
        });
        println!("{name}: {path}, {} builds", builds.len());
    }
    let report = observer.stop();
    report.assert_code(0);
    assert!(!report.stderr.contains("of this CPython"), "{}", report.stderr);
}

#[test]
fn pauses_are_those_that_callbacks_see() {
    each("pauses", compare_pauses, &[("sync", &[]), ("gthread", &["--threads", "4"])]);
}

#[test]
fn waits_are_for_the_lock_and_for_nothing_else() {
    each("waits", compare_waits, &[("gthread", &["--threads", "2"])]);
}

/// One instruction of a target is marked while it is watched, none when its runs are not to be timed, and none afterwards,
/// however the observer ended.
#[test]
fn code_is_marked_only_while_it_is_timed() {
    let stage = Stage::enter("marked");
    let launch = Launch::new("sync", "clocks_app:app").workers(1);
    let gunicorn = Gunicorn::start(&stage, &launch);
    let (master, worker) = (gunicorn.master(), *gunicorn.workers().first().unwrap());
    let marks = || [master, worker].map(|pid| foreign_bytes(pid, "python") + foreign_bytes(pid, "libpython"));
    let name = gunicorn.worker_name(worker);
    for signal in [Signal::TERM, Signal::KILL] {
        assert_eq!(marks(), [0, 0]);
        let without = Observer::start(&["--meter-period", "1", "--no-gc-pauses", "--no-gil-wait"]);
        let reported =
            |observer: &Observer| meters::expect_that(observer, &name, "instance_pvm_gc_g0", |_| true);
        reported(&without);
        assert_eq!(marks(), [0, 0]);
        assert_eq!(meters::most(&without, &name, "instance_pvm_gc_time"), None);
        without.end(signal);
        let with = Observer::start(&["--meter-period", "1"]);
        meters::expect_that(&with, &name, &generation("gc_pause", 0), |_| true);
        assert_eq!(marks(), [1, 1]);
        with.end(signal);
        // The kernel takes them out a little after the observer's end.
        assert!(wait(PATIENCE, || (marks() == [0, 0]).then_some(())).is_some(), "{:?}", marks());
    }
}
