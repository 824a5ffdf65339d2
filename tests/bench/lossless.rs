//! How many requests per second `sw-observe` sees without a loss, of a gunicorn whose worker class is a server in C.
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::client::Address;
use harness::collector::Collector;
use harness::collector::Manners;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::python::Python;
use harness::stage::Stage;
use harness::stage::package;
use harness::stage::wait;
use harness::usage;
use serde::Deserialize;
use serde::Serialize;

use crate::flood;
use crate::flood::Flood;
use crate::shipping::Shipping;

/// How long an observer may take to announce the workers.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last reports may take.
const LATE: Duration = Duration::from_secs(30);
const SERVICE: &str = "flood";
const WORKERS: usize = 2;

/// What one rate came to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Step {
    /// With the observer.
    pub observed: bool,
    /// Requests that a connection sent before it read their answers.
    pub depth: u32,
    /// Requests per second that were asked for; nothing where it was as many as were answered.
    pub wanted: Option<u32>,
    /// Requests per second that were answered.
    pub reached: f64,
    /// Requests that were answered.
    pub sent: u64,
    /// Requests that were not reported.
    pub missing: u64,
    /// CPU time per request in gunicorn, in µs.
    pub gunicorn_us: f64,
    /// CPU time per request in the observer, in µs.
    pub observer_us: f64,
    /// CPU time of the observer while requests came, in percent of one core.
    pub observer_percent: f64,
    /// The most memory that the observer had after its start, in KiB.
    pub resident_kib: u64,
    /// What the observer said that it lost.
    pub lost: Option<String>,
}

/// Measures every rate, then as many as are answered, alone and observed; each is handed on as soon as it is there.
pub fn measured(quick: bool, mut each: impl FnMut(&Step)) -> Result<Vec<Step>, String> {
    let stage = Stage::enter("lossless");
    let collector = Collector::start();
    collector.behave(Manners { only_count: true, ..Manners::default() });
    let python = Python::with(Path::new("python3"), &package().join("bench/requirements.txt"));
    let launch =
        Launch::new("flood_worker.FloodWorker", "wsgi_app:app").quiet().workers(WORKERS).python(&python);
    let launch = launch.env("SW_AGENT_NAME", SERVICE).env("FLOOD_SERVER", &server(&stage)?.to_string_lossy());
    let gunicorn = Gunicorn::start(&stage, &launch);
    let (rates, lasts) = if quick {
        (vec![2_000], Duration::from_secs(1))
    } else {
        (vec![10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 80_000], Duration::from_secs(10))
    };
    let mut steps = Vec::new();
    for depth in [1, 16] {
        let asked = rates.iter().copied().map(Some).chain([None]).map(|rate| (rate, true));
        for (rate, observed) in asked.chain([(None, false)]) {
            let step = measure(&stage, &collector, &gunicorn, Flood { rate, depth, lasts }, observed)?;
            each(&step);
            steps.push(step);
        }
    }
    Ok(steps)
}

fn measure(
    stage: &Stage,
    collector: &Collector,
    gunicorn: &Gunicorn,
    flood: Flood,
    observed: bool,
) -> Result<Step, String> {
    collector.forget();
    let Address::Tcp(address) = gunicorn.address() else { return Err("the flood comes over TCP".to_owned()) };
    let observer = observed.then(|| Shipping::start(stage, collector, SERVICE, &[]));
    let known = || observer.is_none() || collector.look(|received| received.properties.len()) > WORKERS;
    if wait(PATIENCE, || known().then_some(())).is_none() {
        return Err("sw-observe does not see the workers".to_owned());
    }
    let processes = [vec![gunicorn.master()], gunicorn.workers()].concat();
    let used = || processes.iter().map(|pid| usage::cpu(*pid)).sum::<Duration>();
    let observing = || observer.as_ref().map_or(Duration::ZERO, |observer| usage::cpu(observer.pid()));
    let (used_before, observing_before) = (used(), observing());
    let (sent, took) = flood::sent(*address, flood)?;
    let observed_meanwhile = observing() - observing_before;
    let used = used() - used_before;
    let come = || collector.look(|received| received.counted);
    if observed {
        wait(LATE, || (come() >= sent).then_some(()));
    }
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / sent as f64;
    let mut step = Step {
        observed,
        depth: flood.depth,
        wanted: flood.rate,
        reached: sent as f64 / took.as_secs_f64(),
        sent,
        missing: if observed { sent.saturating_sub(come()) } else { 0 },
        gunicorn_us: per_request(used),
        observer_us: per_request(observing() - observing_before),
        observer_percent: 100.0 * observed_meanwhile.as_secs_f64() / took.as_secs_f64(),
        resident_kib: observer.as_ref().map_or(0, |observer| usage::resident_kib(observer.pid())),
        lost: None,
    };
    step.lost = observer.and_then(Shipping::stop);
    Ok(step)
}

/// Compiles the server by the compiler that Rust links with.
fn server(stage: &Stage) -> Result<PathBuf, String> {
    let library = stage.dir.join("flood_server.so");
    let mut command = Command::new("cc");
    command.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(package().join("apps/flood_server.c"));
    let status = command.status().map_err(|error| format!("cannot start cc: {error}: cargo xtask setup"))?;
    if status.success() { Ok(library) } else { Err(format!("{command:?} failed: {status}")) }
}
