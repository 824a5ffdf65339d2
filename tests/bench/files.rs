//! What it takes to put the collector's probe into many interpreters' files, and to take it out again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use harness::collector::Collector;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::python::Python;
use harness::stage::Stage;
use harness::stage::package;
use harness::stage::wait;
use harness::usage;
use proto::v3::MeterData;
use proto::v3::meter_data::Metric;
use serde::Deserialize;
use serde::Serialize;

use crate::shipping::Shipping;

/// How long it may take until every worker's collector is timed.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a worker has whose collector is timed.
const TIMED: &str = "instance_gunicorn_gc_pause";

/// What so many files came to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Files {
    /// Different files of interpreters.
    pub files: usize,
    /// Masters, each with one worker.
    pub masters: usize,
    /// From the start of the observer until it had read every worker's clock, with a report each second, in seconds.
    pub timed_s: f64,
    /// CPU time of the observer until then, in seconds.
    pub timed_cpu_s: f64,
    /// From TERM until the observer was gone, in seconds.
    pub stopped_s: f64,
}

/// Measures all masters on one file, then each on its own; each is handed on as soon as it is there.
pub fn measured(masters: usize, mut each: impl FnMut(&Files)) -> Result<Vec<Files>, String> {
    let stage = Stage::enter("files");
    let collector = Collector::start();
    let python = Python::with(Path::new("python3"), &package().join("bench/requirements.txt"));
    let mut all = Vec::new();
    for files in [1, masters] {
        let copies: Vec<Python> = (0..files).map(|_| python.copied(&stage.folder("python"))).collect();
        let gunicorns: Vec<Gunicorn> = copies
            .iter()
            .cycle()
            .take(masters)
            .map(|python| {
                let launch = Launch::new("sync", "wsgi_app:app").quiet().workers(1).python(python);
                let launch = launch.args(&["--graceful-timeout", "1"]);
                Gunicorn::start(&stage, &launch.env("SW_AGENT_NAME", "files"))
            })
            .collect();
        let measured = measure(&stage, &collector, files, gunicorns.len())?;
        each(&measured);
        all.push(measured);
    }
    Ok(all)
}

fn measure(stage: &Stage, collector: &Collector, files: usize, masters: usize) -> Result<Files, String> {
    collector.forget();
    let begin = Instant::now();
    let observer = Shipping::start(stage, collector, "files", &["--meter-period", "1"]);
    let timed = || {
        let seen = collector.look(|received| {
            let timed = received.meters().filter(|batch| batch.iter().any(times_the_collector));
            let instances = timed.filter_map(|batch| Some(batch.first()?.service_instance.clone()));
            instances.filter(|instance| instance.contains("-child(")).collect::<BTreeSet<String>>().len()
        });
        (seen >= masters).then_some(())
    };
    wait(PATIENCE, timed).ok_or_else(|| format!("not every collector is timed:\n{}", observer.log()))?;
    let (timed_s, timed_cpu_s) = (begin.elapsed().as_secs_f64(), usage::cpu(observer.pid()).as_secs_f64());
    let begin = Instant::now();
    observer.stop();
    Ok(Files { files, masters, timed_s, timed_cpu_s, stopped_s: begin.elapsed().as_secs_f64() })
}

fn times_the_collector(data: &MeterData) -> bool {
    matches!(&data.metric, Some(Metric::SingleValue(value)) if value.name == TIMED)
}
