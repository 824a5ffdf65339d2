//! What one observer said so far, by process.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use harness::observer::Event;
use harness::observer::Instance;
use harness::observer::Line;
use harness::observer::Observer;
use harness::observer::Report;

/// An observer at work, and its lines as far as they were read.
#[derive(Debug)]
pub struct Watch {
    observer: Observer,
    seen: Mutex<Seen>,
}

/// Its lines, sorted; a number of a line orders them, since pids are used again.
#[derive(Debug, Default)]
pub struct Seen {
    lines: usize,
    roles: HashMap<u32, Vec<(usize, Option<String>)>>,
    instances: Vec<(usize, Instance)>,
    events: BTreeMap<String, (usize, Event)>,
    served: HashMap<String, Vec<(String, String)>>,
}

impl Watch {
    /// Starts one.
    pub fn start() -> Self {
        Self { observer: Observer::start(&["--stuck-after", "3"]), seen: Mutex::default() }
    }

    /// How many lines there are: what comes later has a higher number.
    pub fn mark(&self) -> usize {
        self.seen().lines
    }

    /// What it said so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let from = seen.lines;
        self.observer.lines_from(from, |line| seen.take(line));
        seen
    }

    /// Ends it.
    pub fn stop(self) -> Report {
        self.observer.stop()
    }
}

impl Seen {
    fn take(&mut self, line: &Line) {
        self.lines += 1;
        match line {
            Line::Process { pid, role, .. } => {
                self.roles.entry(*pid).or_default().push((self.lines, role.clone()));
            }
            Line::Instance(instance) => self.instances.push((self.lines, instance.clone())),
            Line::Event(event) => {
                let first = self.events.get(&event.uuid).map_or(self.lines, |(at, _)| *at);
                self.events.insert(event.uuid.clone(), (first, event.clone()));
            }
            Line::Segment(segment) => {
                if let Some(span) = segment.spans.last() {
                    let by = (segment.service.clone(), segment.instance.clone());
                    self.served.entry(span.operation.clone()).or_default().push(by);
                }
            }
            Line::Ready { .. } | Line::Gone { .. } | Line::Meters { .. } | Line::Stats { .. } => {}
        }
    }

    /// What a process is by now.
    pub fn role(&self, mark: usize, pid: u32) -> Option<&str> {
        self.history(mark, pid).last().and_then(|(_, role)| role.as_deref())
    }

    /// Every role that a process had.
    pub fn roles(&self, mark: usize, pid: u32) -> impl Iterator<Item = &str> {
        self.history(mark, pid).filter_map(|(_, role)| role.as_deref())
    }

    fn history(&self, mark: usize, pid: u32) -> impl DoubleEndedIterator<Item = &(usize, Option<String>)> {
        self.roles.get(&pid).into_iter().flatten().filter(move |(at, _)| *at > mark)
    }

    /// All that was said of a process, for people.
    pub fn story(&self, mark: usize, pid: u32) -> String {
        let roles =
            self.history(mark, pid).map(|(at, role)| format!("{at}: {}", role.as_deref().unwrap_or("none")));
        let own = |event: &Event| event.parameters.get("pid") == Some(&pid.to_string());
        let events = self.events.values().filter(|(at, event)| *at > mark && own(event));
        let events = events.map(|(at, event)| format!("{at}: {} {:?}", event.name, event.parameters));
        roles.chain(events).collect::<Vec<_>>().join(", ")
    }

    /// The instance of a process.
    pub fn instance(&self, mark: usize, pid: u32) -> Option<&Instance> {
        let mut all = self.instances.iter().rev().filter(|(at, _)| *at > mark);
        all.find(|(_, instance)| instance.pid == pid).map(|(_, instance)| instance)
    }

    /// The exits of a process; there should be one.
    pub fn exits(&self, mark: usize, pid: u32) -> Vec<&Event> {
        let pid = pid.to_string();
        let all = self.events.values().filter(|(at, event)| *at > mark && event.name == "Exit");
        all.map(|(_, event)| event)
            .filter(|event| event.end_ms.is_some() && event.parameters.get("pid") == Some(&pid))
            .collect()
    }

    /// Events of the instances of these processes that are neither starts nor exits.
    pub fn others(&self, mark: usize, pids: &[u32]) -> Vec<&Event> {
        let own = |event: &Event| {
            pids.iter()
                .filter_map(|pid| self.instance(mark, *pid))
                .any(|instance| instance.service == event.service && instance.instance == event.instance)
        };
        let all = self.events.values().filter(|(at, _)| *at > mark).map(|(_, event)| event);
        all.filter(|event| !matches!(event.name.as_str(), "Start" | "Exit") && own(event)).collect()
    }

    /// The pids of the instances that a request was reported under.
    pub fn served(&self, mark: usize, path: &str) -> Vec<Option<u32>> {
        let pid = |(service, name): &(String, String)| {
            let mut all = self.instances.iter().rev().filter(|(at, _)| *at > mark);
            let found = all.find(|(_, instance)| instance.service == *service && instance.instance == *name);
            found.map(|(_, instance)| instance.pid)
        };
        self.served.get(path).into_iter().flatten().map(pid).collect()
    }
}
