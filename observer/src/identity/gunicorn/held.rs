//! Ends of those that may not have been workers: a hook that forks between an arbiter's slot and its worker makes a child
//! that looks like one, until it ends and the worker is forked.
use super::Change;
use super::Held;
use super::Model;
use super::Process;
use crate::identity::Casting;
use crate::identity::ProcessKey;
use crate::identity::Role;

/// A hook that has waited for its child is over soon, in nanoseconds.
const HOOK: u64 = 1_000_000_000;

impl Process {
    /// Whether it got a slot and nothing says yet that it is the worker that the slot was made for.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self.role, Some(Role::Worker | Role::DirtyWorker))
            && self.life.ready.is_none()
            && self.life.found.is_none()
            && self.life.signals.is_empty()
            && self.held.is_none()
    }
}

impl Model {
    /// What was not certain is so now: it was a worker.
    pub(super) fn release(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let held = self.processes.get_mut(&pid).and_then(|process| process.held.take());
        let Some(Held { at, status, oom }) = held else { return };
        let now = std::mem::replace(&mut self.now, at);
        self.leave(pid, Some(status), oom, changes);
        self.now = now;
    }

    /// The same of every child of this arbiter: it goes on with the next worker, or ends.
    pub(super) fn release_of(&mut self, arbiter: ProcessKey, changes: &mut Vec<Change>) {
        let held = |process: &&Process| process.held.is_some() && process.parent == Some(arbiter);
        let pids: Vec<u32> = self.processes.values().filter(held).map(|process| process.key.pid).collect();
        pids.into_iter().for_each(|pid| self.release(pid, changes));
    }

    /// The same of all that have waited long enough.
    pub(super) fn release_late(&mut self, changes: &mut Vec<Change>) {
        let now = self.now;
        let late = |process: &&Process| process.held.as_ref().is_some_and(|held| now.since(held.at) >= HOOK);
        let pids: Vec<u32> = self.processes.values().filter(late).map(|process| process.key.pid).collect();
        pids.into_iter().for_each(|pid| self.release(pid, changes));
    }

    /// This arbiter forks once more for the same slot: the child before was a hook's, and its end is nobody's business.
    pub(super) fn dismiss(&mut self, arbiter: ProcessKey, changes: &mut Vec<Change>) {
        let newest = self.process(arbiter).and_then(|arbiter| arbiter.arbiter.newest);
        let held = newest.filter(|pid| self.processes.get(pid).is_some_and(|process| process.held.is_some()));
        if let Some(pid) = held {
            self.uncast(pid, changes);
            self.processes.remove(&pid);
        }
    }

    /// A process has no role any more, and never had one that was told.
    pub(super) fn uncast(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.role = None;
        changes.push(Change::Role(Casting { process: process.key, role: None, parent: None }));
    }
}
