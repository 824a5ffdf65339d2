//! One case: starts it, does what its steps say, and compares after each of them.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use harness::client::Address;
use harness::client::Client;
use harness::client::Mode;
use harness::gunicorn::kill;
use harness::python::Python;
use harness::request::Request;
use harness::stage::must;
use harness::stage::package;
use rustix::process::Signal;

use crate::check;
use crate::check::Exit;
use crate::check::View;
use crate::check::Wanted;
use crate::group::Group;
use crate::seen::Watch;
use crate::table::Case;
use crate::table::Counts;
use crate::table::Step;
use crate::table::words;
use crate::truth::Kind;
use crate::truth::Truth;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(60);
/// How long what is right has to stay right.
const SETTLED: Duration = Duration::from_millis(250);
/// How long an observer that was wrong before is waited for.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// How long an observer may take to say what has become true.
const LAG: Duration = Duration::from_secs(6);
/// Seconds that an end may take: up to 23 a master may trip over its own log line about a worker (`reap_workers` in a
/// signal handler), and waits out its graceful timeout of 30 s then.
const PARTING: u64 = 45;
/// The step of the end, behind all others.
const END: usize = 1000;
/// What every case's `app.py` is.
const APP: &str = "from corpus_app import app, asgi\n";

/// What a case needs from the run that it is part of.
pub struct Place<'a> {
    /// Where its folder is made.
    pub dir: &'a Path,
    /// The environment it runs in.
    pub python: &'a Python,
    /// A free port of its own.
    pub port: u16,
    /// The observer that was there first.
    pub first: &'a Watch,
    /// Gives the observer that came late, once every case of the batch is held.
    pub hold: &'a dyn Fn() -> Option<Arc<Watch>>,
}

/// A case as it runs.
pub struct Play<'a> {
    case: Case,
    place: &'a Place<'a>,
    dir: PathBuf,
    launched: Child,
    truth: Truth,
    wanted: Wanted,
    expect: Counts,
    others: Option<Vec<String>>,
    mark: usize,
    late: Option<(Arc<Watch>, usize)>,
    requests: usize,
    faults: Vec<String>,
}

/// Runs a case to its end and returns what was wrong.
pub fn play(case: &Case, place: &Place) -> Vec<String> {
    let mut play = Play::launch(case.clone(), place);
    play.wanted.exits.insert(0, case.exits.clone());
    play.wanted.events.insert(0, case.events.clone());
    play.settle(0, play.case.within);
    let steps = play.case.steps.clone();
    if !steps.iter().any(|step| step.hold) {
        play.hold(1);
    }
    for (at, step) in steps.iter().enumerate() {
        if step.hold {
            play.hold(at + 1);
        }
        play.act(at + 1, step);
    }
    play.end();
    play.faults
}

impl<'a> Play<'a> {
    fn launch(mut case: Case, place: &'a Place) -> Self {
        let dir = place.dir.join(&case.name);
        must(fs::create_dir_all(&dir), format_args!("make {}", dir.display()));
        let apps = package().join("apps");
        for (placeholder, value) in [
            ("{B}", format!("-w 2 -b 127.0.0.1:{}", place.port)),
            ("{port}", place.port.to_string()),
            ("{dir}", dir.display().to_string()),
            ("{apps}", apps.display().to_string()),
            ("{bin}", place.python.script("").display().to_string()),
        ] {
            case.substitute(placeholder, value.trim_end_matches('/'));
        }
        must(fs::write(dir.join("app.py"), APP), "write app.py");
        for (name, text) in &case.files {
            must(fs::write(dir.join(name), text), format_args!("write {name}"));
        }
        let log = dir.join("log");
        let group = Group::make(&case.name, case.memory);
        let mark = place.first.mark();
        let mut line = group.entering().to_vec();
        line.extend(words(&case.run));
        let mut command = environment(&line, &case, place, &dir);
        let output = must(File::options().create(true).append(true).open(&log), "make the log");
        command.stdout(must(output.try_clone(), "share the log")).stderr(output);
        let launched = must(command.spawn(), format_args!("start {command:?}"));
        let (expect, others) = (case.expect.clone(), case.others.clone());
        let truth = Truth::new(group, &log);
        let (wanted, faults) = (Wanted::default(), Vec::new());
        Self {
            case,
            place,
            dir,
            launched,
            truth,
            wanted,
            expect,
            others,
            mark,
            late: None,
            requests: 0,
            faults,
        }
    }

    fn hold(&mut self, step: usize) {
        self.late = (self.place.hold)().map(|watch| (watch, step));
        self.settle(step, 8);
    }

    /// Waits until all is as the table says and stays so; what is not becomes a fault.
    fn settle(&mut self, step: usize, seconds: u64) {
        let begin = Instant::now();
        let (mut true_since, mut right_since) = (None, None);
        loop {
            self.truth.refresh(step);
            self.launched.try_wait().ok(); // so that it is no zombie
            let wrong = self.untrue(step);
            let different = self.different();
            let now = Instant::now();
            true_since = wrong.is_empty().then(|| true_since.unwrap_or(now));
            right_since = (wrong.is_empty() && different.is_empty()).then(|| right_since.unwrap_or(now));
            if right_since.is_some_and(|since| since.elapsed() > SETTLED) {
                return;
            }
            let lag = if self.faults.is_empty() { LAG } else { IMPATIENCE };
            let late = true_since.is_some_and(|since| since.elapsed() > lag);
            if late || begin.elapsed() > Duration::from_secs(seconds) {
                let at = self.at(step);
                self.faults.extend(wrong.iter().chain(&different).map(|fault| format!("{at}: {fault}")));
                return;
            }
            thread::sleep(POLL);
        }
    }

    fn at(&self, step: usize) -> String {
        let action = self.case.steps.get(step.wrapping_sub(1)).map(|step| {
            let parts = [&step.signal, &step.to, &step.request, &step.run, &step.write];
            parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
        });
        match (step, action) {
            (0, _) => "start".into(),
            (END, _) => "end".into(),
            (_, action) => format!("step {step} ({})", action.unwrap_or_default()),
        }
    }

    /// Where the processes themselves are not as the table says.
    fn untrue(&self, step: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut counts = self.truth.counts();
        if self.case.looping.is_some() {
            counts.remove("worker"); // they come and go
        }
        if step == END {
            counts.retain(|role, _| !matches!(role.as_str(), "app-child" | "orphan"));
        }
        if counts != self.expect {
            found.push(format!("TABLE: there are {counts:?}, not {:?}", self.expect));
        }
        let others = self.truth.others();
        if let Some(wanted) = self.others.as_ref().filter(|wanted| **wanted != others) {
            found.push(format!("TABLE: the others are {others:?}, not {wanted:?}"));
        }
        let mut dead: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.truth.members().filter(|member| member.died == Some(step)) {
            let looping = self.case.looping.is_some() && member.kind == Kind::Worker;
            let counted = !looping && !matches!(member.kind, Kind::Other | Kind::Child);
            if counted {
                *dead.entry(member.kind.name()).or_default() += 1;
            }
        }
        let mut due: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
        for exit in self.wanted.exits.get(&step).into_iter().flatten().map(|line| Exit::read(line)) {
            let (count, open) = due.entry(exit.kind).or_default();
            *count += exit.count;
            *open |= exit.open;
        }
        let enough = due.iter().all(|(kind, (count, open))| {
            let dead = dead.get(kind).copied().unwrap_or(0);
            dead == *count || *open && dead > *count
        });
        if !enough || dead.keys().any(|kind| !due.contains_key(kind)) {
            found.push(format!("TABLE: {dead:?} ended, not {:?}", self.wanted.exits.get(&step)));
        }
        found
    }

    /// Where the observers say something else.
    fn different(&self) -> Vec<String> {
        let compare = |watch: &Watch, view| {
            check::differences(&self.case, &self.truth, &self.wanted, &watch.seen(), view)
        };
        let mut found = compare(self.place.first, View { mark: self.mark, late: None });
        if let Some((watch, step)) = &self.late {
            let late = compare(watch, View { mark: 0, late: Some(*step) });
            found.extend(late.into_iter().map(|fault| format!("(late) {fault}")));
        }
        found
    }

    fn act(&mut self, at: usize, step: &Step) {
        self.truth.refresh(at);
        if let Some(expect) = &step.expect {
            self.expect.clone_from(expect);
            self.others.clone_from(&step.others);
        }
        self.wanted.exits.insert(at, step.exits.clone());
        self.wanted.events.insert(at, step.events.clone());
        if let Some(path) = &step.write {
            must(fs::write(self.dir.join(path), &step.text), format_args!("write {path}"));
        }
        if let Some(name) = &step.signal {
            let to = step.to.as_deref().unwrap_or("master");
            let pids = if to == "launch" { vec![self.launched.id()] } else { self.truth.named(to) };
            if pids.is_empty() {
                self.faults.push(format!("{}: TABLE: there is no {to}", self.at(at)));
            }
            pids.iter().for_each(|pid| kill(*pid, signal(name)));
        }
        if let Some(action) = &step.request {
            for _ in 0..step.count.unwrap_or(1) {
                self.request(at, action, step.background);
            }
        }
        if let Some(line) = &step.run {
            let line = [self.truth.entering().to_vec(), words(line)].concat();
            let mut command = environment(&line, &self.case, self.place, &self.dir);
            let output = must(command.output(), format_args!("run {line:?}"));
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                self.faults.push(format!("{}: TABLE: {line:?} failed: {text}", self.at(at)));
            }
        }
        if let Some(seconds) = step.sleep {
            thread::sleep(Duration::from_secs_f64(seconds));
        }
        self.settle(at, step.within);
    }

    fn request(&mut self, at: usize, action: &str, background: bool) {
        self.requests += 1;
        let address = Address::Tcp(([127, 0, 0, 1], self.place.port).into());
        let request = Request::get(&format!("{action}/{}-{}", self.case.name, self.requests));
        let path = request.path.clone();
        let send = move || Client::new(&address, Mode::New).send(&request);
        if background {
            thread::spawn(send);
            return;
        }
        let sent = send();
        match sent.worker {
            Some(worker) => self.wanted.requests.push((at, path, worker)),
            None => self.faults.push(format!("{}: TABLE: no answer: {:?}", self.at(at), sent.error)),
        }
    }

    /// Asks what is left to end; all of it ends because of that.
    fn end(&mut self) {
        self.truth.refresh(END);
        let masters = self.truth.named("masters");
        if !masters.is_empty() && self.case.looping.is_none() {
            let mut left: BTreeMap<&str, usize> = BTreeMap::new();
            for member in self.truth.members().filter(|member| member.alive) {
                let stays = self.truth.role(member) == Some("orphan");
                if !stays && !matches!(member.kind, Kind::Other | Kind::Child) {
                    *left.entry(member.kind.name()).or_default() += 1;
                }
            }
            let exits = left.iter().map(|(kind, count)| format!("{count} {kind} shutdown"));
            self.wanted.exits.insert(END, self.case.ends.clone().unwrap_or_else(|| exits.collect()));
            self.expect.clear();
            self.others = None;
            masters.iter().for_each(|pid| kill(*pid, Signal::TERM));
            self.settle(END, PARTING);
        }
        self.truth.clear();
        self.launched.wait().ok();
        if !self.faults.is_empty() {
            let seen = self.place.first.seen();
            let said = self.truth.members().map(|member| (member.pid, seen.story(self.mark, member.pid)));
            self.faults
                .extend(said.map(|(pid, story)| format!("after line {}, of {pid}: {story}", self.mark)));
            let log = self.truth.log();
            let tail: Vec<_> = log.lines().rev().take(6).collect();
            self.faults.push(format!("log ends: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" / ")));
        }
    }
}

/// A command in a case's environment and folder.
fn environment(line: &[String], case: &Case, place: &Place, dir: &Path) -> Command {
    let (program, arguments) =
        line.split_first().map_or(("true", [].as_slice()), |(first, rest)| (first, rest));
    let bin = place.python.script("");
    let bin = bin.display().to_string();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.trim_end_matches('/'));
    let program = if program.contains('/') { PathBuf::from(program) } else { find(program, &path) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir(dir).stdin(Stdio::null());
    command.env("PATH", path).env("HOME", dir).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", package().join("apps")).env("SW_AGENT_NAME", case.service());
    for (name, value) in &case.env {
        match value.as_str() {
            "" => command.env_remove(name),
            value => command.env(name, value),
        };
    }
    command
}

/// A program by a search path; its own name when it is not there.
pub fn find(program: &str, path: &str) -> PathBuf {
    let mut all = path.split(':').map(|dir| Path::new(dir).join(program));
    all.find(|file| file.is_file()).unwrap_or_else(|| PathBuf::from(program))
}

fn signal(name: &str) -> Signal {
    let known = [
        ("HUP", Signal::HUP),
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("TTIN", Signal::TTIN),
        ("TTOU", Signal::TTOU),
        ("WINCH", Signal::WINCH),
        ("STOP", Signal::STOP),
        ("CONT", Signal::CONT),
        ("SEGV", Signal::SEGV),
        ("ABRT", Signal::ABORT),
        ("ALRM", Signal::ALARM),
        ("VTALRM", Signal::VTALARM),
        ("PROF", Signal::PROF),
        ("PWR", Signal::POWER),
    ];
    let found = known.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
    must(found.ok_or("the driver does not know it"), format_args!("send {name}"))
}
