//! Who is an instance, and under which name: once it is at work, once its master is known, and if it is a target.
use std::sync::Arc;

use super::Change;
use super::Model;
use super::Quiet;
use crate::clock::KernelTime;
use crate::identity::Casting;
use crate::identity::Facts;
use crate::identity::Instance;
use crate::identity::Pace;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::identity::naming;

impl Model {
    /// Decides whether a master is reported, now that its facts are there. A dirty arbiter is as its master.
    pub(super) fn admit(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let is_master = matches!(process.role, Some(Role::Master | Role::UpgradeMaster));
        let Some(facts) = process.facts.as_ref().filter(|_| is_master) else { return };
        match naming::watched(&self.given, facts) {
            None => self.hush(pid, Quiet::NoTarget, None, changes),
            Some(service) if !self.given.beside_agent => {
                if let Some(sign) = naming::agent_inside(facts) {
                    self.hush(pid, Quiet::Aside, Some((sign, service.into())), changes);
                }
            }
            Some(_) => {}
        }
    }

    /// Stops reporting a process and those it forked.
    pub(super) fn hush(
        &mut self,
        pid: u32,
        quiet: Quiet,
        agent: Option<(&'static str, Arc<str>)>,
        changes: &mut Vec<Change>,
    ) {
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.quiet.is_none()) else {
            return;
        };
        process.quiet = Some(quiet);
        let (key, known) = (process.key, process.role.is_some());
        changes.push(Change::Disregard(key, agent));
        if known && quiet == Quiet::NoTarget {
            changes.push(Change::Role(Casting { process: key, role: None, parent: None }));
        }
        for child in self.children(key) {
            self.hush(child, quiet, None, changes);
        }
    }

    /// A worker serves: it beat, or a request of it was seen.
    pub(super) fn serves(&mut self, at: KernelTime, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.life.ready.get_or_insert(at);
        if process.instance.is_none() {
            self.announce(pid, changes);
        }
    }

    /// Announces a process and those that could not be named without it.
    pub(super) fn announce_family(&mut self, pid: u32, changes: &mut Vec<Change>) {
        self.announce(pid, changes);
        let Some(key) = self.processes.get(&pid).map(|process| process.key) else { return };
        for child in self.children(key) {
            self.announce_family(child, changes);
        }
    }

    fn children(&self, key: ProcessKey) -> Vec<u32> {
        let children = self.processes.values().filter(|process| process.parent == Some(key));
        children.map(|child| child.key.pid).collect()
    }

    /// Announces a process once it is at work and can be named.
    fn announce(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let Some(role) = process.role else { return };
        let at_work = role.is_arbiter() || process.life.ready.is_some();
        let aside = process.quiet == Some(Quiet::Aside) && role == Role::Master;
        let quiet = process.quiet.is_some() && !aside;
        if !at_work || role == Role::AppChild || quiet || process.instance.is_some() {
            return;
        }
        let Some((master, name)) = self.named(process.key, role) else { return };
        let Some(service) = naming::watched(&self.given, &master) else { return };
        let taken = self.processes.values().filter_map(|process| process.instance.as_ref());
        let is_taken = taken.into_iter().any(|other| *other.service == service && *other.name == name);
        // What stands below one that was named apart is named apart too: they stay together.
        let above = process.parent.and_then(|parent| self.process(parent)).is_some_and(|above| above.is_twin);
        let is_twin = is_taken || above;
        let name = if is_twin { naming::distinct(&name, &master) } else { name };
        let mut properties = naming::properties(&self.given, &master, process.inner_pid);
        if let Some(sign) = naming::agent_inside(&master).filter(|_| aside) {
            let what = format!("stands aside for the SkyWalking agent inside ({sign})");
            properties.push(("sw_observe".to_owned(), what));
        }
        let (service, name, pace) = (service.into(), name.into(), Pace::of(&master));
        let instance = Instance { process: process.key, role, service, name, properties, pace };
        changes.push(Change::Hello(instance.clone()));
        if let Some(process) = self.processes.get_mut(&pid) {
            process.instance = Some(instance);
            process.is_twin = is_twin;
        }
        self.tell_start(pid, changes);
        self.wonder(self.now, pid, changes);
    }

    /// The master that names a process, and the process's own name.
    fn named(&self, key: ProcessKey, role: Role) -> Option<(Arc<Facts>, String)> {
        let process = self.process(key)?;
        let (given, inner) = (&self.given, process.inner_pid);
        let facts = |key: ProcessKey| self.process(key)?.facts.clone();
        Some(match role {
            Role::Master | Role::UpgradeMaster => {
                let own = process.facts.clone()?;
                let name = naming::master(given, &own);
                (own, name)
            }
            Role::Worker | Role::DirtyArbiter => {
                let master = facts(process.parent?)?;
                let name = naming::worker(given, &master, inner);
                (master, name)
            }
            Role::DirtyWorker => {
                let arbiter = self.process(process.parent?)?;
                let master = facts(arbiter.parent?)?;
                let name = naming::dirty_worker(given, &master, arbiter.inner_pid, inner);
                (master, name)
            }
            Role::Orphan => {
                let known = process.facts.clone()?;
                // Of an arbiter that was seen, these are the arbiter's.
                let own = known.key == key;
                let name = if own {
                    naming::orphan(given, &known, inner)
                } else {
                    naming::worker(given, &known, inner)
                };
                (known, name)
            }
            Role::AppChild => return None,
        })
    }
}
