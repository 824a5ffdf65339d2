//! Lives of gunicorns, told record by record, and what the model makes of them.
mod ends;
mod frameworks;
mod hooks;
mod late;
mod load;
mod roles;

use super::*;
use crate::identity::cause::signal;
use crate::identity::event::EventName;

const S: u64 = 1_000_000_000;
/// Who is not gunicorn's.
const STRANGER: u32 = 99;

/// A model and everything that it said.
struct World {
    model: Model,
    changes: Vec<Change>,
    /// Now, in milliseconds.
    ms: u64,
}

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

impl World {
    fn new() -> World {
        let model = Model::new(Given::default(), 30 * S, 1, WallOffset(0));
        World { model, changes: Vec::new(), ms: 1_000 }
    }

    /// A master with two workers that serve: 10, 11 and 12.
    fn serving() -> World {
        let mut world = World::new();
        world.master(10);
        world.worker(10, 11);
        world.worker(10, 12);
        world.wait(60_000);
        world
    }

    fn at(&self) -> KernelTime {
        KernelTime(self.ms * 1_000_000)
    }

    fn wait(&mut self, ms: u64) {
        self.ms += ms;
        self.model.tick(self.at(), WallOffset(0), &mut self.changes);
    }

    fn master(&mut self, pid: u32) {
        self.model.slotted(self.at(), key(pid), &mut self.changes);
        self.model.learned(facts(pid, 1), &mut self.changes);
    }

    /// A slot, its fork, and the first beat.
    fn worker(&mut self, parent: u32, pid: u32) {
        self.booting(parent, pid);
        self.ms += 200;
        self.beat(pid);
    }

    fn booting(&mut self, parent: u32, pid: u32) {
        self.model.slotted(self.at(), key(parent), &mut self.changes);
        self.fork(parent, pid, true);
    }

    fn fork(&mut self, parent: u32, pid: u32, slot: bool) {
        self.ms += 1;
        let fork = Fork { parent: key(parent), child: key(pid), inner: pid, slot, disregarded: false };
        self.model.forked(self.at(), fork, &mut self.changes);
    }

    fn beat(&mut self, pid: u32) -> bool {
        self.model.beat(self.at(), pid, &mut self.changes)
    }

    fn exec(&mut self, pid: u32) {
        self.model.execed(self.at(), pid, &mut self.changes);
    }

    fn signal(&mut self, sender: u32, target: u32, number: u32) {
        self.signal_code(sender, target, number, 0);
    }

    fn signal_code(&mut self, sender: u32, target: u32, number: u32, code: i32) {
        self.ms += 1;
        let sent = Signal { at: self.at(), number, code, sender, comm: "someone".to_owned() };
        self.model.signalled(key(target), sent, &mut self.changes);
    }

    fn exit(&mut self, pid: u32, code: u32) {
        self.end(pid, code << 8, false);
    }

    fn end(&mut self, pid: u32, status: u32, oom: bool) {
        self.ms += 1;
        self.model.exited(self.at(), pid, Status(status), oom, &mut self.changes);
    }

    fn found(&mut self, holders: &[Holder]) {
        self.model.found(self.at(), holders, &mut self.changes);
    }

    fn role(&self, pid: u32) -> Option<Role> {
        let casting =
            |change: &Change| if let Change::Role(casting) = change { Some(*casting) } else { None };
        let mut castings = self.changes.iter().rev().filter_map(casting);
        let last = castings.find(|casting| casting.process.pid == pid).map(|casting| casting.role);
        last.flatten()
    }

    fn names(&self) -> Vec<String> {
        self.model.instances().map(|instance| instance.name.to_string()).collect()
    }

    fn events(&self, name: EventName) -> Vec<&Event> {
        let events = self
            .changes
            .iter()
            .filter_map(|change| if let Change::Event(event) = change { Some(event) } else { None });
        let events = events.filter(|event| event.name == name);
        events.collect()
    }

    fn cause(&self, pid: u32) -> String {
        let ended = self.events(EventName::Exit).into_iter().rev().filter(|event| event.end_ms.is_some());
        let about = { ended }.find(|event| value(event, "pid") == Some(pid.to_string().as_str()));
        about.and_then(|event| value(event, "cause")).unwrap_or("none").to_owned()
    }
}

fn value<'a>(event: &'a Event, parameter: &str) -> Option<&'a str> {
    event.parameters.iter().find(|(key, _)| *key == parameter).map(|(_, value)| value.as_str())
}
