//! Why they died.
use super::*;

type Life = fn(&mut World);

/// What happens to worker 11 of master 10, and why it is said to have ended.
const ENDS: [(&str, Life, &str); 37] = [
    ("max-requests", |w| w.exit(11, 0), "recycle"),
    ("timeout, 22 and later", |w| (w.signal(10, 11, signal::ABRT), w.exit(11, 0)).1, "timeout"),
    ("timeout, up to 21", |w| (w.signal(10, 11, signal::ABRT), w.exit(11, 1)).1, "timeout"),
    ("timeout, uvicorn", |w| (w.signal(10, 11, signal::ABRT), w.end(11, 6, false)).1, "timeout"),
    (
        "timeout, stuck in C",
        |w| {
            w.signal(10, 11, signal::ABRT);
            w.signal(10, 11, signal::KILL);
            w.end(11, 9, false);
        },
        "timeout",
    ),
    ("abort of its own", |w| (w.signal_code(11, 11, signal::ABRT, -6), w.end(11, 6, false)).1, "crash"),
    ("fault", |w| (w.signal_code(11, 11, 11, 1), w.end(11, 139, false)).1, "crash"),
    ("fault that a stranger sent", |w| (w.signal(STRANGER, 11, 11), w.end(11, 139, false)).1, "killed"),
    ("kill -9", |w| (w.signal(STRANGER, 11, signal::KILL), w.end(11, 9, false)).1, "killed"),
    ("kill", |w| (w.signal(STRANGER, 11, signal::TERM), w.exit(11, 0)).1, "killed"),
    ("alarm by a stranger", |w| (w.signal(STRANGER, 11, 14), w.end(11, 14, false)).1, "killed"),
    ("alarm of its own", |w| w.end(11, 14, false), "crash"),
    ("a signal that nobody saw", |w| w.end(11, 30, false), "unknown"),
    (
        "kill -9 by its master, which asked nothing",
        |w| (w.signal(10, 11, 9), w.end(11, 9, false)).1,
        "killed",
    ),
    ("a stop of its own, uvicorn", |w| (w.signal_code(11, 11, 15, -6), w.end(11, 15, false)).1, "recycle"),
    ("a stop of its own", |w| (w.signal_code(11, 11, 15, 0), w.exit(11, 0)).1, "recycle"),
    ("abort by a stranger", |w| (w.signal(STRANGER, 11, signal::ABRT), w.exit(11, 0)).1, "killed"),
    ("abort by a stranger, up to 21", |w| (w.signal(STRANGER, 11, signal::ABRT), w.exit(11, 1)).1, "killed"),
    (
        "oom, with the master as sender",
        |w| (w.signal_code(10, 11, signal::KILL, 128), w.end(11, 9, true)).1,
        "oom",
    ),
    (
        "oom, with a stranger as sender",
        |w| (w.signal_code(STRANGER, 11, 9, 128), w.end(11, 9, true)).1,
        "oom",
    ),
    ("killed by the kernel", |w| (w.signal_code(STRANGER, 11, 9, 128), w.end(11, 9, false)).1, "killed"),
    (
        "reload",
        |w| {
            w.signal(STRANGER, 10, signal::HUP);
            w.worker(10, 13);
            w.signal(10, 11, signal::TERM);
            w.exit(11, 0);
        },
        "reload",
    ),
    (
        "reload, 20.1 to 23, which repeat TERM",
        |w| {
            w.signal(STRANGER, 10, signal::HUP);
            w.worker(10, 13);
            w.signal(10, 11, signal::TERM);
            w.signal(10, 11, signal::TERM);
            w.end(11, 15, false);
        },
        "reload",
    ),
    (
        "reload, uvicorn, which raises TERM again",
        |w| {
            w.signal(STRANGER, 10, signal::HUP);
            w.signal(10, 11, signal::TERM);
            w.signal_code(11, 11, signal::TERM, -6);
            w.end(11, 15, false);
        },
        "reload",
    ),
    (
        "one less",
        |w| (w.signal(STRANGER, 10, signal::TTOU), w.signal(10, 11, signal::TERM), w.exit(11, 0)).2,
        "scale-down",
    ),
    ("control socket", |w| (w.signal(10, 11, signal::TERM), w.exit(11, 0)).1, "asked"),
    (
        "one less, long after",
        |w| {
            w.signal(STRANGER, 10, signal::TTOU);
            w.wait(60_000);
            w.signal(10, 11, signal::TERM);
            w.exit(11, 0);
        },
        "asked",
    ),
    (
        "stop",
        |w| (w.signal(STRANGER, 10, signal::TERM), w.signal(10, 11, signal::TERM), w.exit(11, 0)).2,
        "shutdown",
    ),
    (
        "stop of the whole group",
        |w| {
            (w.signal(STRANGER, 11, signal::TERM), w.signal(STRANGER, 10, signal::TERM), w.end(11, 15, false))
                .2
        },
        "shutdown",
    ),
    (
        "stop that took too long",
        |w| {
            w.signal(STRANGER, 10, signal::TERM);
            w.signal(10, 11, signal::TERM);
            w.wait(2_000);
            w.signal(10, 11, signal::KILL);
            w.end(11, 9, false);
        },
        "graceful-timeout",
    ),
    ("exception", |w| w.exit(11, 255), "exception"),
    ("exit of the application", |w| w.exit(11, 7), "exit"),
    (
        "winch",
        |w| (w.signal(1, 10, signal::WINCH), w.signal(10, 11, signal::TERM), w.exit(11, 0)).2,
        "upgrade",
    ),
    (
        "one less, after the terminal was resized",
        |w| {
            w.signal(1, 10, signal::WINCH);
            w.signal(STRANGER, 10, signal::TTOU);
            w.signal(10, 11, signal::TERM);
            w.exit(11, 0);
        },
        "scale-down",
    ),
    (
        "control socket, long after the terminal was resized",
        |w| {
            w.signal(1, 10, signal::WINCH);
            w.wait(60_000);
            w.signal(10, 11, signal::TERM);
            w.exit(11, 0);
        },
        "asked",
    ),
    (
        "kill, and a reload while it drains",
        |w| {
            w.signal(STRANGER, 11, signal::TERM);
            w.signal(STRANGER, 10, signal::HUP);
            w.signal(10, 11, signal::TERM);
            w.exit(11, 0);
        },
        "killed",
    ),
    ("kill -9 of its own", |w| (w.signal_code(11, 11, signal::KILL, 0), w.end(11, 9, false)).1, "crash"),
];

#[test]
fn causes() {
    for (name, life, cause) in ENDS {
        let mut world = World::serving();
        life(&mut world);
        assert_eq!(world.cause(11), cause, "{name}");
        assert_eq!(world.role(11), None, "{name}");
    }
}

#[test]
fn a_container_that_is_torn_down() {
    let mut world = World::new();
    world.master(10);
    world.booting(10, 12);
    let fork = Fork { parent: key(10), child: key(11), inner: 3, slot: true, disregarded: false };
    world.model.forked(world.at(), fork, &mut world.changes);
    world.beat(11);
    world.signal(STRANGER, 10, signal::KILL);
    world.end(10, 9, false);
    world.signal_code(10, 11, signal::KILL, 128);
    world.end(11, 9, false);
    assert_eq!((world.cause(10), world.cause(11)), ("killed".to_owned(), "container".to_owned()));
}

#[test]
fn a_worker_that_cannot_boot_takes_the_rest_with_it() {
    let mut world = World::serving();
    world.signal(STRANGER, 10, signal::HUP);
    world.booting(10, 13);
    world.exit(13, 3);
    for worker in [11, 12] {
        world.signal(10, worker, signal::TERM);
        world.end(worker, 15, false);
    }
    world.exit(10, 1);
    let causes = [13, 11, 12, 10].map(|pid| world.cause(pid));
    assert_eq!(causes, ["boot-failure"; 4]);
    assert_eq!(world.names(), Vec::<String>::new());
    let reload = world.events(EventName::Reload);
    assert_eq!(reload.last().and_then(|event| value(event, "outcome")), Some("boot-failure"));
    assert!(reload.iter().all(|event| event.uuid == reload[0].uuid));
}

#[test]
fn a_crash_loop_is_one_fact() {
    let mut world = World::new();
    world.master(10);
    for pid in 100..160 {
        world.booting(10, pid);
        world.end(pid, 11, false);
    }
    world.wait(11_000);
    assert_eq!(world.names(), ["web-master(10)"]);
    let loops = world.events(EventName::CrashLoop);
    assert!(loops.len() <= 3 && loops.iter().all(|event| event.uuid == loops[0].uuid && event.error));
    let last = loops.last().unwrap();
    assert_eq!((value(last, "deaths"), value(last, "last_cause")), (Some("60"), Some("crash")));
    assert!(world.events(EventName::Exit).len() < 6);
    world.worker(10, 200);
    world.wait(40_000);
    assert!(world.events(EventName::CrashLoop).last().is_some_and(|event| event.end_ms.is_some()));
    let said = world.events(EventName::CrashLoop).len();
    world.wait(40_000);
    assert_eq!(world.events(EventName::CrashLoop).len(), said);
}

#[test]
fn recycling_is_no_crash_loop() {
    let mut world = World::new();
    world.master(10);
    for pid in 100..160 {
        world.worker(10, pid);
        world.exit(pid, 0);
    }
    assert_eq!(world.events(EventName::CrashLoop).len(), 0);
    assert_eq!(world.events(EventName::Exit).len(), 60);
}

#[test]
fn stuck_at_import_and_stuck_at_work() {
    let mut world = World::serving();
    world.booting(10, 13);
    world.wait(31_000);
    let stuck = world.events(EventName::Stuck);
    let about = |event: &Event| (event.instance.to_string(), value(event, "cause").map(str::to_owned));
    let booting = stuck.iter().find(|event| value(event, "pid") == Some("13")).map(|event| about(event));
    assert_eq!(booting, Some(("web-master(10)".to_owned(), Some("booting".to_owned()))));
    world.beat(13);
    world.wait(22_000);
    let stuck = world.events(EventName::Stuck);
    let at_work = stuck.iter().filter(|event| value(event, "cause") == Some("heartbeat"));
    assert_eq!(at_work.count(), 3); // nobody beats in this world
    world.beat(13);
    let last = world.events(EventName::Stuck).pop().cloned().unwrap();
    assert_eq!((last.instance.as_ref(), last.end_ms.is_some()), ("web-master(10)-child(13)", true));
}

/// A worker may beat between the look at its slot and the first record of it.
#[test]
fn silence_counts_from_when_it_was_watched() {
    let mut world = World::new();
    world.ms = 100_000;
    let slots = vec![(1, 1)];
    let master = Holder {
        facts: Facts { caught: found::MASTER, ..facts(10, 1) },
        slots: slots.clone(),
        booting: false,
        beat: None,
    };
    let beat = Some(KernelTime(1));
    world.found(&[master, Holder { facts: facts(11, 10), slots, booting: false, beat }]);
    world.wait(1_000);
    assert_eq!(world.events(EventName::Stuck).len(), 0);
    world.wait(21_000);
    assert_eq!(world.events(EventName::Stuck).len(), 1);
}
