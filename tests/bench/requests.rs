//! What the observer costs gunicorn per request: rounds alone and observed, interleaved.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use harness::client::Mode;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::cpu_ticks;
use harness::gunicorn::kill;
use harness::observer::binary;
use harness::stage::Stage;
use harness::stage::must;
use harness::stage::wait;
use harness::traffic::plain;
use harness::traffic::send_all;
use harness::usage;
use rustix::process::Signal;
use serde::Deserialize;
use serde::Serialize;

/// A clock tick of `/proc/<pid>/stat`.
const TICK: Duration = Duration::from_millis(10);
/// Requests before each measurement.
const WARM_UP: usize = 500;
/// How long an observer may take to see the workers.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the observer may still have to do after the last request is part of its cost.
const SETTLE: Duration = Duration::from_millis(1500);

/// One measurement.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Round {
    /// CPU time per request in gunicorn's master and workers, in µs.
    gunicorn_us: f64,
    /// CPU time per request in the observer, in µs.
    observer_us: f64,
    /// Requests per second.
    throughput: f64,
}

/// One application under one worker class.
#[derive(Debug, Serialize)]
struct Case {
    name: &'static str,
    requests: usize,
    alone: Vec<Round>,
    observed: Vec<Round>,
    /// Median of CPU time per request, observed by alone.
    cpu_ratio: f64,
    /// Median of throughput, observed by alone.
    throughput_ratio: f64,
    /// Largest memory of the observer, in KiB.
    observer_peak_kib: u64,
    /// Segments reported for the requests of the observed rounds, warm-up included; must be all of them.
    segments: usize,
    /// What the observer said it lost.
    drops: u64,
}

/// How much is measured.
pub struct Options {
    /// Rounds on each side.
    pub rounds: usize,
    /// Requests of a round.
    pub requests: usize,
}

/// Measures every case; JSON for a file. Fails when a request was not reported: such costs are of no use.
pub fn measured(options: &Options) -> Result<String, String> {
    let flask = || Launch::new("sync", "flask_app:app").quiet();
    let fastapi = || Launch::new("uvicorn.workers.UvicornWorker", "fastapi_app:api").quiet();
    let cases = [
        ("Flask, sync, new connections", flask(), Mode::New),
        ("FastAPI, uvicorn, new connections", fastapi(), Mode::New),
        ("FastAPI, uvicorn, keep-alive", fastapi(), Mode::KeepAlive),
    ];
    let cases = cases.map(|(name, launch, mode)| run(options, name, &launch, mode));
    if cases.iter().any(|case| case.drops != 0 || case.segments != options.rounds * (case.requests + WARM_UP))
    {
        return Err("the observer did not report every request: these costs are of no use".to_owned());
    }
    Ok(must(serde_json::to_string_pretty(&cases), "write the results"))
}

fn run(options: &Options, name: &'static str, launch: &Launch, mode: Mode) -> Case {
    let stage = Stage::enter("bench");
    let gunicorn = Gunicorn::start(&stage, launch);
    let mut case = Case {
        name,
        requests: options.requests,
        alone: Vec::new(),
        observed: Vec::new(),
        cpu_ratio: 0.0,
        throughput_ratio: 0.0,
        observer_peak_kib: 0,
        segments: 0,
        drops: 0,
    };
    for round in 0..options.rounds {
        // The order changes, so that a machine that gets slower or faster favours neither.
        for observed in [round % 2 == 0, round % 2 != 0] {
            if observed {
                let measured = observe(options, &stage, &gunicorn, mode, &mut case);
                case.observed.push(measured);
            } else {
                case.alone.push(measure(&gunicorn, mode, options.requests, None));
            }
        }
    }
    let ratio = |of: fn(&Round) -> f64| median(&case.observed, of) / median(&case.alone, of);
    (case.cpu_ratio, case.throughput_ratio) = (ratio(|r| r.gunicorn_us), ratio(|r| r.throughput));
    show(&case);
    case
}

fn observe(options: &Options, stage: &Stage, gunicorn: &Gunicorn, mode: Mode, case: &mut Case) -> Round {
    let observer = Printing::start(stage, &gunicorn.workers());
    let round = measure(gunicorn, mode, options.requests, Some(observer.child.id()));
    case.observer_peak_kib = case.observer_peak_kib.max(usage::peak_kib(observer.child.id()));
    let (segments, drops) = observer.stop(gunicorn.service());
    case.segments += segments;
    case.drops += drops;
    round
}

/// An observer that prints to a file: a reader on the same processors would be measured too.
struct Printing {
    child: Child,
    printed: PathBuf,
}

impl Printing {
    /// Returns when these workers are watched.
    fn start(stage: &Stage, workers: &[u32]) -> Self {
        let printed = stage.folder("observer").join("printed.json");
        let output = must(File::create(&printed), "create a file for what is printed");
        let mut command = Command::new(binary());
        command.args(["--target", "gunicorn", "--print=json", "--log-level=warning"]).stdout(output);
        let observer = Self { child: must(command.spawn(), "start sw-observe"), printed };
        let watched = || {
            let text = observer.text();
            workers.iter().all(|pid| text.contains(&format!("-child({pid})\""))).then_some(())
        };
        assert!(wait(PATIENCE, watched).is_some(), "sw-observe does not see the workers {workers:?}");
        observer
    }

    /// How many segments of a service it printed, and how much it lost.
    fn stop(mut self, service: &str) -> (usize, u64) {
        kill(self.child.id(), Signal::TERM);
        let status = must(self.child.wait(), "wait for sw-observe");
        assert!(status.success(), "sw-observe ended with {status}");
        let text = self.text();
        let mine = format!("{{\"kind\":\"segment\",\"service\":\"{service}\"");
        let lost = text.lines().filter_map(|line| serde_json::from_str::<Stats>(line).ok());
        let lost = lost.flat_map(|stats| stats.drops.into_values()).sum();
        (text.lines().filter(|line| line.starts_with(&mine)).count(), lost)
    }

    fn text(&self) -> String {
        must(std::fs::read_to_string(&self.printed), "read what was printed")
    }
}

/// The last line that is printed.
#[derive(Deserialize)]
struct Stats {
    drops: BTreeMap<String, u64>,
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn measure(gunicorn: &Gunicorn, mode: Mode, requests: usize, observer: Option<u32>) -> Round {
    send_all(gunicorn.address(), mode, 2, plain(WARM_UP));
    let processes = [vec![gunicorn.master()], gunicorn.workers()].concat();
    let used = || processes.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    let observing = || observer.map_or(0, cpu_ticks);
    let (gunicorn_before, observer_before, begin) = (used(), observing(), Instant::now());
    let sent = send_all(gunicorn.address(), mode, 2, plain(requests));
    let took = begin.elapsed();
    let gunicorn_ticks = used() - gunicorn_before;
    std::thread::sleep(SETTLE);
    let failed = sent.iter().find(|sent| sent.status != Some(200));
    assert!(failed.is_none(), "a request failed: {failed:?}");
    let per_request = |ticks: u64| TICK.as_micros() as f64 * ticks as f64 / requests as f64;
    Round {
        gunicorn_us: per_request(gunicorn_ticks),
        observer_us: per_request(observing() - observer_before),
        throughput: requests as f64 / took.as_secs_f64(),
    }
}

fn sorted(rounds: &[Round], of: fn(&Round) -> f64) -> Vec<f64> {
    let mut values: Vec<_> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    let values = sorted(rounds, of);
    let upper = values.get(values.len() / 2).copied().unwrap_or(0.0);
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
    f64::midpoint(lower, upper)
}

fn show(case: &Case) {
    let cell = |rounds: &[Round], of: fn(&Round) -> f64| {
        let values = sorted(rounds, of);
        let (first, last) = (values.first().unwrap_or(&0.0), values.last().unwrap_or(&0.0));
        format!("{:>8.0} ({first:.0} to {last:.0})", median(rounds, of))
    };
    let row = |what: &str, of: fn(&Round) -> f64| {
        eprintln!("  {what:<34}{:<28}{:<28}", cell(&case.alone, of), cell(&case.observed, of));
    };
    eprintln!(
        "{}: {} rounds of {} requests; median (least to most)",
        case.name,
        case.alone.len(),
        case.requests
    );
    eprintln!("  {:<34}{:<28}{:<28}", "", "   alone", "   observed");
    row("gunicorn, CPU µs per request", |round| round.gunicorn_us);
    row("observer, CPU µs per request", |round| round.observer_us);
    row("requests per second", |round| round.throughput);
    eprintln!(
        "  CPU ×{:.3}, throughput ×{:.3}; observer {} KiB; {} segments, {} lost",
        case.cpu_ratio, case.throughput_ratio, case.observer_peak_kib, case.segments, case.drops
    );
}
