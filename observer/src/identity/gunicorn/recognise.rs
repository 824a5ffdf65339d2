//! Which framework the workers of an arbiter run: asked for when one is at work, kept for all of them.
use std::sync::Arc;

use super::Change;
use super::Model;
use super::Process;
use crate::clock::KernelTime;
use crate::identity::Facts;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::identity::framework::Framework;
use crate::identity::framework::Imports;
use crate::identity::naming;

impl Model {
    /// Asks what a worker has imported, if that is not known and was not asked a moment ago.
    pub fn wonder(&mut self, at: KernelTime, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.server(pid).and_then(|pid| self.processes.get(&pid)) else { return };
        let is_server = matches!(process.role, Some(Role::Worker | Role::Orphan));
        let Some(keeper) = self.keeper(process).filter(|_| is_server && process.quiet.is_none()) else {
            return;
        };
        let (worker, keeper, forked) = (process.key, keeper.key.pid, process.life.forked);
        let Some(keeper) = self.processes.get_mut(&keeper) else { return };
        let Some(facts) = &keeper.facts else { return };
        if !keeper.recognition.due(at, worker, keeper.arbiter.reloaded(), forked) {
            return;
        }
        match naming::chosen_framework(&self.given, facts) {
            Some(framework) => keeper.recognition.choose(framework),
            None => changes.push(Change::AskImports(worker, naming::application(facts))),
        }
    }

    /// What a worker has imported; nothing when that could not be read.
    pub fn recognised(&mut self, worker: ProcessKey, imports: Option<&Imports>) {
        let Some(keeper) = self.process(worker).and_then(|process| self.keeper(process)) else { return };
        let pid = keeper.key.pid;
        let Some(keeper) = self.processes.get_mut(&pid) else { return };
        match imports {
            Some(imports) => keeper.recognition.learn(Framework::of(imports)),
            None => keeper.recognition.miss(),
        }
    }

    /// The framework of a process that serves, as somebody chose it or it was recognised, and the facts of its master.
    pub fn background(&self, pid: u32) -> (Framework, Arc<Facts>) {
        let process = self.server(pid).and_then(|pid| self.processes.get(&pid));
        let keeper = process.and_then(|process| self.keeper(process));
        let framework = keeper.and_then(|keeper| keeper.recognition.framework());
        let facts = keeper.and_then(|keeper| keeper.facts.clone());
        (framework.unwrap_or(Framework::Python), facts.unwrap_or_default())
    }

    /// The facts of the master of a process that serves.
    pub fn master(&self, pid: u32) -> Option<&Facts> {
        let process = self.server(pid).and_then(|pid| self.processes.get(&pid))?;
        self.keeper(process)?.facts.as_deref()
    }

    /// Who keeps what is known of a worker: its arbiter, whose workers all run the same; an orphan itself.
    fn keeper<'a>(&'a self, process: &'a Process) -> Option<&'a Process> {
        match process.role {
            Some(Role::Worker | Role::DirtyWorker) => self.process(process.parent?),
            _ => Some(process),
        }
    }
}
