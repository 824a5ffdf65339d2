//! Who they are.
use super::*;

fn holder(pid: u32, parent: u32, slots: &[u64], caught: u64) -> Holder {
    let slots = slots.iter().map(|ino| (1, *ino)).collect();
    Holder { facts: Facts { caught, ..facts(pid, parent) }, slots, booting: false, beat: None }
}

const MASTER: u64 = found::MASTER;
/// USR2 is signal 12.
const DIRTY: u64 = MASTER & !(1 << 11);
/// ABRT, TERM and others.
const WORKER: u64 = 0x0830_4226;

#[test]
fn master_workers_app_children_and_others() {
    let mut world = World::serving();
    world.fork(11, 20, false);
    world.fork(20, 21, false);
    world.fork(10, 30, false);
    assert_eq!(
        [10, 11, 20, 21].map(|pid| world.role(pid)),
        [Some(Role::Master), Some(Role::Worker), Some(Role::AppChild), Some(Role::AppChild)]
    );
    assert_eq!(world.role(30), None);
    let name =
        world.model.instance(world.at(), 21, &mut world.changes).map(|instance| instance.name.to_string());
    assert_eq!(name.as_deref(), Some("web-master(10)-child(11)"));
    world.exec(20);
    assert_eq!(world.role(20), None);
}

#[test]
fn an_app_child_whose_worker_died_stays_one() {
    let mut world = World::serving();
    world.fork(11, 20, false);
    world.signal(STRANGER, 11, signal::KILL);
    world.end(11, 9, false);
    assert_eq!(world.role(20), Some(Role::AppChild));
    assert!(world.model.instance(world.at(), 20, &mut world.changes).is_none());
}

#[test]
fn an_upgrade_is_promoted_or_rolled_back_or_fails() {
    let upgrade = || {
        let mut world = World::serving();
        world.signal(STRANGER, 10, signal::USR2);
        world.fork(10, 40, false);
        world.exec(40);
        world
    };
    let outcome = |world: &World| {
        let last = world.events(EventName::Upgrade).pop().cloned().unwrap();
        (value(&last, "outcome").map(str::to_owned), last.end_ms.is_some(), last.instance.to_string())
    };
    let told = |outcome: &str| (Some(outcome.to_owned()), true, "web-master(10)".to_owned());

    let mut world = upgrade();
    world.master(40);
    world.worker(40, 41);
    assert_eq!((world.role(40), world.role(41)), (Some(Role::UpgradeMaster), Some(Role::Worker)));
    world.signal(STRANGER, 10, signal::TERM);
    for worker in [11, 12] {
        world.signal(10, worker, signal::TERM);
        world.exit(worker, 0);
    }
    world.exit(10, 0);
    assert_eq!((world.role(40), outcome(&world)), (Some(Role::Master), told("promoted")));
    assert_eq!(world.names(), ["web-master(40)", "web-master(40)-child(41)"]);

    let mut world = upgrade();
    world.master(40);
    world.worker(40, 41);
    world.signal(STRANGER, 40, signal::TERM);
    world.exit(41, 0);
    world.exit(40, 0);
    assert_eq!(outcome(&world), told("rolled-back"));
    assert_eq!(world.names().len(), 3);

    let mut world = upgrade();
    world.exit(40, 1);
    assert_eq!(outcome(&world), told("failed"));

    let mut world = World::serving();
    world.signal(STRANGER, 10, signal::USR2);
    world.wait(4_000);
    assert!(!outcome(&world).1);
    world.wait(2_000);
    assert_eq!(outcome(&world), told("ignored"));
}

#[test]
fn dirty_arbiters_and_workers() {
    let mut world = World::new();
    world.master(10);
    world.fork(10, 50, false);
    world.model.slotted(world.at(), key(50), &mut world.changes);
    world.model.learned(facts(50, 10), &mut world.changes);
    world.worker(50, 51);
    world.worker(10, 11);
    assert_eq!(
        [50, 51, 11].map(|pid| world.role(pid)),
        [Some(Role::DirtyArbiter), Some(Role::DirtyWorker), Some(Role::Worker)]
    );
    let names = [
        "web-master(10)",
        "web-master(10)-child(11)",
        "web-master(10)-child(50)",
        "web-master(10)-child(50)-child(51)",
    ];
    assert_eq!(world.names(), names);
    world.signal(STRANGER, 50, signal::KILL);
    world.end(50, 9, false);
    assert_eq!(world.role(51), Some(Role::Orphan));
}

#[test]
fn a_hook_that_forks_between_slot_and_worker() {
    let mut world = World::new();
    world.master(10);
    world.booting(10, 60); // the hook's child, taken for the worker
    world.fork(10, 11, false);
    assert!(world.beat(11));
    assert_eq!((world.role(60), world.role(11)), (None, Some(Role::Worker)));
    assert_eq!(world.names(), ["web-master(10)", "web-master(10)-child(11)"]);
    world.exit(60, 0);
    assert_eq!(world.cause(60), "none");
    for pid in (100..120).step_by(2) {
        world.booting(10, pid);
        world.exit(pid, 0); // the hook's child is gone before the worker is forked
        world.fork(10, pid + 1, false);
        assert!(world.beat(pid + 1));
        assert_eq!((world.role(pid + 1), world.cause(pid)), (Some(Role::Worker), "none".to_owned()));
    }
    assert_eq!(world.events(EventName::CrashLoop).len(), 0);
}

#[test]
fn workers_outlive_a_killed_master_under_their_names() {
    let mut world = World::serving();
    world.booting(10, 13);
    world.signal(STRANGER, 10, signal::KILL);
    world.end(10, 9, false);
    assert_eq!([11, 12, 13].map(|pid| world.role(pid)), [Some(Role::Orphan); 3]);
    world.beat(13);
    assert_eq!(world.names().last().map(String::as_str), Some("web-master(10)-child(13)"));
    world.exit(11, 0);
    assert_eq!((world.cause(10), world.cause(11)), ("killed".to_owned(), "orphaned".to_owned()));
}

fn upgraded(mut holder: Holder, old: u32) -> Holder {
    holder.facts.environ.push(("GUNICORN_PID".to_owned(), old.to_string()));
    holder
}

/// It was started by a hook of 10, and is a gunicorn of its own: `-n other`.
#[test]
fn a_gunicorn_that_a_hook_starts_is_a_master() {
    let mut world = World::serving();
    world.fork(10, 40, false);
    world.exec(40);
    world.model.slotted(world.at(), key(40), &mut world.changes);
    assert_eq!(world.role(40), None); // until its facts say which
    world.model.learned(facts(40, 10), &mut world.changes);
    world.worker(40, 41);
    assert_eq!((world.role(40), world.role(41)), (Some(Role::Master), Some(Role::Worker)));
    world.exit(10, 0);
    assert_eq!(world.role(40), Some(Role::Master));

    // The probes came after the USR2.
    let mut world = World::serving();
    world.model.slotted(world.at(), key(40), &mut world.changes);
    world.model.learned(upgraded(holder(40, 10, &[], 0), 10).facts, &mut world.changes);
    assert_eq!(world.role(40), Some(Role::UpgradeMaster));

    // Both late; 60 inherited the variable from a master that was promoted since.
    let mut world = World::new();
    let titled = |pid, title: &str| {
        let mut holder = holder(pid, 10, &[u64::from(pid)], MASTER);
        holder.facts.parent_title = Some("gunicorn: master [shop]".to_owned());
        holder.facts.title = Some(format!("gunicorn: master [{title}]"));
        holder
    };
    world.found(&[
        holder(10, 1, &[1], MASTER),
        holder(11, 10, &[1], WORKER),
        holder(40, 10, &[7], MASTER),
        holder(41, 40, &[7], WORKER),
        upgraded(holder(60, 10, &[8], MASTER), 9),
        holder(61, 60, &[8], WORKER),
        titled(70, "shop"),
        holder(71, 70, &[70], WORKER),
        titled(80, "shop.2"),
        holder(81, 80, &[80], WORKER),
    ]);
    let masters = [10, 40, 60, 70, 80].map(|pid| world.role(pid).map(Role::name));
    let expected = ["master", "master", "master", "master", "upgrade-master"];
    assert_eq!(masters, expected.map(Some));
    world.exit(10, 0);
    assert_eq!(world.role(41), Some(Role::Worker));
}

#[test]
fn everybody_is_found_late() {
    let mut world = World::new();
    let holders = [
        holder(11, 10, &[1], WORKER),
        holder(20, 11, &[1], WORKER), // an app child
        holder(21, 20, &[1], WORKER),
        holder(10, 1, &[1, 2], MASTER),
        holder(12, 10, &[2], WORKER),
        holder(13, 10, &[1, 2], MASTER), // between fork and exec of an upgrade
        upgraded(holder(40, 10, &[7], MASTER), 10),
        holder(41, 40, &[7], WORKER),
        holder(50, 10, &[1, 2, 8, 9], DIRTY),
        holder(51, 50, &[8, 9], WORKER | MASTER & (1 << 16)),
        holder(60, 1, &[30], WORKER), // its arbiter is gone
        holder(70, 1, &[], MASTER),   // without workers
        holder(80, 79, &[31], DIRTY), // its master is gone
    ];
    world.found(&holders);
    let expected = [
        (10, Some(Role::Master)),
        (11, Some(Role::Worker)),
        (12, Some(Role::Worker)),
        (13, None),
        (20, Some(Role::AppChild)),
        (21, Some(Role::AppChild)),
        (40, Some(Role::UpgradeMaster)),
        (41, Some(Role::Worker)),
        (50, Some(Role::DirtyArbiter)),
        (51, Some(Role::DirtyWorker)),
        (60, Some(Role::Orphan)),
        (70, Some(Role::Master)),
        (80, Some(Role::Orphan)),
    ];
    for (pid, role) in expected {
        assert_eq!(world.role(pid), role, "{pid}");
    }
    assert!(!world.names().contains(&"web-child(60)".to_owned())); // it may be a dead worker's app child
    world.beat(60);
    assert!(world.names().contains(&"web-child(60)".to_owned()), "{:?}", world.names());
    assert_eq!(world.events(EventName::Start).len(), 0);
}

#[test]
fn a_worker_forked_during_the_scan_is_no_master() {
    let mut world = World::new();
    world.model.slotted(world.at(), key(10), &mut world.changes);
    world.fork(10, 12, true);
    // The scan came to the master before the second slot, to its worker before that one's signal handlers.
    world.found(&[
        holder(10, 1, &[1], MASTER),
        holder(11, 10, &[1], WORKER),
        holder(12, 10, &[1, 2], MASTER),
    ]);
    assert!(world.changes.contains(&Change::Watch(key(12), Role::Worker)), "{:?}", world.changes);
    assert_eq!(world.names(), ["web-master(10)", "web-master(10)-child(11)"]);
    assert!(world.beat(12));
    assert_eq!(world.names().last().map(String::as_str), Some("web-master(10)-child(12)"));
}

#[test]
fn an_instance_that_is_missing_twice_has_ended() {
    let mut world = World::serving();
    world.worker(10, 13);
    world.exit(12, 0);
    let (both, one) = (BTreeSet::from([10, 11, 13].map(key)), BTreeSet::from([10, 11].map(key)));
    // Each time all was read up to shortly before; the last but one time the reader is behind.
    for (at, living, read) in [(10, &one, 9), (20, &both, 19), (30, &one, 29), (40, &one, 30)] {
        world.model.alive(KernelTime(at), &both, living, KernelTime(read), &mut world.changes);
        // Of whom nobody asked nothing is known.
        world.model.alive(KernelTime(at), &one, &one, KernelTime(read), &mut world.changes);
        assert_eq!(world.names().len(), 3, "{at}");
    }
    world.model.alive(KernelTime(50), &both, &one, KernelTime(49), &mut world.changes);
    assert_eq!(world.names(), ["web-master(10)", "web-master(10)-child(11)"]);
    assert_eq!(world.cause(13), "unknown");
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let mut world = World::serving();
    let again = ProcessKey { pid: 11, start: 2 };
    let fork = Fork { parent: key(10), child: again, inner: 11, slot: true, disregarded: false };
    world.model.slotted(world.at(), key(10), &mut world.changes);
    world.model.forked(world.at(), fork, &mut world.changes);
    assert_eq!(world.cause(11), "unknown"); // the first one's end went by unseen
    world.model.signalled(
        key(11),
        Signal { at: world.at(), number: signal::KILL, code: 0, sender: STRANGER, comm: String::new() },
        &mut world.changes,
    );
    world.beat(11);
    world.wait(60_000);
    world.exit(11, 0);
    assert_eq!(world.cause(11), "recycle"); // the signal was for the first one
}

/// Two containers with one host name: what stands below the second master is named after the second master.
#[test]
fn workers_of_a_twin_are_named_as_it_is() {
    let mut world = World::new();
    world.master(10);
    world.worker(10, 11);
    world.model.slotted(world.at(), key(20), &mut world.changes);
    let twin = Facts { inner_pid: 10, pidns: 2, ..facts(20, 1) };
    world.model.learned(twin, &mut world.changes);
    world.worker(20, 21);
    let names = world.names();
    let apart: Vec<&str> = names.iter().filter(|name| name.contains('~')).map(String::as_str).collect();
    let [master, worker] = apart[..] else { panic!("two of {names:?} are named apart") };
    assert!(worker.starts_with(master) && worker.ends_with("-child(21)"), "{names:?}");
    assert!(names.contains(&"web-master(10)-child(11)".to_owned()), "{names:?}");
}

/// Both are forked before anybody looks, and slots are made in any order.
#[test]
fn a_dirty_arbiter_is_none_whoever_is_first() {
    for dirty_first in [true, false] {
        let mut world = World::new();
        let caught = MASTER & !(1 << 11);
        let dirty = |world: &mut World| {
            world.model.slotted(world.at(), key(11), &mut world.changes);
            world.model.learned(Facts { caught, ..facts(11, 10) }, &mut world.changes);
        };
        if dirty_first {
            dirty(&mut world);
            world.worker(11, 12);
        }
        world.model.slotted(world.at(), key(10), &mut world.changes);
        world.model.learned(Facts { caught: MASTER, ..facts(10, 1) }, &mut world.changes);
        if !dirty_first {
            dirty(&mut world);
            world.worker(11, 12);
        }
        world.worker(10, 13);
        let role = |change: &Change| if let Change::Role(casting) = change { Some(*casting) } else { None };
        let all = world.changes.iter().filter_map(role).filter(|casting| casting.process.pid == 11);
        let roles: BTreeSet<_> = all.map(|casting| casting.role.map(Role::name)).collect();
        assert_eq!(roles, BTreeSet::from([Some("dirty-arbiter")]));
        assert_eq!([12, 13].map(|pid| world.role(pid)), [Some(Role::DirtyWorker), Some(Role::Worker)]);
        let mut names = world.names();
        names.sort();
        let expected = ["", "-child(11)", "-child(11)-child(12)", "-child(13)"];
        assert_eq!(names, expected.map(|tail| format!("web-master(10){tail}")));
    }
}

/// The probes were told of its parent too late for the one that had been forked before.
#[test]
fn what_a_gunicorn_that_is_no_target_had_forked_is_disregarded_too() {
    let mut world = World::new();
    let spec = ["gunicorn:service=nobody".to_owned()];
    world.model.given.targets = crate::identity::target::Targets::parse(&spec, &[]).unwrap();
    world.master(10);
    let mut forked = |pid, disregarded| {
        let fork = Fork { parent: key(10), child: key(pid), inner: pid, slot: true, disregarded };
        world.changes.clear();
        world.model.forked(world.at(), fork, &mut world.changes);
        world.changes.iter().any(|change| matches!(change, Change::Disregard(..)))
    };
    assert!(forked(11, false));
    assert!(!forked(12, true)); // the probes pass it by already
}
