//! How busy workers are, and which masters' workers do not keep up.
use std::collections::BTreeMap;

use super::Change;
use super::Model;
use super::Process;
use crate::clock::KernelTime;
use crate::identity::Instance;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::identity::chronicle::Open;
use crate::identity::chronicle::Story;
use crate::identity::chronicle::seconds;
use crate::identity::event::EventName;
use crate::identity::load::Class;
use crate::identity::load::Listener;
use crate::identity::load::Queues;
use crate::identity::load::Turnover;
use crate::identity::pressure::Cause;
use crate::identity::pressure::Look;
use crate::identity::pressure::Pressure;
use crate::identity::pressure::Word;

/// A child of a child of a worker is rare, a chain of more than a few not a real one.
const CHAIN: usize = 8;

/// How many workers a master has that are ready, and how many of them serve.
#[derive(Clone, Copy, Debug, Default)]
struct Crew {
    ready: u32,
    /// Serve at least one request.
    serving: u32,
    /// Serve as many as they can.
    full: u32,
}

impl Model {
    /// The process that serves for this one: itself, or the worker that forked it.
    pub(super) fn server(&self, pid: u32) -> Option<u32> {
        let mut process = self.processes.get(&pid)?;
        for _ in 0..CHAIN {
            if process.role? != Role::AppChild {
                break;
            }
            process = self.process(process.parent?)?;
        }
        Some(process.key.pid)
    }

    /// A process accepted a connection.
    pub fn accepted(&mut self, pid: u32) {
        if let Some(process) = self.server(pid).and_then(|pid| self.processes.get_mut(&pid)) {
            process.life.load.accepts += 1;
        }
    }

    /// A process has so many requests more, or fewer; the last one had `waited` so long, in nanoseconds.
    pub fn turned(&mut self, pid: u32, at: KernelTime, from: u32, to: u32, waited: Option<u64>) {
        if let Some(process) = self.server(pid).and_then(|pid| self.processes.get_mut(&pid)) {
            process.life.load.changed(at, from, to);
            if let Some(ns) = waited {
                process.life.load.waited(ns);
            }
        }
    }

    /// A process moved so many bytes on WebSockets.
    pub fn carried(&mut self, pid: u32, received: u64, sent: u64) {
        if let Some(process) = self.server(pid).and_then(|pid| self.processes.get_mut(&pid)) {
            process.life.load.websocket_received += received;
            process.life.load.websocket_sent += sent;
        }
    }

    /// What each of these that is a worker and reported did since this was asked of it last.
    pub fn turnover(
        &mut self,
        at: KernelTime,
        of: impl Iterator<Item = ProcessKey>,
    ) -> BTreeMap<ProcessKey, Turnover> {
        let arbiters = self.processes.values().filter(|process| process.role.is_some_and(Role::is_arbiter));
        let classes: BTreeMap<ProcessKey, Class> =
            arbiters.map(|process| (process.key, process.arbiter.class)).collect();
        let mut all = BTreeMap::new();
        for key in of {
            let Some(process) = self.processes.get_mut(&key.pid).filter(|process| process.key == key) else {
                continue;
            };
            let serves = matches!(process.role, Some(Role::Worker | Role::DirtyWorker | Role::Orphan));
            if !serves || process.instance.is_none() || process.quiet.is_some() {
                continue;
            }
            let class = process.parent.and_then(|parent| classes.get(&parent));
            let class = class.filter(|_| process.role == Some(Role::Worker)); // dirty workers have classes of their own
            let late = process.life.pulse.late(at);
            late.into_iter().for_each(|ns| process.life.load.late(ns));
            let mut turnover = process.life.load.take(at, process.life.ready);
            // Only a loop has a lag: elsewhere a request waits for a worker, not for a loop to come round.
            turnover.late_ns = turnover.late_ns.filter(|_| class == Some(&Class::Loop));
            all.insert(process.key, turnover);
        }
        all
    }

    /// Workers of an arbiter that ended so that it had to fork others, though nobody had asked for that.
    pub fn respawns(&self, process: ProcessKey) -> Option<u64> {
        let process = self.process(process)?;
        process.role.is_some_and(Role::is_arbiter).then_some(process.arbiter.respawns)
    }

    /// What the kernel says of the queues of processes that were asked for.
    pub fn looked(&mut self, at: KernelTime, queues: &Queues, changes: &mut Vec<Change>) {
        self.now = at;
        let mut looks: BTreeMap<u32, Look> = BTreeMap::new();
        for listener in &queues.listeners {
            let Some(holder) = self.process(listener.holder) else { continue };
            match (holder.role, holder.parent) {
                (Some(Role::Master | Role::UpgradeMaster), _) => {
                    looks.entry(holder.key.pid).or_default().add(listener, None);
                }
                (Some(Role::Worker), Some(master)) => {
                    looks.entry(master.pid).or_default().add(listener, Some(holder.key));
                }
                _ => {}
            }
        }
        for unread in &queues.unread {
            let Some(worker) = self.process(unread.process) else { continue };
            if let (Some(Role::Worker), Some(master)) = (worker.role, worker.parent) {
                let look = looks.entry(master.pid).or_default();
                look.unread = look.unread.saturating_add(unread.connections);
                look.oldest_ns = look.oldest_ns.max(unread.oldest_ns);
            }
        }
        let crews = self.crews();
        for (pid, look) in looks {
            let Some(process) = self.processes.get_mut(&pid) else { continue };
            process.arbiter.pressure.looked(at, look);
            let crew = crews.get(&process.key).copied().unwrap_or_default();
            self.tell_saturated(pid, crew, changes);
        }
    }

    /// Masters whose queues are worth another look soon, with their workers.
    pub fn crowded(&self) -> Vec<ProcessKey> {
        let crews = self.crews();
        let is_crowded = |process: &Process| {
            let busy =
                crews.get(&process.key).is_some_and(|crew| crew.ready > 0 && crew.serving == crew.ready);
            process.instance.is_some()
                && process.quiet.is_none()
                && matches!(process.role, Some(Role::Master | Role::UpgradeMaster))
                && (busy || process.arbiter.pressure.is_near())
        };
        let with_master = |process: &&Process| {
            is_crowded(process)
                || process.role == Some(Role::Worker)
                    && process.parent.and_then(|parent| self.process(parent)).is_some_and(is_crowded)
        };
        self.processes.values().filter(with_master).map(|process| process.key).collect()
    }

    /// A tick: who is busy now.
    pub(super) fn tell_pressure(&mut self, changes: &mut Vec<Change>) {
        let (crews, now) = (self.crews(), self.now);
        let mut masters = Vec::new();
        for process in self.processes.values_mut() {
            let is_master = matches!(process.role, Some(Role::Master | Role::UpgradeMaster));
            if is_master && process.instance.is_some() && process.quiet.is_none() {
                let crew = crews.get(&process.key).copied().unwrap_or_default();
                process.arbiter.pressure.ticked(now, crew.ready > 0 && crew.full == crew.ready);
                masters.push((process.key.pid, crew));
            }
        }
        masters.into_iter().for_each(|(pid, crew)| self.tell_saturated(pid, crew, changes));
    }

    fn crews(&self) -> BTreeMap<ProcessKey, Crew> {
        let mut crews: BTreeMap<ProcessKey, Crew> = BTreeMap::new();
        for process in self.processes.values() {
            let Some(master) = process.parent.filter(|_| process.role == Some(Role::Worker)) else {
                continue;
            };
            if process.life.ready.is_none() {
                continue;
            }
            let capacity = self.process(master).and_then(|master| master.arbiter.class.capacity());
            let crew = crews.entry(master).or_default();
            let in_flight = process.life.load.in_flight();
            crew.ready += 1;
            crew.serving += u32::from(in_flight > 0);
            crew.full += u32::from(capacity.is_some_and(|capacity| in_flight >= capacity));
        }
        crews
    }

    /// The workers of a master do not keep up, or do so again.
    fn tell_saturated(&mut self, pid: u32, crew: Crew, changes: &mut Vec<Change>) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.quiet.is_none()) else {
            return;
        };
        let Some(instance) = process.instance.clone() else { return };
        let class = process.arbiter.class;
        let pressure = &mut process.arbiter.pressure;
        let Some(word) = pressure.word(class, now) else { return };
        let (open, cause, end) = match (word, pressure.event.take()) {
            (Word::Begins(since, cause), _) => (self.chronicle.begin(since), cause, None),
            (Word::Turns(cause), Some(event)) => (event.event, cause, None),
            (Word::Over(calm), Some(event)) => (event.event, event.cause, Some(calm)),
            (Word::Turns(_) | Word::Over(_), None) => return,
        };
        if end.is_none() {
            pressure.begun(open.clone(), cause);
        }
        let story = words(pid, cause, pressure, crew, end.map(|end| end.since(open.start)));
        let event = self.chronicle.tell(&open, &instance, EventName::Saturated, end, story);
        changes.push(Change::Event(event));
    }

    /// A master ended whose workers did not keep up.
    pub(super) fn tell_unsaturated(&self, process: &Process, instance: &Instance, changes: &mut Vec<Change>) {
        let pressure = &process.arbiter.pressure;
        let Some(event) = &pressure.event else { return };
        let (open, pid): (&Open, _) = (&event.event, process.key.pid);
        let lasted = self.now.since(open.start);
        let story = words(pid, event.cause, pressure, Crew::default(), Some(lasted));
        let event = self.chronicle.tell(open, instance, EventName::Saturated, Some(self.now), story);
        changes.push(Change::Event(event));
    }
}

fn words(pid: u32, cause: Cause, pressure: &Pressure, crew: Crew, lasted: Option<u64>) -> Story {
    let look = &pressure.look;
    let what = match cause {
        Cause::Pool => "every worker serves as many requests as it can",
        Cause::AcceptQueue => "connections wait to be accepted",
        Cause::Loop => "a worker's loop does not come round",
    };
    let mut message = match lasted {
        None => format!("the workers of master {pid} do not keep up: {what}"),
        Some(lasted) => format!("the workers of master {pid} did not keep up for {} s", seconds(lasted)),
    };
    let mut parameters = vec![("cause", cause.name().to_owned()), ("pid", pid.to_string())];
    if let Some((listener, worker)) = &look.fullest {
        let Listener { address, depth, limit, .. } = listener;
        message.push_str(&format!("; {depth} at {address}, whose backlog is {limit}"));
        parameters.push(("listener", listener.address.clone()));
        parameters.push(("depth", listener.depth.to_string()));
        parameters.push(("limit", listener.limit.to_string()));
        parameters.extend(worker.map(|worker| ("worker", worker.pid.to_string())));
    }
    parameters.push(("unread", look.unread.to_string()));
    if crew.ready > 0 {
        parameters.push(("workers", crew.ready.to_string()));
        parameters.push(("busy", crew.serving.to_string()));
    }
    Story { error: true, message, parameters }
}
