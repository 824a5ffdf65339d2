//! What an observer that comes late cannot know.
use super::*;

const MASTER: u64 = found::MASTER;

/// Master 10 and its workers 11, 12 and 13, found; the master was started with these options.
fn late(options: &str) -> World {
    let mut world = World::new();
    let holder = |pid: u32, parent, slots: &[u32], caught| {
        let mut facts = Facts { caught, ..facts(pid, parent) };
        facts.argv.extend(options.split_whitespace().map(str::to_owned));
        let slots = slots.iter().map(|ino| (1, u64::from(*ino))).collect();
        Holder { facts, slots, booting: false, beat: None }
    };
    let worker = |pid| holder(pid, 10, &[pid], 0);
    world.found(&[holder(10, 1, &[11, 12, 13], MASTER), worker(11), worker(12), worker(13)]);
    world
}

#[test]
fn what_was_sent_before_it_was_watched_is_not_known() {
    let mut world = late("");
    world.exit(11, 0);
    world.ms += 1;
    world.model.instance(world.at(), 13, &mut world.changes);
    world.exit(13, 0);
    world.wait(60_000);
    world.exit(12, 0);
    assert_eq!([11, 12, 13].map(|pid| world.cause(pid)), ["unknown", "recycle", "recycle"]);
}

#[test]
fn a_worker_may_take_as_long_to_end_as_its_master_lets_it() {
    let mut world = late("--graceful-timeout 70");
    world.wait(60_000);
    world.exit(11, 0);
    world.wait(60_000);
    world.exit(12, 0);
    assert_eq!([11, 12].map(|pid| world.cause(pid)), ["unknown", "recycle"]);
}

#[test]
fn a_stop_that_is_raised_again_and_a_kill_may_be_the_second_half_of_something() {
    let mut world = late("");
    world.signal_code(11, 11, signal::TERM, -6);
    world.end(11, 15, false);
    world.signal(10, 12, signal::KILL);
    world.end(12, 9, false);
    world.signal(STRANGER, 13, signal::KILL);
    world.end(13, 9, false);
    assert_eq!([11, 12, 13].map(|pid| world.cause(pid)), ["unknown", "unknown", "killed"]);
}

#[test]
fn what_an_arbiter_was_asked_before_is_not_known() {
    let mut world = late("");
    world.signal(10, 11, signal::TERM);
    world.exit(11, 0);
    world.wait(60_000);
    world.signal(10, 12, signal::TERM);
    world.exit(12, 0);
    world.exit(10, 0);
    assert_eq!([11, 12, 10].map(|pid| world.cause(pid)), ["unknown", "asked", "unknown"]);
}

#[test]
fn a_master_that_is_asked_later_is_known() {
    let mut world = late("");
    world.signal(STRANGER, 10, signal::TERM);
    world.signal(10, 11, signal::TERM);
    world.exit(11, 0);
    world.exit(10, 0);
    assert_eq!([11, 10].map(|pid| world.cause(pid)), ["shutdown", "shutdown"]);
}

#[test]
fn a_long_silence_is_in_order_where_the_timeout_is_not_known() {
    for (options, stuck) in [("", 1), ("-t 120", 0), ("-c python:conf", 0)] {
        let mut world = late(options);
        for pid in [11, 12, 13] {
            world.beat(pid);
        }
        world.ms += 60_000;
        world.beat(12);
        world.beat(13);
        world.wait(1);
        assert_eq!(world.events(EventName::Stuck).len(), stuck, "{options}");
    }
}
