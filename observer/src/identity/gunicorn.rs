//! The process model: what was seen in, roles and instances out. Pure.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Facts;
use super::Holder;
use super::Instance;
use super::ProcessKey;
use super::Role;
use super::naming;
use super::naming::Given;

/// A change that others have to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Facts about this process are needed.
    Ask(u32),
    /// An instance is there.
    Hello(Instance),
    /// An instance is gone.
    Bye(Instance),
    /// A process that was there before the probes has to be watched, as what it is.
    Watch(ProcessKey, Role),
}

#[derive(Clone, Debug)]
struct Process {
    key: ProcessKey,
    role: Role,
    /// Pid of the master of a worker, of the worker of an app child.
    parent: u32,
    inner_pid: u32,
    facts: Option<Arc<Facts>>,
    /// Whether it beat or served: a worker that never does is not announced.
    ready: bool,
    announced: Option<Instance>,
    /// It was not there when it was looked for.
    missing: bool,
}

/// Every process that matters to gunicorn, by pid.
#[derive(Clone, Debug, Default)]
pub struct Model {
    given: Given,
    processes: BTreeMap<u32, Process>,
}

impl Model {
    /// A model in which nothing has happened.
    pub fn new(given: Given) -> Model {
        Model { given, processes: BTreeMap::new() }
    }

    /// A process made a worker slot: it is an arbiter.
    pub fn slotted(&mut self, key: ProcessKey, changes: &mut Vec<Change>) {
        let known = self.processes.get(&key.pid);
        if known.is_some_and(|process| process.key == key && process.role == Role::Master) {
            return;
        }
        self.leave(key.pid, changes);
        self.enter(Process::new(key, Role::Master, 0, key.pid));
        changes.push(Change::Ask(key.pid));
    }

    /// A process forked a child; `worker` tells that it made a slot for it.
    pub fn forked(
        &mut self,
        parent: ProcessKey,
        child: ProcessKey,
        inner: u32,
        worker: bool,
        changes: &mut Vec<Change>,
    ) {
        if self.processes.get(&child.pid).is_some_and(|known| known.key == child) {
            return; // the scan came before this record
        }
        self.leave(child.pid, changes);
        if worker {
            self.slotted(parent, changes);
            self.enter(Process::new(child, Role::Worker, parent.pid, inner));
            return;
        }
        let of_worker = self.processes.get(&parent.pid).is_some_and(|parent| parent.role != Role::Master);
        if of_worker {
            self.enter(Process::new(child, Role::AppChild, parent.pid, inner));
        }
    }

    /// A process replaced its program and is no longer what it was forked as.
    pub fn execed(&mut self, pid: u32, changes: &mut Vec<Change>) {
        self.leave(pid, changes);
    }

    /// A process ended.
    pub fn exited(&mut self, pid: u32, changes: &mut Vec<Change>) {
        self.leave(pid, changes);
    }

    /// A worker beat; whether it is known.
    pub fn beat(&mut self, pid: u32, changes: &mut Vec<Change>) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        process.ready = true;
        self.announce(pid, changes);
        true
    }

    /// Facts that were asked for.
    pub fn learned(&mut self, facts: Facts, changes: &mut Vec<Change>) {
        let pid = facts.key.pid;
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.key == facts.key) else {
            return; // it ended meanwhile, and its pid is someone else's
        };
        process.inner_pid = facts.inner_pid;
        process.facts = Some(Arc::new(facts));
        self.announce(pid, changes);
        let workers =
            self.processes.values().filter(|worker| worker.role == Role::Worker && worker.parent == pid);
        let workers: Vec<u32> = workers.map(|worker| worker.key.pid).collect();
        workers.into_iter().for_each(|worker| self.announce(worker, changes));
    }

    /// Processes that hold worker slots and were there before the probes: a slot that a process does not share
    /// with its parent makes it an arbiter, one that it shares with an arbiter a worker, one that it shares with
    /// a worker an app child.
    pub fn found(&mut self, holders: &[Holder], changes: &mut Vec<Change>) {
        let by_pid: BTreeMap<u32, &Holder> =
            holders.iter().map(|holder| (holder.facts.key.pid, holder)).collect();
        let parent = |holder: &Holder| by_pid.get(&holder.facts.parent).copied();
        let shares =
            |holder: &Holder, parent: &Holder| holder.slots.iter().any(|slot| parent.slots.contains(slot));
        let made_its_own = |holder: &Holder| match parent(holder) {
            Some(parent) => holder.slots.iter().any(|slot| !parent.slots.contains(slot)),
            None => true,
        };
        // A worker whose arbiter is gone also holds a slot that its parent does not; it cannot be named.
        let is_master = |holder: &Holder| made_its_own(holder) && holder.catches_reload;
        for holder in holders.iter().filter(|holder| is_master(holder)) {
            self.adopt(holder, Role::Master, 0, changes);
        }
        for holder in holders.iter().filter(|holder| !is_master(holder)) {
            let Some(parent) = parent(holder).filter(|parent| shares(holder, parent)) else { continue };
            let role = if is_master(parent) { Role::Worker } else { Role::AppChild };
            self.adopt(holder, role, parent.facts.key.pid, changes);
        }
    }

    /// The instance that a process's requests belong to: its own, or that of the worker that forked it.
    pub fn instance(&mut self, pid: u32, changes: &mut Vec<Change>) -> Option<&Instance> {
        let mut pid = pid;
        // A child of a child of a worker is rare, a chain of more than a few not a real one.
        for _ in 0..8 {
            let process = self.processes.get_mut(&pid)?;
            if process.role != Role::AppChild {
                process.ready = true;
                break;
            }
            pid = process.parent;
        }
        self.announce(pid, changes);
        self.processes.get(&pid)?.announced.as_ref()
    }

    /// Processes that still live, of those that [`Model::instances`] names. One that is missing twice has ended: its
    /// record was lost. Once is not enough, since records of its last requests may be on their way.
    pub fn alive(&mut self, living: &BTreeSet<ProcessKey>, changes: &mut Vec<Change>) {
        let mut ended = Vec::new();
        for process in self.processes.values_mut().filter(|process| process.announced.is_some()) {
            if living.contains(&process.key) {
                process.missing = false;
            } else if std::mem::replace(&mut process.missing, true) {
                ended.push(process.key.pid);
            }
        }
        ended.into_iter().for_each(|pid| self.leave(pid, changes));
    }

    /// Every announced instance.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.processes.values().filter_map(|process| process.announced.as_ref())
    }

    fn adopt(&mut self, holder: &Holder, role: Role, parent: u32, changes: &mut Vec<Change>) {
        let Facts { key, inner_pid, .. } = holder.facts;
        // What the probes saw goes first: a worker forked while the scan ran holds a slot that its arbiter did not
        // when the scan came to that, and looks like one until it sets its signal handlers.
        if self.processes.get(&key.pid).is_none_or(|known| known.key != key) {
            self.leave(key.pid, changes);
            self.enter(Process { ready: true, ..Process::new(key, role, parent, inner_pid) });
        }
        let Some(process) = self.processes.get_mut(&key.pid) else { return };
        process.facts = Some(Arc::new(holder.facts.clone()));
        changes.push(Change::Watch(key, process.role));
        self.announce(key.pid, changes);
    }

    fn enter(&mut self, process: Process) {
        self.processes.insert(process.key.pid, process);
    }

    fn leave(&mut self, pid: u32, changes: &mut Vec<Change>) {
        if let Some(instance) = self.processes.remove(&pid).and_then(|process| process.announced) {
            changes.push(Change::Bye(instance));
        }
    }

    /// Announces a process once it can be named: a worker needs its master's facts.
    fn announce(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let ready = match process.role {
            Role::Master => true,
            Role::Worker => process.ready,
            Role::AppChild | Role::UpgradeMaster | Role::DirtyArbiter | Role::DirtyWorker | Role::Orphan => {
                false
            }
        };
        if !ready || process.announced.is_some() {
            return;
        }
        let master = if process.role == Role::Master { pid } else { process.parent };
        let Some(facts) = self.processes.get(&master).and_then(|master| master.facts.clone()) else { return };
        let name = match process.role {
            Role::Worker => naming::worker(&self.given, &facts, process.inner_pid),
            _ => naming::master(&self.given, &facts),
        };
        let instance = Instance {
            process: process.key,
            role: process.role,
            service: naming::service(&self.given, &facts).into(),
            name: name.into(),
            properties: naming::properties(&self.given, &facts, process.inner_pid),
        };
        changes.push(Change::Hello(instance.clone()));
        if let Some(process) = self.processes.get_mut(&pid) {
            process.announced = Some(instance);
        }
    }
}

impl Process {
    fn new(key: ProcessKey, role: Role, parent: u32, inner_pid: u32) -> Process {
        Process { key, role, parent, inner_pid, facts: None, ready: false, announced: None, missing: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start: 1 }
    }

    fn facts(pid: u32, parent: u32) -> Facts {
        Facts {
            key: key(pid),
            parent,
            inner_pid: pid,
            argv: vec!["gunicorn".to_owned(), "app:app".to_owned()],
            hostname: "web".to_owned(),
            ..Facts::default()
        }
    }

    fn holder(pid: u32, parent: u32, slots: &[u64], catches_reload: bool) -> Holder {
        let slots = slots.iter().map(|ino| (1, *ino)).collect();
        Holder { facts: facts(pid, parent), slots, catches_reload }
    }

    fn names(model: &Model) -> Vec<String> {
        model.instances().map(|instance| instance.name.to_string()).collect()
    }

    #[test]
    fn a_worker_forked_during_the_scan_is_no_master() {
        let (mut model, mut changes) = (Model::default(), Vec::new());
        model.forked(key(10), key(12), 12, true, &mut changes);
        // The scan came to the master before the second slot, to its worker before that one's signal handlers.
        let holders = [holder(10, 1, &[1], true), holder(11, 10, &[1], false), holder(12, 10, &[1, 2], true)];
        model.found(&holders, &mut changes);
        assert!(changes.contains(&Change::Watch(key(12), Role::Worker)), "{changes:?}");
        assert_eq!(names(&model), ["web-master(10)", "web-master(10)-child(11)"]);
        assert!(model.beat(12, &mut changes));
        assert_eq!(names(&model).last().map(String::as_str), Some("web-master(10)-child(12)"));
    }

    #[test]
    fn an_instance_that_is_missing_twice_has_ended() {
        let (mut model, mut changes) = (Model::default(), Vec::new());
        model.found(&[holder(10, 1, &[1], true), holder(11, 10, &[1], false)], &mut changes);
        let (both, one) = (BTreeSet::from([key(10), key(11)]), BTreeSet::from([key(10)]));
        for living in [&one, &both, &one] {
            model.alive(living, &mut changes);
            assert_eq!(names(&model).len(), 2);
        }
        model.alive(&one, &mut changes);
        assert_eq!(names(&model), ["web-master(10)"]);
        assert!(matches!(changes.last(), Some(Change::Bye(instance)) if instance.process == key(11)));
    }
}
