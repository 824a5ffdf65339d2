//! Who has which role, where that takes more than one look.
use std::sync::Arc;

use super::Change;
use super::Model;
use super::Process;
use crate::identity::Casting;
use crate::identity::Holder;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::identity::found;
use crate::identity::gunicorn::Quiet;
use crate::identity::life::Life;

impl Model {
    pub(super) fn cast(&mut self, pid: u32, role: Role, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.role = Some(role);
        if process.quiet == Some(Quiet::NoTarget) {
            return;
        }
        let parent = process.parent.map(|parent| parent.pid);
        changes.push(Change::Role(Casting { process: process.key, role: Some(role), parent }));
    }

    pub(super) fn adopt(
        &mut self,
        holder: &Holder,
        role: Role,
        parent: Option<ProcessKey>,
        changes: &mut Vec<Change>,
    ) {
        let key = holder.facts.key;
        let pid = key.pid;
        // What the probes saw goes first: a worker forked while the scan ran holds a slot that its arbiter did not
        // when the scan came to that, and looks like one until it sets its signal handlers.
        if self.processes.get(&pid).is_none_or(|known| known.key != key) {
            self.leave(pid, None, false, changes);
            let mut life = Life { found: Some(self.now), ..Life::default() };
            // An orphan may be an app child of a worker that is gone: only one that beats is an instance.
            let waits = holder.booting || role == Role::Orphan;
            life.ready = (role.is_arbiter() || !waits).then_some(self.now);
            if let Some(beat) = holder.beat.filter(|_| !holder.booting) {
                life.pulse.beat(beat);
            }
            let orphaned = role == Role::Orphan;
            self.enter(Process { parent, life, orphaned, ..Process::new(key) });
        } else if self.processes.get(&pid).is_some_and(|known| known.facts.is_some() || known.role.is_none())
        {
            return;
        }
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.inner_pid = holder.facts.inner_pid;
        process.facts = Some(Arc::new(holder.facts.clone()));
        process.arbiter.told(&holder.facts);
        process.arbiter.served |= process.life.found.is_some();
        match process.role {
            Some(_) => self.tell_apart(pid, changes),
            None => self.cast(pid, role, changes),
        }
        let role = self.processes.get(&pid).and_then(|process| process.role).unwrap_or(role);
        changes.push(Change::Watch(key, role));
        if role.is_arbiter() {
            self.admit(pid, changes);
        } else if let Some(quiet) = parent.and_then(|parent| self.process(parent)?.quiet) {
            self.hush(pid, quiet, None, changes);
        }
        self.announce_family(pid, changes);
    }

    /// The first facts of an arbiter whose fork nobody saw tell what kind it is. A dirty arbiter may make its first
    /// slot before its master does.
    pub(super) fn tell_apart(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (Some(Role::Master), None, Some(facts)) = (process.role, process.parent, &process.facts) else {
            return;
        };
        let master = |process: &&Process| matches!(process.role, Some(Role::Master | Role::UpgradeMaster));
        let above = self.processes.get(&facts.parent).filter(master);
        let role = match above {
            _ if found::is_dirty(facts) => Role::DirtyArbiter,
            Some(old) if found::is_upgrade(facts, old.inner_pid) => Role::UpgradeMaster,
            _ => Role::Master, // who starts it without USR2, as a hook may, is not above it
        };
        let parent = above.map(|above| above.key).filter(|_| role != Role::Master);
        let key = process.key;
        self.below(pid, parent, role, changes);
        let is_its = |process: &&Process| {
            let parent = process.facts.as_ref().map(|facts| facts.parent);
            process.role == Some(Role::DirtyArbiter) && process.parent.is_none() && parent == Some(pid)
        };
        let dirty: Vec<u32> = self.processes.values().filter(is_its).map(|process| process.key.pid).collect();
        for dirty in dirty {
            self.below(dirty, Some(key), Role::DirtyArbiter, changes);
        }
    }

    fn below(&mut self, pid: u32, parent: Option<ProcessKey>, role: Role, changes: &mut Vec<Change>) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.parent = parent;
            self.cast(pid, role, changes);
        }
    }

    /// Only workers beat: one that was forked without a slot, while the child that got the slot never beat, is the
    /// worker, and that child was a hook's.
    pub(super) fn swap(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let other = self.processes.get(&pid).filter(|process| process.role.is_none());
        let Some(other) = other.and_then(|process| process.instead_of) else { return };
        match self.processes.get_mut(&other) {
            Some(hooks) if hooks.life.ready.is_some() => return,
            Some(_) => self.uncast(other, changes),
            None => {} // it ended, and was nobody
        }
        let parent = self.processes.get(&pid).and_then(|process| process.parent);
        let Some(arbiter) = parent.and_then(|parent| self.processes.get(&parent.pid)) else { return };
        let dirty = arbiter.role == Some(Role::DirtyArbiter);
        self.cast(pid, if dirty { Role::DirtyWorker } else { Role::Worker }, changes);
    }
}
