//! What many workers and connections cost the observer when next to nothing happens.
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use harness::client::Address;
use harness::collector::Collector;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::cpu_ticks;
use harness::stage::Stage;
use harness::stage::must;
use harness::stage::wait;
use harness::usage;
use serde::Deserialize;
use serde::Serialize;

use crate::shipping::Shipping;

/// Clock ticks of `/proc/<pid>/stat` in a second.
const TICKS: f64 = 100.0;
/// How long an observer may take to announce everybody.
const PATIENCE: Duration = Duration::from_secs(120);
/// Workers of each master.
const WORKERS: usize = 20;
/// What is sent on each connection once; it stays open then.
const REQUEST: &[u8] = b"GET /plain/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What is measured.
#[derive(Clone)]
pub struct Plan {
    /// Never fewer masters than in the step before.
    steps: Vec<Step>,
    meter_period: Duration,
    /// Periods that are measured in each step.
    periods: u32,
}

#[derive(Clone)]
struct Step {
    masters: usize,
    connections: usize,
    /// A thread that beats every second, or, with `sync`, one beat in 15 s.
    class: &'static str,
}

fn gthread(masters: usize, connections: usize) -> Step {
    Step { masters, connections, class: "gthread" }
}

impl Plan {
    /// Up to 1 000 workers and 10 000 connections; a quarter of an hour.
    pub fn full() -> Plan {
        let steps = vec![
            gthread(0, 0),
            gthread(5, 0),
            gthread(15, 0),
            gthread(50, 0),
            gthread(50, 2_500),
            gthread(50, 10_000),
            Step { masters: 50, connections: 0, class: "sync" },
        ];
        Plan { steps, meter_period: Duration::from_secs(20), periods: 2 }
    }

    /// To see whether it works.
    pub fn quick() -> Plan {
        let steps = vec![gthread(0, 0), gthread(2, 0), gthread(3, 100)];
        Plan { steps, meter_period: Duration::from_secs(5), periods: 2 }
    }

    /// Only one step, several times.
    pub fn only(self, masters: usize, connections: usize, rounds: usize) -> Plan {
        Plan { steps: vec![gthread(masters, connections); rounds], ..self }
    }
}

/// What one step came to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Point {
    /// Worker class.
    pub class: String,
    /// Arbiters.
    pub masters: usize,
    /// Workers of all of them.
    pub workers: usize,
    /// Connections that were open.
    pub connections: usize,
    /// From the start of the observer until the collector knew every instance.
    pub announced_s: f64,
    /// CPU time of the observer until then.
    pub announced_cpu_s: f64,
    /// CPU time of the observer, in percent of one core, while nothing happens but heartbeats.
    pub idle_percent: f64,
    /// The same of all masters and workers together.
    pub gunicorn_percent: f64,
    /// Memory of the observer at the end.
    pub resident_kib: u64,
    /// The most that it had.
    pub peak_kib: u64,
    /// What it said that it lost, if anything; other gunicorns of the machine count.
    pub lost: Option<String>,
}

/// Measures every step; each is handed on as soon as it is there.
pub fn measured(plan: &Plan, mut each: impl FnMut(&Point)) -> Result<Vec<Point>, String> {
    let stage = Stage::enter("scale");
    let collector = Collector::start();
    let mut points = Vec::new();
    let mut crowd = Crowd::default();
    for step in &plan.steps {
        crowd.grow(&stage, step);
        let point = measure(plan, &stage, &collector, &crowd, step)?;
        each(&point);
        points.push(point);
    }
    Ok(points)
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
    let (services, period) = (format!("{}*", target()), plan.meter_period.as_secs().to_string());
    let observer = Shipping::start(stage, collector, &services, &["--meter-period", &period]);
    let pid = observer.pid();
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
    let mut point = Point {
        class: step.class.to_owned(),
        masters: step.masters,
        workers: step.masters * WORKERS,
        connections: connections.len(),
        announced_s,
        announced_cpu_s,
        idle_percent: percent(cpu_ticks(pid) - before),
        gunicorn_percent: percent(used() - gunicorn_before),
        resident_kib: usage::resident_kib(pid),
        peak_kib: usage::peak_kib(pid),
        lost: None,
    };
    point.lost = observer.stop();
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
