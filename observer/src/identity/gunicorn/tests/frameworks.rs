//! When a worker's interpreter is looked at, and whose the answer is.
use super::*;
use crate::identity::framework::Framework;
use crate::identity::framework::Imports;

impl World {
    fn asked(&mut self) -> Vec<u32> {
        let asked = |change: Change| {
            let Change::AskImports(process, application) = change else { return None };
            assert_eq!(application, Application::typed("app:app"));
            Some(process.pid)
        };
        self.changes.drain(..).filter_map(asked).collect()
    }

    fn begins(&mut self, pid: u32) {
        self.model.wonder(self.at(), pid, &mut self.changes);
    }

    fn imports(&mut self, pid: u32, module: &str) {
        let imports = Imports { modules: vec![module.to_owned()], application: None };
        self.model.recognised(key(pid), Some(&imports));
    }
}

#[test]
fn one_worker_tells_for_all_of_its_master() {
    let mut world = World::new();
    world.master(10);
    world.worker(10, 11);
    assert_eq!(world.asked(), [11]);
    world.imports(11, "flask.app");
    world.worker(10, 12);
    world.begins(12);
    assert!(world.asked().is_empty());
    let of = |pid: u32| world.model.background(pid).0;
    assert_eq!((of(11), of(12), of(STRANGER)), (Framework::Flask, Framework::Flask, Framework::Python));
}

#[test]
fn a_worker_that_serves_before_it_beats_is_asked_then() {
    let mut world = World::new();
    world.master(10);
    world.booting(10, 11);
    world.fork(11, 21, false);
    assert!(world.asked().is_empty());
    world.begins(21);
    assert_eq!(world.asked(), [11]);
    world.model.recognised(key(11), None);
    world.begins(11);
    assert!(world.asked().is_empty(), "a moment ago");
    world.wait(1_100);
    world.begins(11);
    assert_eq!(world.asked(), [11]);
    world.imports(11, "bottle");
    assert_eq!(world.model.background(21).0, Framework::Bottle);
}

#[test]
fn a_reload_looks_again_at_a_worker_that_is_new() {
    let mut world = World::new();
    world.master(10);
    world.worker(10, 11);
    world.imports(11, "flask.app");
    world.asked();
    world.signal(STRANGER, 10, signal::HUP);
    world.begins(11);
    assert!(world.asked().is_empty(), "it runs what it ran");
    world.worker(10, 12);
    assert_eq!(world.asked(), [12]);
    assert_eq!(world.model.background(12).0, Framework::Flask, "until it is known better");
    world.imports(12, "django.core.handlers.base");
    assert_eq!(world.model.background(12).0, Framework::Django);
}

#[test]
fn an_orphan_keeps_what_its_master_ran() {
    let mut world = World::serving();
    world.imports(11, "flask.app");
    world.end(10, 9, false);
    assert_eq!(world.model.background(11).0, Framework::Flask);
}

#[test]
fn what_a_target_says_is_not_looked_for() {
    let mut world = World::new();
    let spec = ["gunicorn:framework=sanic".to_owned()];
    world.model.given.targets = crate::identity::target::Targets::parse(&spec, &[]).unwrap();
    world.master(10);
    world.worker(10, 11);
    assert_eq!((world.asked(), world.model.background(11).0), (vec![], Framework::Sanic));
}
