//! `sw-observe` as a child process, and the lines it prints.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::env;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde::Deserialize;

use crate::client::Sent;
use crate::gunicorn::Gunicorn;
use crate::gunicorn::kill;
use crate::stage::Stage;
use crate::stage::must;
use crate::stage::profile;
use crate::stage::wait;

/// How long it may take to attach, to report, to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the kernel may take to end a process that was killed: it takes the probes away one after the other, and waits
/// after each until no processor can be in it, which takes half a second where all of them are busy.
const KILLED: Duration = Duration::from_secs(120);
/// Names another binary than the one of this build.
const BINARY: &str = "SW_OBSERVE_BIN";

/// A line of `--print=json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// Probes are attached and the first scan is done.
    Ready {
        /// Probe to variant.
        variants: serde_json::Value,
    },
    /// A master or a worker is there.
    Instance(Instance),
    /// One has ended.
    Gone {
        /// Its service.
        service: String,
        /// Its name.
        instance: String,
        /// Its process.
        pid: u32,
    },
    /// A request was served.
    Segment(Segment),
    /// Something happened to an instance, or is over.
    Event(Event),
    /// A process is something else from now on.
    Process {
        /// Which.
        pid: u32,
        /// What; nothing when it is gone or not gunicorn's any more.
        role: Option<String>,
        /// The pid of the arbiter of a worker, of the worker of an app child.
        parent: Option<u32>,
    },
    /// Numbers of an instance.
    Meters {
        /// Its service.
        service: String,
        /// Its name.
        instance: String,
        /// Wall time in ms when they were read.
        at_ms: i64,
        /// Meter to value.
        meters: BTreeMap<String, f64>,
    },
    /// The last line of a clean stop.
    Stats {
        /// What was lost, by reason.
        drops: BTreeMap<String, u64>,
        /// What was left out on purpose, by reason.
        #[serde(default)]
        left_out: BTreeMap<String, u64>,
    },
}

/// A service instance.
#[derive(Clone, Debug, Deserialize)]
pub struct Instance {
    /// Service name.
    pub service: String,
    /// Instance name.
    pub instance: String,
    /// `master` or `worker`.
    pub role: String,
    /// Its process.
    pub pid: u32,
    /// What OAP shows about it.
    pub properties: BTreeMap<String, serde_json::Value>,
}

/// What happened to an instance; start and end have one uuid.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Service name.
    pub service: String,
    /// Instance name.
    pub instance: String,
    /// `Start`, `Exit`, `Reload`, `Upgrade`, `Stuck`, `CrashLoop`.
    pub name: String,
    /// `Normal` or `Error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for start and end.
    pub uuid: String,
    /// Wall time in ms.
    pub start_ms: i64,
    /// Wall time in ms, once it is over.
    pub end_ms: Option<i64>,
    /// A sentence.
    pub message: String,
    /// `cause`, `pid` and more.
    pub parameters: BTreeMap<String, String>,
}

/// What one process did for one request.
#[derive(Clone, Debug, Deserialize)]
pub struct Segment {
    /// Service name.
    pub service: String,
    /// Instance name.
    pub instance: String,
    /// Its trace.
    pub trace_id: String,
    /// Its own id.
    pub segment_id: String,
    /// Children first.
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Clone, Debug, Deserialize)]
pub struct Span {
    /// Wall time in ms.
    pub start_ms: i64,
    /// Wall time in ms.
    pub end_ms: i64,
    /// Path without query.
    pub operation: String,
    /// The client.
    #[serde(default)]
    pub peer: String,
    /// `entry`.
    pub kind: String,
    /// `Http`.
    pub layer: String,
    /// SkyWalking's number of the framework.
    pub component: i32,
    /// Status 400 and above, or no response.
    pub is_error: bool,
    /// In the agent's order.
    pub tags: Vec<(String, String)>,
    /// Where the trace comes from.
    pub refs: Vec<Reference>,
    /// How long the request waited to be read.
    pub queue_wait_us: Option<u64>,
}

/// The parent of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Reference {
    /// Its trace.
    pub trace_id: String,
    /// Its segment.
    pub parent_segment_id: String,
    /// Its span.
    pub parent_span_id: i32,
    /// Its service.
    pub parent_service: String,
    /// Its instance.
    pub parent_instance: String,
    /// Its endpoint.
    pub parent_endpoint: String,
    /// The address it used for us.
    pub address: String,
}

impl Span {
    /// The value of a tag.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let path = env::var_os(BINARY).map_or_else(|| profile().join("sw-observe"), PathBuf::from);
    assert!(path.exists(), "{} is missing: build it with cargo build --package observer", path.display());
    path
}

/// A running `sw-observe`.
#[derive(Debug)]
pub struct Observer {
    child: Child,
    lines: Arc<Mutex<Lines>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// What came on its standard output. It is parsed when asked for: a benchmark has no time for that before its end.
#[derive(Debug, Default)]
struct Lines {
    unread: Vec<String>,
    read: Vec<Line>,
}

impl Lines {
    fn read(&mut self) -> &[Line] {
        let parse = |text: String| {
            must(serde_json::from_str(&text), format_args!("read the line {text:?} of sw-observe"))
        };
        self.read.extend(self.unread.drain(..).map(parse));
        &self.read
    }
}

/// What a `sw-observe` that has ended had said.
#[derive(Debug)]
pub struct Report {
    /// Every line it printed.
    pub lines: Vec<Line>,
    /// Its log.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
    /// How long that took after the signal.
    pub took: Duration,
}

impl Observer {
    /// Starts it with `--print=json` and these arguments, and waits until its probes are attached.
    pub fn start(args: &[&str]) -> Self {
        Self::of("gunicorn", args)
    }

    /// The same, and no gunicorn is watched but those of this test: others on the machine cannot fill the ring.
    pub fn on(stage: &Stage, args: &[&str]) -> Self {
        Self::of(&format!("gunicorn:cmd=*{}/*", stage.dir.display()), args)
    }

    fn of(target: &str, args: &[&str]) -> Self {
        let observer =
            Self::spawn(Command::new(binary()).args(["--target", target, "--print=json"]).args(args));
        let ready =
            observer.wait(PATIENCE, |lines| lines.iter().any(|line| matches!(line, Line::Ready { .. })));
        assert!(ready, "sw-observe is not ready after {PATIENCE:?}; its log:\n{}", observer.stderr());
        observer
    }

    /// Starts a command whose output is lines of `--print=json`.
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = must(command.spawn(), format_args!("start {command:?}"));
        let lines = Arc::new(Mutex::new(Lines::default()));
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            let lines = Arc::clone(&lines);
            readers.push(thread::spawn(move || read(output, |text| held(&lines).unread.push(text))));
        }
        if let Some(output) = child.stderr.take() {
            let stderr = Arc::clone(&stderr);
            readers.push(thread::spawn(move || {
                read(output, |text| {
                    let mut all = held(&stderr);
                    all.push_str(&text);
                    all.push('\n');
                });
            }));
        }
        Self { child, lines, stderr, readers }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn stderr(&self) -> String {
        held(&self.stderr).clone()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until its lines satisfy a condition or it has ended; says whether they do.
    pub fn wait(&self, limit: Duration, mut enough: impl FnMut(&[Line]) -> bool) -> bool {
        let mut seen = usize::MAX;
        let found = wait(limit, || {
            let done = self.readers.iter().all(JoinHandle::is_finished);
            let mut held = held(&self.lines);
            let lines = held.read();
            let fresh = lines.len() != seen;
            seen = lines.len();
            let is_enough = fresh && enough(lines);
            (is_enough || done).then_some(is_enough)
        });
        found.unwrap_or(false)
    }

    /// Shows each line from this number on.
    pub fn lines_from(&self, from: usize, each: impl FnMut(&Line)) {
        held(&self.lines).read().iter().skip(from).for_each(each);
    }

    /// Waits until each of these requests is reported, and no longer than that may take.
    pub fn wait_requests(&self, gunicorn: &Gunicorn, sent: &[Sent]) {
        let mut missing: HashSet<_> = sent.iter().map(|sent| sent.path.as_str()).collect();
        let mut read = 0;
        self.wait(PATIENCE, |lines| {
            let fresh = lines.get(read..).unwrap_or_default();
            for span in segments(fresh, gunicorn.service()).filter_map(|segment| segment.spans.last()) {
                missing.remove(span.operation.as_str());
            }
            read = lines.len();
            missing.is_empty()
        });
    }

    /// Waits until each of these processes is an instance.
    pub fn wait_instances(&self, pids: &[u32]) {
        let there = |lines: &[Line], pid: &u32| {
            lines.iter().any(|line| matches!(line, Line::Instance(instance) if instance.pid == *pid))
        };
        let all = self.wait(PATIENCE, |lines| pids.iter().all(|pid| there(lines, pid)));
        assert!(all, "{pids:?} are not all instances; the log of sw-observe:\n{}", self.stderr());
    }

    /// Waits until each of these processes is gone.
    pub fn wait_gone(&self, pids: &[u32]) {
        let gone = |lines: &[Line], wanted: &u32| {
            lines.iter().any(|line| matches!(line, Line::Gone { pid, .. } if pid == wanted))
        };
        let mut left = Vec::new();
        let all = self.wait(PATIENCE, |lines| {
            left = pids.iter().filter(|pid| !gone(lines, pid)).collect();
            left.is_empty()
        });
        assert!(all, "{left:?} are not gone; the log of sw-observe:\n{}", self.stderr());
    }

    /// Asks it to end.
    pub fn stop(self) -> Report {
        self.end(Signal::TERM)
    }

    /// Ends it with a signal, and waits.
    pub fn end(mut self, signal: Signal) -> Report {
        let begin = Instant::now();
        kill(self.pid(), signal);
        let patience = if signal == Signal::KILL { KILLED } else { PATIENCE };
        let status = wait(patience, || self.child.try_wait().ok().flatten());
        let took = begin.elapsed();
        let Some(status) = status else {
            panic!("sw-observe still runs {patience:?} after {signal:?}; its log:\n{}", self.stderr())
        };
        for reader in self.readers.drain(..) {
            must(reader.join().map_err(|_| "it panicked"), "read the output of sw-observe");
        }
        let mut lines = std::mem::take(&mut *held(&self.lines));
        lines.read();
        Report { lines: lines.read, stderr: self.stderr(), status, took }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

impl Report {
    /// Fails unless it ended of itself, with this code and without a panic.
    pub fn assert_code(&self, code: i32) {
        assert!(!self.stderr.contains("panicked"), "sw-observe panicked:\n{}", self.stderr);
        assert_eq!(
            (self.status.code(), self.status.signal()),
            (Some(code), None),
            "sw-observe ended with {}; its log:\n{}",
            self.status,
            self.stderr
        );
    }

    /// What was left out on purpose, by reason.
    pub fn left_out(&self) -> Vec<(&str, u64)> {
        let Some(Line::Stats { left_out, .. }) = self.lines.last() else { return Vec::new() };
        left_out.iter().map(|(reason, n)| (reason.as_str(), *n)).collect()
    }

    /// What was lost, by reason; a clean stop says it.
    pub fn drops(&self) -> &BTreeMap<String, u64> {
        match self.lines.last() {
            Some(Line::Stats { drops, .. }) => drops,
            last => {
                panic!("the last line of sw-observe is not its stats but {last:?}; its log:\n{}", self.stderr)
            }
        }
    }
}

/// The segments of a service.
pub fn segments<'a>(lines: &'a [Line], service: &'a str) -> impl Iterator<Item = &'a Segment> {
    let all =
        lines.iter().filter_map(|line| if let Line::Segment(segment) = line { Some(segment) } else { None });
    all.filter(move |segment| segment.service == service)
}

/// The instances of a service.
pub fn instances<'a>(lines: &'a [Line], service: &'a str) -> impl Iterator<Item = &'a Instance> {
    let all =
        lines.iter().filter_map(|line| if let Line::Instance(found) = line { Some(found) } else { None });
    all.filter(move |instance| instance.service == service)
}

fn read(output: impl Read, mut each: impl FnMut(String)) {
    for line in BufReader::new(output).lines() {
        match line {
            Ok(text) => each(text),
            Err(_) => return,
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
