//! Hooks that fork between an arbiter's slot and its worker: their children are no workers.
use super::*;

/// Master 10 serves; a hook of it has forked 20, which got the slot.
fn hooked() -> World {
    let mut world = World::serving();
    world.booting(10, 20);
    world
}

#[test]
fn a_hooks_child_that_ends_is_nobody() {
    for code in [0, 1, 3] {
        let mut world = hooked();
        world.exit(20, code);
        world.fork(10, 21, false);
        world.ms += 200;
        world.beat(21);
        world.wait(60_000);
        assert_eq!((world.role(20), world.role(21)), (None, Some(Role::Worker)), "exit {code}");
        assert_eq!(world.cause(20), "none", "exit {code}");
        assert!(world.events(EventName::CrashLoop).is_empty());
        world.signal(STRANGER, 10, signal::TERM);
        world.signal(10, 21, signal::TERM);
        world.exit(21, 0);
        world.exit(10, 0);
        assert_eq!([21, 10].map(|pid| world.cause(pid)), ["shutdown", "shutdown"], "exit {code}");
    }
}

#[test]
fn a_hooks_child_that_execs_is_nobody() {
    let mut world = hooked();
    world.exec(20);
    assert_eq!(world.role(20), None);
    world.exit(20, 0);
    world.fork(10, 21, false);
    world.beat(21);
    world.wait(60_000);
    assert_eq!((world.role(21), world.cause(20)), (Some(Role::Worker), "none".to_owned()));
}

#[test]
fn a_worker_that_did_not_boot_is_told_when_its_master_goes_on() {
    let mut world = hooked();
    world.exit(20, 1);
    assert_eq!(world.cause(20), "none");
    world.booting(10, 21);
    assert_eq!(world.cause(20), "boot-failure");
    world.exit(21, 1);
    world.wait(500);
    assert_eq!(world.cause(21), "none");
    world.wait(600);
    assert_eq!(world.cause(21), "boot-failure");
    world.booting(10, 22);
    world.exit(22, 3);
    world.exit(10, 1);
    assert_eq!([22, 10].map(|pid| world.cause(pid)), ["boot-failure", "boot-failure"]);
}

#[test]
fn a_held_end_gives_way_to_another_process_of_its_number() {
    let mut world = hooked();
    world.exit(20, 1);
    let again = ProcessKey { pid: 20, start: 2 };
    let fork = Fork { parent: key(11), child: again, inner: 20, slot: false, disregarded: false };
    world.model.forked(world.at(), fork, &mut world.changes);
    assert_eq!((world.cause(20), world.role(20)), ("boot-failure".to_owned(), Some(Role::AppChild)));
}
