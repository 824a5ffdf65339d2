//! What a request costs gunicorn: alone, observed, with empty probes, with the Python agent inside; rounds in turn.
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use harness::client::Sent;
use harness::collector::Collector;
use harness::gunicorn::Gunicorn;
use harness::python::Python;
use harness::request::Request;
use harness::scrape;
use harness::stage::Stage;
use harness::stage::package;
use harness::stage::wait;
use harness::traffic::send_all;
use harness::usage;

use crate::empty::Empty;
use crate::round::Case;
use crate::round::Program;
use crate::round::Round;
use crate::round::Rounds;
use crate::round::Side;
use crate::round::quantile;
use crate::shipping::Shipping;
use crate::workload;
use crate::workload::Workload;

/// Requests before each measurement.
const WARM_UP: usize = 200;
/// How long the last reports may take. What is done for them is part of the cost.
const LATE: Duration = Duration::from_secs(5);
/// Connections of the client.
const CONNECTIONS: usize = 2;
/// How long an observer may take to announce the workers.
const PATIENCE: Duration = Duration::from_secs(60);
/// How old a page of numbers may be, and some more.
const PAGE: Duration = Duration::from_secs(2);
const RUNS: &str = "sw_observe_program_runs_total";
const RUN_SECONDS: &str = "sw_observe_program_run_seconds_total";

/// How much is measured.
pub struct Options {
    /// Rounds on each side.
    pub rounds: usize,
    /// Requests of a round.
    pub requests: usize,
    /// Only workloads whose names contain this.
    pub only: String,
}

/// Measures every workload; each is handed on as soon as it is there.
pub fn measured(options: &Options, mut each: impl FnMut(&Case)) -> Result<Vec<Case>, String> {
    let python = |list: &str| Python::with(Path::new("python3"), &package().join("bench").join(list));
    let (bare, agent) = (python("requirements.txt"), python("agent/requirements.txt"));
    let chosen = workload::ALL.iter().filter(|workload| workload.name.contains(&options.only));
    let cases = chosen.map(|workload| {
        let case = Scene::enter(workload, &bare, &agent).play(options)?;
        each(&case);
        Ok(case)
    });
    cases.collect()
}

/// Both gunicorns of one workload.
struct Scene<'a> {
    workload: &'a Workload,
    collector: Collector,
    bare: Gunicorn,
    inside: Gunicorn,
    stage: Stage,
}

impl<'a> Scene<'a> {
    fn enter(workload: &'a Workload, bare: &Python, agent: &Python) -> Self {
        let stage = Stage::enter("bench");
        let collector = Collector::start();
        Self {
            workload,
            bare: Gunicorn::start(&stage, &workload.bare(bare)),
            inside: Gunicorn::start(&stage, &workload.with_agent(agent, &collector)),
            collector,
            stage,
        }
    }

    fn play(&self, options: &Options) -> Result<Case, String> {
        let sides = [Side::Alone, Side::Observed, Side::Empty, Side::Agent];
        let requests = self.workload.requests(options.requests);
        let mut all: Vec<_> = sides.iter().map(|side| Rounds { side: *side, rounds: Vec::new() }).collect();
        for round in 0..options.rounds {
            // Another one begins each time, so that a machine that gets slower or faster favours none.
            let first = round % all.len();
            let (later, sooner) = all.split_at_mut(first);
            for rounds in sooner.iter_mut().chain(later) {
                rounds.rounds.push(self.round(rounds.side, requests)?);
            }
        }
        let programs = self.programs(requests)?;
        Ok(Case { name: self.workload.name.to_owned(), requests, sides: all, programs })
    }

    fn round(&self, side: Side, requests: usize) -> Result<Round, String> {
        self.collector.forget();
        match side {
            Side::Alone => self.measure(&self.bare, requests, None, false),
            Side::Agent => self.measure(&self.inside, requests, None, true),
            Side::Observed => {
                let observer = self.observer(&[])?;
                let round = self.measure(&self.bare, requests, Some(observer.pid()), true)?;
                observer.stop();
                Ok(round)
            }
            Side::Empty => {
                let _probes = Empty::attached(&self.bare)?;
                self.measure(&self.bare, requests, None, false)
            }
        }
    }

    /// An observer that has announced the workers.
    fn observer(&self, args: &[&str]) -> Result<Shipping, String> {
        let observer = Shipping::start(&self.stage, &self.collector, self.bare.service(), args);
        let instances = self.bare.workers().len() + 1;
        let known = || self.collector.look(|received| received.properties.len()) >= instances;
        if wait(PATIENCE, || (observer.is_ready() && known()).then_some(())).is_none() {
            return Err(format!("sw-observe does not see the workers:\n{}", observer.log()));
        }
        Ok(observer)
    }

    /// One more round, in which the kernel accounts what each program costs.
    fn programs(&self, requests: usize) -> Result<Vec<Program>, String> {
        self.collector.forget();
        let address = scrape::free();
        let observer = self.observer(&["--metrics-listen", &address.to_string()])?;
        sleep(PAGE);
        let before = scrape::page(address);
        self.send(&self.bare, requests);
        sleep(PAGE);
        let after = scrape::page(address);
        observer.stop();
        let grown = |series: &str| after.value(series) - before.value(series);
        let all = before.series(RUNS).filter_map(|(series, _)| {
            let runs = grown(series);
            let name = series.split('"').nth(3)?.to_owned();
            let ns = grown(&series.replacen(RUNS, RUN_SECONDS, 1)) * 1e9;
            (runs >= 1.0).then(|| Program {
                name,
                runs_per_request: runs / requests as f64,
                run_ns: ns / runs,
            })
        });
        let mut all: Vec<Program> = all.collect();
        all.sort_by(|a, b| (b.runs_per_request * b.run_ns).total_cmp(&(a.runs_per_request * a.run_ns)));
        Ok(all)
    }

    fn send(&self, gunicorn: &Gunicorn, count: usize) -> Vec<Sent> {
        let all = (0..count).map(|_| Request::get(self.workload.endpoint)).collect();
        send_all(gunicorn.address(), self.workload.mode, CONNECTIONS, all)
    }

    /// With `reports`, each request should come as a segment.
    fn measure(
        &self,
        gunicorn: &Gunicorn,
        requests: usize,
        observer: Option<u32>,
        reports: bool,
    ) -> Result<Round, String> {
        let warm_up = self.workload.requests(WARM_UP);
        self.send(gunicorn, warm_up);
        let workers = gunicorn.workers();
        let processes = [vec![gunicorn.master()], workers.clone()].concat();
        let used = || processes.iter().map(|pid| usage::cpu(*pid)).sum::<Duration>();
        let observing = || observer.map_or(Duration::ZERO, usage::cpu);
        let (used_before, observing_before, begin) = (used(), observing(), Instant::now());
        let sent = self.send(gunicorn, requests);
        let took = begin.elapsed();
        let lost = if reports { self.lost(gunicorn.service(), requests + warm_up) } else { 0 };
        let per_request = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
        let (gunicorn_us, observer_us) =
            (per_request(used() - used_before), per_request(observing() - observing_before));
        if let Some(failed) = sent.iter().find(|sent| sent.status != Some(200)) {
            return Err(format!("{}: a request failed: {failed:?}", self.workload.name));
        }
        let mut times: Vec<f64> = sent.iter().map(|sent| sent.end - sent.start).collect();
        let kib = |pid: Option<u32>, of: fn(u32) -> u64| pid.map_or(0.0, |pid| of(pid) as f64);
        let memory: u64 = workers.iter().map(|pid| usage::resident_kib(*pid)).sum();
        Ok(Round {
            gunicorn_us,
            observer_us,
            throughput: requests as f64 / took.as_secs_f64(),
            p50_ms: quantile(&mut times, 0.5),
            p99_ms: quantile(&mut times, 0.99),
            worker_kib: memory as f64 / workers.len().max(1) as f64,
            observer_kib: kib(observer, usage::resident_kib),
            observer_peak_kib: kib(observer, usage::peak_kib),
            lost: lost as f64,
        })
    }

    fn lost(&self, service: &str, wanted: usize) -> usize {
        let come = || {
            let of = |received: &harness::collector::Received| {
                received.segments().filter(|segment| segment.service == service).count()
            };
            self.collector.look(of)
        };
        wait(LATE, || (come() >= wanted).then_some(()));
        wanted.saturating_sub(come())
    }
}
