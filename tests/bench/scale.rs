//! What many workers and connections cost the observer when next to nothing happens.
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use harness::client::Address;
use harness::collector::Collector;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::cpu_ticks;
use harness::gunicorn::kill;
use harness::observer::binary;
use harness::stage::Stage;
use harness::stage::must;
use harness::stage::wait;
use harness::usage;
use rustix::process::Signal;
use serde::Serialize;

/// Clock ticks of `/proc/<pid>/stat` in a second.
const TICKS: f64 = 100.0;
/// How long an observer may take to announce everybody.
const PATIENCE: Duration = Duration::from_secs(120);
/// Workers of each master.
const WORKERS: usize = 20;
/// What is sent on each connection once; it stays open then.
const REQUEST: &[u8] = b"GET /plain/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What is measured.
pub struct Plan {
    /// Masters and connections of each step; never fewer masters than in the step before.
    steps: &'static [Step],
    meter_period: Duration,
    /// Periods that are measured in each step.
    periods: u32,
}

struct Step {
    masters: usize,
    connections: usize,
    /// A thread that beats every second, or, with `sync`, one beat in 15 s.
    class: &'static str,
}

const fn gthread(masters: usize, connections: usize) -> Step {
    Step { masters, connections, class: "gthread" }
}

/// Up to 1 000 workers and 10 000 connections; half an hour.
pub const FULL: Plan = Plan {
    steps: &[
        gthread(0, 0),
        gthread(5, 0),
        gthread(15, 0),
        gthread(50, 0),
        gthread(50, 2_500),
        gthread(50, 10_000),
        Step { masters: 50, connections: 0, class: "sync" },
    ],
    meter_period: Duration::from_secs(20),
    periods: 4,
};

/// To see whether it works.
pub const QUICK: Plan = Plan {
    steps: &[gthread(0, 0), gthread(2, 0), gthread(3, 100)],
    meter_period: Duration::from_secs(5),
    periods: 2,
};

/// What one step came to.
#[derive(Debug, Serialize)]
struct Point {
    class: &'static str,
    masters: usize,
    workers: usize,
    connections: usize,
    /// From the start of the observer until the collector knew every instance.
    announced_s: f64,
    /// CPU time of the observer until then.
    announced_cpu_s: f64,
    /// CPU time of the observer, in percent of one core, while nothing happens but heartbeats.
    idle_percent: f64,
    /// The same of all masters and workers together.
    gunicorn_percent: f64,
    /// Memory of the observer at the end.
    resident_kib: u64,
    /// The most that it had.
    peak_kib: u64,
}

/// Measures every step; JSON for a file.
pub fn measured(plan: &Plan) -> Result<String, String> {
    let stage = Stage::enter("scale");
    let collector = Collector::start();
    println!(
        "{:>8}{:>9}{:>13}{:>13}{:>9}{:>12}{:>15}{:>13}{:>10}",
        "class",
        "workers",
        "connections",
        "announced s",
        "CPU s",
        "idle CPU %",
        "gunicorn CPU %",
        "memory KiB",
        "peak KiB"
    );
    let mut points = Vec::new();
    let mut crowd = Crowd::default();
    for step in plan.steps {
        crowd.grow(&stage, step);
        let point = measure(plan, &stage, &collector, &crowd, step)?;
        println!(
            "{:>8}{:>9}{:>13}{:>13.2}{:>9.2}{:>12.2}{:>15.1}{:>13}{:>10}",
            point.class,
            point.workers,
            point.connections,
            point.announced_s,
            point.announced_cpu_s,
            point.idle_percent,
            point.gunicorn_percent,
            point.resident_kib,
            point.peak_kib
        );
        points.push(point);
    }
    serde_json::to_string_pretty(&points).map_err(|error| error.to_string())
}

fn measure(
    plan: &Plan,
    stage: &Stage,
    collector: &Collector,
    crowd: &Crowd,
    step: &Step,
) -> Result<Point, String> {
    let begin = Instant::now();
    collector.forget();
    let observer = Shipping::start(stage, collector, plan.meter_period);
    let pid = observer.child.id();
    let processes = crowd.processes();
    let known = || (collector.look(|received| received.properties.len()) >= processes.len()).then_some(());
    if wait(PATIENCE, known).is_none() {
        let known = collector.look(|received| received.properties.len());
        return Err(format!("{known} of {} instances are known:\n{}", processes.len(), observer.log()));
    }
    let (announced_s, announced_cpu_s) = (begin.elapsed().as_secs_f64(), cpu_ticks(pid) as f64 / TICKS);
    let connections = crowd.connections(step.connections);
    sleep(plan.meter_period); // what is done once for each process is over then
    let used = || processes.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    let (begin, gunicorn_before, before) = (Instant::now(), used(), cpu_ticks(pid));
    sleep(plan.meter_period * plan.periods);
    let seconds = begin.elapsed().as_secs_f64();
    let percent = |ticks: u64| 100.0 * ticks as f64 / TICKS / seconds;
    let point = Point {
        class: step.class,
        masters: step.masters,
        workers: step.masters * WORKERS,
        connections: connections.len(),
        announced_s,
        announced_cpu_s,
        idle_percent: percent(cpu_ticks(pid) - before),
        gunicorn_percent: percent(used() - gunicorn_before),
        resident_kib: usage::resident_kib(pid),
        peak_kib: usage::peak_kib(pid),
    };
    observer.stop()?;
    Ok(point)
}

/// Masters that were started so far, all of one class.
#[derive(Default)]
struct Crowd {
    class: &'static str,
    gunicorns: Vec<Gunicorn>,
}

impl Crowd {
    fn grow(&mut self, stage: &Stage, step: &Step) {
        if self.class != step.class {
            self.gunicorns.clear();
            self.class = step.class;
        }
        while self.gunicorns.len() < step.masters {
            let launch = Launch::new(step.class, "wsgi_app:app").quiet().workers(WORKERS);
            let launch = launch.args(&["--keep-alive", "3600", "--graceful-timeout", "1"]);
            let name = format!("{}-{}", target(), self.gunicorns.len());
            self.gunicorns.push(Gunicorn::start(stage, &launch.env("SW_AGENT_NAME", &name)));
        }
    }

    fn processes(&self) -> Vec<u32> {
        self.gunicorns.iter().flat_map(|one| [vec![one.master()], one.workers()].concat()).collect()
    }

    /// Opens so many connections, on each of which one request was answered.
    fn connections(&self, count: usize) -> Vec<TcpStream> {
        let masters = self.gunicorns.iter().cycle().take(count);
        masters.map(|gunicorn| must(connected(gunicorn.address()), "open a connection")).collect()
    }
}

fn connected(address: &Address) -> std::io::Result<TcpStream> {
    let Address::Tcp(address) = address else { return Err(std::io::ErrorKind::Unsupported.into()) };
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(REQUEST)?;
    let read = socket.read(&mut [0; 4096])?;
    if read == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(socket) }
}

/// Services of this run begin so: other gunicorns of the machine are not measured.
fn target() -> String {
    format!("scale-{}", std::process::id())
}

/// An observer that ships to the collector.
struct Shipping {
    child: Child,
    log: PathBuf,
}

impl Shipping {
    fn start(stage: &Stage, collector: &Collector, meter_period: Duration) -> Self {
        let log = stage.folder("observer").join("log");
        let stderr = must(File::create(&log), "create a file for the log");
        let mut command = Command::new(binary());
        command.args(["--target", &format!("gunicorn:service={}*", target()), "--log-level=warning"]);
        command.args(["--oap", &collector.endpoint(), "--meter-period", &meter_period.as_secs().to_string()]);
        Self { child: must(command.stderr(stderr).spawn(), "start sw-observe"), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error when it lost anything.
    fn stop(mut self) -> Result<(), String> {
        kill(self.child.id(), Signal::TERM);
        let status = must(self.child.wait(), "wait for sw-observe");
        let log = self.log();
        if status.success() && !log.contains("lost") {
            Ok(())
        } else {
            Err(format!("sw-observe: {status}\n{log}"))
        }
    }
}
