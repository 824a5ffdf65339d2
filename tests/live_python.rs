//! What is read in an interpreter's memory against what it says of itself.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use harness::client::Client;
use harness::client::Mode;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::cpu_ticks;
use harness::observer::Line;
use harness::observer::Observer;
use harness::python::releases;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;
use harness::traffic::Traffic;
use harness::traffic::plain;
use harness::traffic::send_all;
use harness::verdict::Expectation;
use observer::identity::ProcessKey;
use observer::process::facts;
use observer::process::sample::Sampler;
use rustix::process::Signal;
use serde::Deserialize;

const PATIENCE: Duration = Duration::from_secs(20);
/// How far memory may differ in bytes: the kernel adds pages to its sums in portions.
const PORTIONS: f64 = 4e6;
/// Collections of the youngest generation between two marks of processes.
const MARK: f64 = 100.0;
/// What may be lost of another gunicorn of this machine, by children of its hooks for one. A worker of the test's own whose
/// facts were lost would lack its instance and its requests.
const FOREIGN: &str = "facts_gone";

/// What `inside_app.truth` says.
#[derive(Debug, Deserialize)]
struct Truth {
    version: String,
    stats: [Generation; 3],
    states: f64,
    active: f64,
    tasks: f64,
    resident: f64,
    cpu: f64,
    paused: f64,
}

/// One of `gc.get_stats()`.
#[derive(Debug, Deserialize)]
struct Generation {
    collections: f64,
    collected: f64,
    uncollectable: f64,
    /// In seconds, from 3.15.
    duration: Option<f64>,
}

/// The meters of one moment.
#[derive(Clone, Debug)]
struct Moment {
    at_ms: i64,
    meters: BTreeMap<String, f64>,
}

impl Truth {
    fn of(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)))
    }

    /// Milliseconds in the collector, where the interpreter counts them.
    fn collecting_ms(&self) -> Option<f64> {
        self.stats.iter().map(|generation| generation.duration).sum::<Option<f64>>().map(|s| s * 1e3)
    }

    /// What the meters must be.
    fn meters(&self) -> BTreeMap<String, f64> {
        let mut wanted = BTreeMap::new();
        for (number, generation) in self.stats.iter().enumerate() {
            wanted.insert(format!("instance_pvm_gc_g{number}"), generation.collected);
            for (name, value) in
                [("collections", generation.collections), ("uncollectable", generation.uncollectable)]
            {
                wanted.insert(format!("instance_gunicorn_gc_{name}{{generation={number}}}"), value);
            }
        }
        wanted.insert("instance_gunicorn_python_threads".into(), self.states);
        wanted.insert("instance_pvm_thread_active_count".into(), self.tasks);
        wanted.insert("instance_gunicorn_gil_held".into(), 0.0);
        wanted.insert("instance_gunicorn_gil_held_by_main".into(), 0.0);
        wanted
    }

    /// What is not so.
    fn faults(&self, moment: &Moment) -> Vec<String> {
        let found = |name: &str| moment.meters.get(name).copied();
        let mut faults: Vec<String> = self
            .meters()
            .into_iter()
            .filter(|(name, value)| found(name) != Some(*value))
            .map(|(name, value)| format!("{name} is {value}, reported {:?}", found(&name)))
            .collect();
        let reported = found("instance_pvm_gc_time");
        // Before 3.15 only the probes know it, of which tests/live_clocks.rs is.
        let is_time = reported
            .is_some_and(|reported| self.collecting_ms().is_none_or(|is| (is - reported).abs() < 0.001));
        if !is_time {
            faults.push(format!("gc_time is {:?}, reported {reported:?}", self.collecting_ms()));
        }
        let resident = found("instance_pvm_process_mem_utilization").unwrap_or(0.0) / 100.0 * memory();
        if (resident - self.resident).abs() > PORTIONS {
            faults.push(format!("resident are {} bytes, reported {resident}", self.resident));
        }
        faults
    }
}

/// Memory of this machine in bytes.
fn memory() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    total.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// What was reported of an instance.
fn moments(observer: &Observer, wanted: &str, of: &str) -> Vec<Moment> {
    let mut all = Vec::new();
    observer.lines_from(0, |line| {
        if let Line::Meters { service, instance, at_ms, meters } = line
            && service == of
            && instance == wanted
        {
            all.push(Moment { at_ms: *at_ms, meters: meters.clone() });
        }
    });
    all
}

/// Waits until an instance is reported as it says that it is; the number of that report.
fn assert_reported(observer: &Observer, service: &str, instance: &str, truth: &Truth) -> usize {
    let mut faults = Vec::new();
    let found = wait(PATIENCE, || {
        let all = moments(observer, instance, service);
        let at = all.iter().position(|moment| truth.faults(moment).is_empty());
        faults = all.last().map(|last| truth.faults(last)).unwrap_or_default();
        at
    });
    found.unwrap_or_else(|| {
        panic!("{service} {instance} on {}: {faults:#?}\n{}", truth.version, observer.stderr())
    })
}

/// A worker and its master, while the worker is idle and after it was busy.
fn compare(stage: &Stage, observer: &Observer, launch: Launch, is_main: bool) -> String {
    let inside = stage.folder("inside").join("master");
    let gunicorn = Gunicorn::start(stage, &launch.workers(1).env("TEST_INSIDE", &inside.to_string_lossy()));
    let service = gunicorn.service().to_owned();
    let mut client = Client::new(gunicorn.address(), Mode::New);
    let mut ask = |request: Request| {
        let sent = client.send(&request);
        assert_eq!(sent.status, Some(200), "{:?}\n{}", sent.error, gunicorn.log());
        sent.body
    };
    ask(Request::get("threads"));
    send_all(gunicorn.address(), Mode::New, 3, plain(12));
    let worker = gunicorn.worker_name(*gunicorn.workers().first().unwrap());
    let idle = Truth::of(&ask(Request::get("inside")));
    assert!(idle.states == idle.active && idle.states >= 4.0, "{idle:?}");
    let before = assert_reported(observer, &service, &worker, &idle);
    ask(Request::get("spin").query("ms=2200"));
    let busy = Truth::of(&ask(Request::get("inside")));
    let after = assert_reported(observer, &service, &worker, &busy);
    let between = moments(observer, &worker, &service);
    assert_busy(between.get(before..=after).unwrap(), &idle, &busy, is_main);
    if let (Some(then), Some(now)) = (idle.collecting_ms(), busy.collecting_ms()) {
        let (counted, timed) = (now - then, (busy.paused - idle.paused) * 1e3);
        assert!(counted > 100.0, "the collector ran for {counted} ms only");
        let ratio = counted / timed;
        assert!((0.5..2.0).contains(&ratio), "the collector counts {counted} ms, its callbacks saw {timed}");
    }
    // The master says what it is like when it forks the next worker.
    gunicorn.signal(Signal::TTIN);
    gunicorn.wait_workers(2, &[]);
    let master = Truth::of(&fs::read(&inside).unwrap());
    assert_reported(observer, &service, &gunicorn.master_name(), &master);
    observer.lines_from(0, |line| {
        if let Line::Instance(found) = line
            && found.service == service
        {
            let version = found.properties.get("python_version").and_then(serde_json::Value::as_str);
            assert_eq!(version, Some(idle.version.as_str()), "{}", found.instance);
        }
    });
    idle.version
}

/// From idle to idle, with one thread that keeps the lock between: all processor time, and the lock held.
fn assert_busy(moments: &[Moment], idle: &Truth, busy: &Truth, is_main: bool) {
    let used = moments.windows(2).map(|pair| {
        let [then, now] = pair else { return 0.0 };
        let percent = now.meters.get("instance_pvm_process_cpu_utilization").unwrap();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let seconds = (now.at_ms - then.at_ms) as f64 / 1e3;
        percent / 100.0 * seconds
    });
    let (used, is) = (used.sum::<f64>(), busy.cpu - idle.cpu);
    assert!((used - is).abs() < 0.1, "{is} s of processor time, reported {used}: {moments:#?}");
    // A sync worker serves in its main thread, a threaded one only accepts there.
    let is = |moment: &Moment, name: &str| moment.meters.get(name) == Some(&100.0);
    let held = |moment: &Moment| {
        is(moment, "instance_gunicorn_gil_held")
            && is(moment, "instance_gunicorn_gil_held_by_main") == is_main
    };
    assert!(moments.iter().any(held), "main {is_main}: never held the lock: {moments:#?}");
}

#[test]
fn every_interpreter_as_it_sees_itself() {
    let stage = Stage::enter("python");
    let observer = Observer::start(&["--meter-period", "1"]);
    for (name, python) in releases() {
        let launch = |class| Launch::new(class, "inside_app:app").python(&python);
        let stripped = python.stripped(&stage.folder("stripped"));
        let all = [(launch("sync"), true), (launch("gthread").args(&["--threads", "4"]), false)];
        let all =
            all.into_iter().chain(stripped.as_ref().map(|stripped| (launch("sync").python(stripped), true)));
        let versions: Vec<String> = thread::scope(|scope| {
            let all: Vec<_> = all
                .map(|(launch, is_main)| {
                    let (stage, observer) = (&stage, &observer);
                    scope.spawn(move || compare(stage, observer, launch, is_main))
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let also = if stripped.is_some() { "and stripped" } else { "has no symbols" };
        println!("compared: {} {name} ({also})", versions.first().unwrap());
    }
    let report = observer.stop();
    report.assert_code(0);
    assert!(report.drops().keys().all(|reason| reason == FOREIGN), "{:?}", report.drops());
    assert!(!report.stderr.contains("of this CPython"), "{}", report.stderr);
}

/// Numbers that workers wrote into the log: process to collections.
fn marks(gunicorn: &Gunicorn, word: &str) -> BTreeMap<u32, f64> {
    let log = gunicorn.log();
    let lines = log.lines().filter_map(|line| line.split_once(word));
    lines
        .filter_map(|(_, pair)| {
            pair.split_once(' ').map(|(pid, n)| (pid.parse().unwrap(), n.parse().unwrap()))
        })
        .collect()
}

/// What was read of a process: how often, first and last.
type Reads = BTreeMap<ProcessKey, (usize, u64, u64)>;

/// Reads workers as fast as it can, whatever they are doing: none of their counters ever goes back.
fn read_all(sampler: &mut Sampler, gunicorn: &Gunicorn, seen: &mut Reads) {
    let pids = gunicorn.booted().into_iter().rev().take(6).chain([gunicorn.master()]);
    let keys: Vec<ProcessKey> =
        pids.filter_map(|pid| Some(ProcessKey { pid, start: facts::start(pid)? })).collect();
    for _ in 0..20 {
        for process in sampler.read(&keys).processes {
            let Some(python) = process.python else { continue };
            let now = python.generations[0].collections;
            let (times, _, last) = seen.entry(process.key).or_insert((0, now, now));
            assert!(*last <= now, "{:?} had {last} collections and has {now}", process.key);
            (*times, *last) = (*times + 1, now);
        }
    }
}

/// The worker and the collections that each line of meters says, and that no line is of an instance that was gone.
fn reported(lines: &[Line], gunicorn: &Gunicorn) -> Vec<(u32, f64)> {
    let names: BTreeMap<String, u32> =
        gunicorn.ever().into_iter().map(|pid| (gunicorn.worker_name(pid), pid)).collect();
    let mut gone = BTreeSet::new();
    let mut all = Vec::new();
    for line in lines {
        if let Line::Gone { service, instance, .. } = line
            && service == gunicorn.service()
        {
            gone.insert(instance);
        }
        if let Line::Meters { service, instance, meters, .. } = line
            && service == gunicorn.service()
        {
            assert!(!gone.contains(instance), "meters of {instance}, which is gone");
            let count = meters.get("instance_gunicorn_gc_collections{generation=0}");
            all.extend(names.get(instance).copied().zip(count.copied()));
        }
    }
    all
}

#[test]
fn workers_that_come_and_go_while_they_are_read() {
    for (name, python) in releases() {
        let stage = Stage::enter("python-short");
        let observer = Observer::start(&["--meter-period", "1"]);
        let launch = Launch::new("sync", "inside_app:app").python(&python).env("TEST_MARKS", "1");
        let mut gunicorn = Gunicorn::start(&stage, &launch.args(&["--max-requests", "300"]));
        let traffic = Traffic::endless(gunicorn.address(), Mode::New, 2, "plain");
        let (mut sampler, mut seen) = (Sampler::start(), Reads::new());
        let busy = wait(PATIENCE * 2, || {
            read_all(&mut sampler, &gunicorn, &mut seen);
            let mut lines = Vec::new();
            observer.lines_from(0, |line| lines.push(line.clone()));
            (reported(&lines, &gunicorn).len() >= 4 && seen.len() >= 10).then_some(())
        });
        assert!(busy.is_some(), "too few workers came and went: {seen:?}\n{}", observer.stderr());
        let (served, refused): (Vec<_>, Vec<_>) =
            traffic.finish().into_iter().partition(|sent| sent.error.is_none());
        observer.wait_requests(&gunicorn, &served);
        observer.wait_instances(&gunicorn.wait_workers(2, &[])); // one that is stopped while it boots never was one
        gunicorn.stop();
        observer.wait_gone(&gunicorn.ever());
        thread::sleep(Duration::from_secs(2));
        let report = observer.stop();
        Expectation::new(&gunicorn, &served).maybe(&refused).losing(&["cut", FOREIGN]).check(&report);
        let (first, last) = (marks(&gunicorn, "at first: "), marks(&gunicorn, "at last: "));
        let most = |pid| last.get(&pid).map_or(f64::MAX, |last| last + MARK / 4.0);
        let reported = reported(&report.lines, &gunicorn);
        for (worker, found) in &reported {
            let own = first[worker]..=most(*worker);
            assert!(own.contains(found), "{worker} has {found} collections, and not those of {own:?}");
        }
        for (key, (_, _, found)) in &seen {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
            let is_own = *found as f64 <= most(key.pid);
            assert!(is_own, "{key:?} has {found} collections, but ended with {}", most(key.pid));
        }
        println!(
            "recycled: {name}: {} workers, of whom {} meters were reported; {} reads of {} processes",
            gunicorn.ever().len(),
            reported.len(),
            seen.values().map(|(times, ..)| times).sum::<usize>(),
            seen.len(),
        );
    }
}

/// Processor time of a sample, with everything else that is read of a worker.
#[test]
fn what_a_sample_costs() {
    let stage = Stage::enter("python-cost");
    let gunicorn = Gunicorn::start(&stage, &Launch::new("sync", "inside_app:app").workers(16));
    let keys: Vec<ProcessKey> = gunicorn
        .workers()
        .into_iter()
        .map(|pid| ProcessKey { pid, start: facts::start(pid).unwrap() })
        .collect();
    let mut sampler = Sampler::start();
    let mut cost = |rounds: u32| {
        let before = cpu_ticks(std::process::id());
        for _ in 0..rounds {
            let samples = sampler.read(&keys);
            assert!(samples.processes.iter().filter(|process| process.python.is_some()).count() == 16);
        }
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let spent = (cpu_ticks(std::process::id()) - before) as f64;
        spent * 10_000.0 / f64::from(rounds * 16)
    };
    let (first, next) = (cost(1), cost(400));
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "cost: {next:.0} µs of processor time for each worker's sample, {first:.0} µs the first time ({build} build)"
    );
}
