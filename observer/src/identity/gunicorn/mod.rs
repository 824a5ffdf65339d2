//! The process model: what was seen in; roles, instances and events out. Pure.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Casting;
use super::Facts;
use super::Holder;
use super::Instance;
use super::ProcessKey;
use super::Role;
use super::arbiter::Arbiter;
use super::arbiter::Upgrade;
use super::cause::End;
use super::cause::Signal;
use super::cause::Status;
use super::cause::is_stop;
use super::chronicle::Chronicle;
use super::chronicle::Open;
use super::event::Event;
use super::found;
use super::framework::Application;
use super::framework::Recognition;
use super::life::BLIND;
use super::life::Life;
use super::naming::Given;
use super::naming::arguments;
use crate::clock::KernelTime;
use crate::clock::WallOffset;

mod announce; // who is an instance, under which name
mod busy; // who keeps up
mod cast; // who has which role, where that takes more than one look
mod held; // ends of those that may not have been workers
mod recognise; // which framework
mod tell; // which events follow

/// A change that others have to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Facts about this process are needed.
    Ask(u32),
    /// An instance is there.
    Hello(Instance),
    /// An instance is gone.
    Bye(Instance),
    /// What this worker has imported is needed, and what its application is, where that has a name.
    AskImports(ProcessKey, Option<Application>),
    /// A process that was there before the probes has to be watched, as what it is.
    Watch(ProcessKey, Role),
    /// A process is not reported: its traffic is nobody's business. With it comes the sign of the SkyWalking agent
    /// inside, if that is why, and the service.
    Disregard(ProcessKey, Option<(&'static str, Arc<str>)>),
    /// A process is something else from now on.
    Role(Casting),
    /// Something happened to an instance.
    Event(Event),
}

/// A process was forked.
#[derive(Clone, Copy, Debug)]
pub struct Fork {
    /// By whom.
    pub parent: ProcessKey,
    /// What came out.
    pub child: ProcessKey,
    /// Its pid in its own pid namespace.
    pub inner: u32,
    /// Whether the forking thread had made a slot for it.
    pub slot: bool,
    /// Whether the probes leave it alone, as they do its parent.
    pub disregarded: bool,
}

/// An end that is told later, or not at all.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: KernelTime,
    status: Status,
    oom: bool,
}

/// Why a process is not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quiet {
    /// It is not one of the targets.
    NoTarget,
    /// The SkyWalking agent inside its master reports it; its master is named, to say so.
    Aside,
}

#[derive(Clone, Debug)]
struct Process {
    key: ProcessKey,
    /// Nothing for a child of an arbiter that is not gunicorn's, or not yet.
    role: Option<Role>,
    /// The arbiter of a worker, the worker of an app child.
    parent: Option<ProcessKey>,
    inner_pid: u32,
    facts: Option<Arc<Facts>>,
    instance: Option<Instance>,
    /// Its name alone did not tell it from another's.
    is_twin: bool,
    life: Life,
    /// What it is about, if it is an arbiter.
    arbiter: Arbiter,
    /// Which framework its workers run.
    recognition: Recognition,
    /// It replaced its program since it was forked.
    execed: bool,
    /// The worker that was forked for the last slot when this was forked without: they may be the wrong way round.
    instead_of: Option<u32>,
    /// Its arbiter is gone.
    orphaned: bool,
    /// Why it is not reported, if it is not.
    quiet: Option<Quiet>,
    /// Since when it is not there when it is looked for.
    missing: Option<KernelTime>,
    start: Option<Open>,
    exit: Option<Open>,
    stuck: Option<Open>,
    /// It ended, and what it was is not certain yet.
    held: Option<Held>,
}

/// Every process that matters to gunicorn, by pid.
#[derive(Debug)]
pub struct Model {
    given: Given,
    /// A worker that has not beaten so long after its fork is stuck, in nanoseconds.
    stuck_after: u64,
    chronicle: Chronicle,
    now: KernelTime,
    processes: BTreeMap<u32, Process>,
}

impl Model {
    /// A model in which nothing has happened. A worker that has not beaten `stuck_after` nanoseconds after its fork
    /// is stuck; `seed` is what the uuids of events are made from.
    pub fn new(given: Given, stuck_after: u64, seed: u64, wall: WallOffset) -> Model {
        let chronicle = Chronicle::new(seed, wall);
        Model { given, stuck_after, chronicle, now: KernelTime::default(), processes: BTreeMap::new() }
    }

    /// A process made a worker slot: it is an arbiter.
    pub fn slotted(&mut self, at: KernelTime, key: ProcessKey, changes: &mut Vec<Change>) {
        self.now = at;
        self.release_of(key, changes);
        if let Some(known) = self.processes.get_mut(&key.pid).filter(|known| known.key == key) {
            known.arbiter.newest = None;
            let known = known.clone();
            let parent = known.parent.and_then(|parent| self.process(parent));
            let is_heir = |upgrade: &Upgrade| upgrade.child == Some(key.pid);
            let upgraded = parent.and_then(|parent| parent.arbiter.upgrade.as_ref()).is_some_and(is_heir);
            match (known.role, parent.and_then(|parent| parent.role)) {
                (Some(role), _) if role.is_arbiter() => {
                    if known.facts.is_none() {
                        changes.push(Change::Ask(key.pid)); // they could not be read before
                    }
                    return;
                }
                // What a master started otherwise than by USR2 is told by its facts.
                (None, Some(Role::Master | Role::UpgradeMaster)) if upgraded || !known.execed => {
                    let role = if known.execed { Role::UpgradeMaster } else { Role::DirtyArbiter };
                    self.cast(key.pid, role, changes);
                    changes.push(Change::Ask(key.pid));
                    return;
                }
                _ => {}
            }
        }
        self.leave(key.pid, None, false, changes);
        let life = Life { forked: Some(at), ..Life::default() };
        self.enter(Process { role: Some(Role::Master), life, ..Process::new(key) }); // said when its facts are there
        changes.push(Change::Ask(key.pid));
    }

    /// A process forked a child that does not share its memory.
    pub fn forked(&mut self, at: KernelTime, fork: Fork, changes: &mut Vec<Change>) {
        self.now = at;
        let Fork { parent, child, inner, slot, disregarded } = fork;
        if self.processes.get(&child.pid).is_some_and(|known| known.key == child) {
            return; // the scan came before this record
        }
        self.release(child.pid, changes);
        self.leave(child.pid, None, false, changes); // its end went by unseen
        if slot && !self.process(parent).and_then(|parent| parent.role).is_some_and(Role::is_arbiter) {
            self.slotted(at, parent, changes);
        }
        if !slot {
            self.dismiss(parent, changes);
        }
        let Some(known) = self.process(parent) else { return };
        let role = match known.role {
            Some(Role::DirtyArbiter) if slot => Some(Role::DirtyWorker),
            Some(_) if slot => Some(Role::Worker),
            Some(role) if !role.is_arbiter() => Some(Role::AppChild),
            _ => None,
        };
        let process = Process {
            parent: Some(parent),
            inner_pid: inner,
            life: Life { forked: Some(at), ..Life::default() },
            instead_of: known.arbiter.newest,
            quiet: known.quiet,
            ..Process::new(child)
        };
        if process.quiet.is_some() && !disregarded {
            changes.push(Change::Disregard(child, None)); // forked before the probes were told of its parent
        }
        self.enter(process);
        if let Some(role) = role {
            self.cast(child.pid, role, changes);
        }
        if let Some(parent) = self.processes.get_mut(&parent.pid) {
            parent.arbiter.newest = if slot { Some(child.pid) } else { parent.arbiter.newest };
            if let Some(upgrade) = parent.arbiter.upgrade.as_mut().filter(|_| role.is_none()) {
                upgrade.child.get_or_insert(child.pid);
            }
        }
    }

    /// A process replaced its program and is no longer what it was forked as.
    pub fn execed(&mut self, at: KernelTime, pid: u32, changes: &mut Vec<Change>) {
        self.now = at;
        match self.processes.get_mut(&pid) {
            Some(process) if process.role.is_none() => process.execed = true, // an upgrade, perhaps
            Some(process) if process.is_doubtful() => {
                process.execed = true;
                self.uncast(pid, changes); // a hook's child, that its arbiter forked between slot and worker
            }
            _ => self.leave(pid, None, false, changes),
        }
    }

    /// A process ended.
    pub fn exited(&mut self, at: KernelTime, pid: u32, status: Status, oom: bool, changes: &mut Vec<Change>) {
        self.now = at;
        match self.processes.get_mut(&pid) {
            Some(process) if process.is_doubtful() => process.held = Some(Held { at, status, oom }),
            Some(process) if process.role.is_some_and(Role::is_arbiter) => {
                let key = process.key;
                self.release_of(key, changes);
                self.leave(pid, Some(status), oom, changes);
            }
            _ => self.leave(pid, Some(status), oom, changes),
        }
    }

    /// A process could not be looked at, because it ended. Its end is still to be told when its start was.
    pub fn gone(&mut self, pid: u32, changes: &mut Vec<Change>) {
        if self.processes.get(&pid).is_some_and(|process| process.life.found.is_some()) {
            self.leave(pid, None, false, changes);
        }
    }

    /// A signal was sent to a process and not thrown away.
    pub fn signalled(&mut self, target: ProcessKey, sent: Signal, changes: &mut Vec<Change>) {
        self.now = sent.at;
        let parent = self.process(target).and_then(|process| process.parent);
        if let Some(arbiter) = parent.filter(|parent| parent.pid == sent.sender) {
            self.release_of(arbiter, changes); // it acts on the end of a worker, perhaps
        }
        let Some(process) = self.process(target) else { return };
        let arbiter = process.parent.filter(|parent| sent.code == 0 && parent.pid == sent.sender);
        let why = arbiter.and_then(|arbiter| self.process(arbiter)).map(|arbiter| {
            let blind = arbiter.life.found.is_some_and(|found| sent.at.since(found) < arbiter.longest());
            arbiter.arbiter.why(sent.at, process.life.forked, blind)
        });
        let Some(process) = self.processes.get_mut(&target.pid) else { return };
        if let Some(why) = why.filter(|_| is_stop(sent.number) && process.role.is_some()) {
            process.life.asked.get_or_insert(why);
        }
        if process.role.is_some_and(Role::is_arbiter) {
            process.arbiter.sent(&sent);
        }
        let number = sent.number;
        process.life.sent(sent);
        self.tell_signal(target.pid, number, changes);
    }

    /// A worker beat; whether it is known.
    pub fn beat(&mut self, at: KernelTime, pid: u32, changes: &mut Vec<Change>) -> bool {
        self.now = at;
        self.swap(pid, changes);
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.role.is_some()) else {
            return false;
        };
        let late = process.life.pulse.late(at);
        late.into_iter().for_each(|ns| process.life.load.late(ns));
        process.life.pulse.beat(at);
        self.tell_recovered(pid, changes);
        self.serves(at, pid, changes);
        true
    }

    /// Facts that were asked for.
    pub fn learned(&mut self, facts: Facts, changes: &mut Vec<Change>) {
        let pid = facts.key.pid;
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.key == facts.key) else {
            return; // it ended meanwhile, and its pid is someone else's
        };
        process.inner_pid = facts.inner_pid;
        process.arbiter.told(&facts);
        if process.facts.replace(Arc::new(facts)).is_none() {
            self.tell_apart(pid, changes);
        }
        self.admit(pid, changes);
        self.announce_family(pid, changes);
    }

    /// Processes that were there before the probes.
    pub fn found(&mut self, at: KernelTime, holders: &[Holder], changes: &mut Vec<Change>) {
        self.now = at;
        for (holder, role, parent) in found::roles(holders) {
            let parent = parent.and_then(|pid| self.processes.get(&pid)).map(|parent| parent.key);
            self.adopt(holder, role, parent, changes);
        }
        // Of those about which the scan says nothing the probes may have said it.
        for holder in holders {
            let known = self.process(holder.facts.key);
            if let Some((role, parent)) = known.and_then(|known| Some((known.role?, known.parent))) {
                self.adopt(holder, role, parent, changes);
            }
        }
    }

    /// The instance that a request, begun `at` and over now, belongs to: that of the process that served it, or of the worker that
    /// forked this. `None` when the process is not known, or not to be reported (see [`Model::is_quiet`]).
    pub fn instance(&mut self, at: KernelTime, pid: u32, changes: &mut Vec<Change>) -> Option<&Instance> {
        let pid = self.server(pid)?;
        if let Some(process) = self.processes.get_mut(&pid) {
            process.life.served = Some(at);
            process.life.load.requests += 1;
        }
        self.serves(at, pid, changes);
        self.processes.get(&pid)?.instance.as_ref()
    }

    /// Whether a process is known and not to be reported.
    pub fn is_quiet(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.quiet.is_some())
    }

    /// Processes that lived `at` this time, of those that were `asked` for. One that is missing twice has ended, if
    /// all records of the time between were `read`: its own was lost. Until then those of its last requests may be on
    /// their way.
    pub fn alive(
        &mut self,
        at: KernelTime,
        asked: &BTreeSet<ProcessKey>,
        living: &BTreeSet<ProcessKey>,
        read: KernelTime,
        changes: &mut Vec<Change>,
    ) {
        let mut ended = Vec::new();
        for process in self.processes.values_mut().filter(|process| asked.contains(&process.key)) {
            if living.contains(&process.key) {
                process.missing = None;
            } else if read > *process.missing.get_or_insert(at) {
                ended.push(process.key.pid);
            }
        }
        ended.into_iter().for_each(|pid| self.leave(pid, None, false, changes));
    }

    /// Every announced instance that is reported.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        let reported = self.processes.values().filter(|process| process.quiet.is_none());
        reported.filter_map(|process| process.instance.as_ref())
    }

    /// Nanoseconds since the last heartbeat of a worker.
    pub fn heartbeat_age(&self, process: ProcessKey, now: KernelTime) -> Option<u64> {
        self.process(process)?.life.pulse.age(now)
    }

    fn enter(&mut self, process: Process) {
        self.processes.insert(process.key.pid, process);
    }

    fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(&key.pid).filter(|process| process.key == key)
    }

    /// A process ended, or is no longer what it was; without a status that went by unseen.
    fn leave(&mut self, pid: u32, status: Option<Status>, oom: bool, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.remove(&pid) else { return };
        let Some(role) = process.role else { return self.tell_failed_upgrade(&process, status, changes) };
        let parent = process.parent.and_then(|parent| self.process(parent));
        let ready = if role.is_arbiter() { process.arbiter.served } else { process.life.ready.is_some() };
        let end = End {
            process: process.key,
            status,
            oom,
            signals: &process.life.signals,
            arbiter: process.parent.map(|parent| parent.pid).filter(|_| role != Role::UpgradeMaster),
            asked: process.life.asked,
            ending: process.arbiter.ending.or_else(|| parent.and_then(|parent| parent.arbiter.ending)),
            orphaned: process.orphaned,
            ready,
            contained: process.inner_pid != pid,
            blind: if role.is_arbiter() {
                process.life.found.is_some() // it never ends by itself
            } else {
                process.life.is_blind(self.now, parent.map_or(BLIND, Process::longest))
            },
        };
        let verdict = end.verdict();
        let is_respawned = verdict.cause.is_respawned() && !status.is_some_and(Status::stops_arbiter);
        let is_respawned = is_respawned && end.ending.is_none() && !role.is_arbiter();
        self.tell_exit(&process, role, status, &verdict, changes);
        let arbiter = process.parent.filter(|_| is_respawned && role != Role::AppChild);
        if let Some(arbiter) = arbiter.and_then(|arbiter| self.processes.get_mut(&arbiter.pid)) {
            arbiter.arbiter.respawns += 1;
        }
        if let Some(instance) = &process.instance {
            changes.push(Change::Bye(instance.clone()));
        }
        if process.quiet != Some(Quiet::NoTarget) {
            changes.push(Change::Role(Casting { process: process.key, role: None, parent: None }));
        }
        if role.is_arbiter() {
            self.abandon(&process, changes);
        }
    }

    /// An arbiter is gone: its workers are orphans, and a master that it started is on its own.
    fn abandon(&mut self, arbiter: &Process, changes: &mut Vec<Change>) {
        let of = |process: &&mut Process| process.parent == Some(arbiter.key);
        let mut recast = Vec::new();
        for process in self.processes.values_mut().filter(of) {
            match process.role {
                Some(Role::Worker | Role::DirtyWorker) => {
                    process.orphaned = true;
                    // Named after its master: what it is called must not depend on when it is first asked for.
                    process.facts = process.facts.take().or_else(|| arbiter.facts.clone());
                    process.recognition = arbiter.recognition.clone();
                    recast.push((process.key.pid, Role::Orphan));
                }
                Some(Role::UpgradeMaster) => {
                    process.parent = None;
                    recast.push((process.key.pid, Role::Master));
                }
                _ => {}
            }
        }
        recast.into_iter().for_each(|(pid, role)| self.cast(pid, role, changes));
    }
}

impl Process {
    /// How long a worker of this arbiter may take to end after it was asked to, in nanoseconds: until it has finished its
    /// requests, or until it has not beaten for too long.
    fn longest(&self) -> u64 {
        let Some(facts) = &self.facts else { return BLIND };
        let limits = [arguments::graceful_timeout(facts), arguments::timeout(facts)];
        let limit = |seconds: Option<u64>| match seconds {
            Some(0) => u64::MAX, // never killed
            Some(seconds) => seconds.saturating_mul(1_000_000_000),
            None => BLIND,
        };
        limits.map(limit).into_iter().fold(BLIND, u64::max)
    }

    fn new(key: ProcessKey) -> Process {
        Process {
            key,
            role: None,
            parent: None,
            inner_pid: key.pid,
            facts: None,
            instance: None,
            is_twin: false,
            life: Life::default(),
            arbiter: Arbiter::default(),
            recognition: Recognition::default(),
            execed: false,
            instead_of: None,
            orphaned: false,
            quiet: None,
            missing: None,
            start: None,
            exit: None,
            stuck: None,
            held: None,
        }
    }
}

#[cfg(test)]
mod tests;
