//! The corpus: every way to launch gunicorn and what can happen to it, against what the observer says of it.
//!
//! One observer is there first and sees all of it. Cases run in batches; when every case of a batch is where its
//! table says, a second observer comes, and has to say the same. `SW_CORPUS` runs only the cases whose names begin
//! with one of its words.
#![expect(clippy::panic, reason = "a test ends by panicking")]

mod check;
mod environments;
mod group;
mod play;
mod seen;
mod table;
mod truth;

use std::collections::BTreeMap;
use std::env;
use std::net::TcpListener;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use harness::stage::Stage;

use crate::environments::Environments;
use crate::play::Place;
use crate::seen::Watch;
use crate::table::Case;

/// Cases that are held for one late observer.
const BATCH: usize = 12;
/// Cases that start or act at the same time.
const ACTIVE: usize = 5;
/// Ports below those that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 21000..30000;

/// What became of a case.
struct Done {
    name: String,
    seconds: f64,
    faults: Vec<String>,
}

/// Where the cases of a batch meet.
#[derive(Default)]
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    active: usize,
    held: usize,
    ended: usize,
    late: Option<Arc<Watch>>,
    open: bool,
}

impl Meeting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self, enough: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.state();
        self.changed.wait_while(state, |state| !enough(state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) {
        self.until(|state| state.active < ACTIVE).active += 1;
    }

    fn hold(&self) -> Option<Arc<Watch>> {
        {
            let mut state = self.state();
            state.active -= 1;
            state.held += 1;
        }
        self.changed.notify_all();
        let mut state = self.until(|state| state.open && state.active < ACTIVE);
        state.active += 1;
        state.late.clone()
    }

    fn leave(&self) {
        let mut state = self.state();
        state.active -= 1;
        state.ended += 1;
        drop(state);
        self.changed.notify_all();
    }

    fn open(&self, count: usize) {
        drop(self.until(|state| state.held + state.ended >= count));
        let late = Arc::new(Watch::start());
        let mut state = self.state();
        state.late = Some(late);
        state.open = true;
        drop(state);
        self.changed.notify_all();
    }
}

fn port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(PORTS.start);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = *next;
        *next = if port + 1 < PORTS.end { port + 1 } else { PORTS.start };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn batch(cases: &[Case], stage: &Stage, environments: &Environments, first: &Watch) -> Vec<Done> {
    let meeting = Meeting::default();
    let run = |case: &Case| {
        meeting.enter();
        let begin = Instant::now();
        let hold = || meeting.hold();
        let python = environments.get(&case.python);
        let place = Place { dir: &stage.dir, python, port: port(), first, hold: &hold };
        // A case that panics must not keep the others of its batch waiting.
        let played = panic::catch_unwind(AssertUnwindSafe(|| play::play(case, &place)));
        let faults = played.unwrap_or_else(|_| vec!["the driver panicked".into()]);
        meeting.leave();
        Done { name: case.name.clone(), seconds: begin.elapsed().as_secs_f64(), faults }
    };
    thread::scope(|scope| {
        let all: Vec<_> = cases.iter().map(|case| scope.spawn(|| run(case))).collect();
        meeting.open(cases.len());
        all.into_iter().map(|case| case.join().unwrap_or_else(|_| panic!("the driver panicked"))).collect()
    })
}

/// The cases that run here, and name to reason of those that do not.
fn chosen(environments: &mut Environments) -> (Vec<Case>, BTreeMap<String, String>) {
    let only = env::var("SW_CORPUS").unwrap_or_default();
    let only: Vec<&str> = only.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    let (mut run, mut left) = (Vec::new(), BTreeMap::new());
    for case in table::cases() {
        if !only.is_empty() && !only.iter().any(|word| case.name.starts_with(word)) {
            continue;
        }
        match environments.lacks(&case) {
            Some(reason) => drop(left.insert(case.name, reason)),
            None => run.push(case),
        }
    }
    (run, left)
}

#[test]
fn corpus() {
    let stage = Stage::enter("corpus");
    let begin = Instant::now();
    let mut environments = Environments::default();
    let (cases, left) = chosen(&mut environments);
    environments.make(&cases);
    eprintln!("environments: {:.1} s", begin.elapsed().as_secs_f64());
    let first = Watch::start();
    let mut all = Vec::new();
    for (at, cases) in cases.chunks(BATCH).enumerate() {
        let begin = Instant::now();
        all.extend(batch(cases, &stage, &environments, &first));
        eprintln!("batch {at}: {} cases, {:.1} s", cases.len(), begin.elapsed().as_secs_f64());
    }
    let report = first.stop();
    for (name, reason) in &left {
        eprintln!("left out: {name}: {reason}");
    }
    // The wrong ones come last: of a long output the end is what is read.
    all.sort_by_key(|done| !done.faults.is_empty());
    let wrong = all.iter().filter(|done| !done.faults.is_empty()).count();
    for done in &all {
        eprintln!(
            "{:5.1} s  {}  {}",
            done.seconds,
            if done.faults.is_empty() { "right" } else { "WRONG" },
            done.name
        );
        done.faults.iter().for_each(|fault| eprintln!("           {fault}"));
    }
    eprintln!(
        "{} cases, {} wrong, {} left out, {:.0} s",
        all.len(),
        wrong,
        left.len(),
        begin.elapsed().as_secs_f64()
    );
    report.assert_code(0);
    assert_eq!(wrong, 0, "of {} cases {wrong} are wrong", all.len());
}
