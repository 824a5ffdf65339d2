//! Who keeps up and who does not, and who had to be replaced.
use super::*;
use crate::identity::load::Listener;
use crate::identity::load::Queues;
use crate::identity::load::Unread;

impl World {
    /// A worker has so many requests more or fewer.
    fn turn(&mut self, pid: u32, from: u32, to: u32) {
        self.model.turned(pid, self.at(), from, to, Some(1_000_000));
    }

    /// Time passes as the pipeline lets it: a tick each half second.
    fn tick(&mut self, seconds: u64) {
        (0..seconds * 2).for_each(|_| self.wait(500));
    }

    fn look(&mut self, holder: u32, depth: u32, unread: &[(u32, u32, u64)]) {
        let address = "127.0.0.1:8000".to_owned();
        let unread = unread.iter().map(|(pid, connections, s)| Unread {
            process: key(*pid),
            connections: *connections,
            oldest_ns: s * S,
        });
        let listener = Listener { holder: key(holder), address, depth, limit: 8 };
        let queues = Queues { listeners: vec![listener], unread: unread.collect(), overflows: Vec::new() };
        self.model.looked(self.at(), &queues, &mut self.changes);
    }

    /// `cause depth unread workers busy` of each message about saturation, and whether it is over.
    fn saturated(&mut self) -> Vec<String> {
        let changes = std::mem::take(&mut self.changes);
        let events = changes
            .iter()
            .filter_map(|change| if let Change::Event(event) = change { Some(event) } else { None });
        let events = events.filter(|event| event.name == EventName::Saturated);
        let said = |event: &Event| {
            let value =
                |name: &str| event.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value);
            let names = ["cause", "depth", "unread", "workers", "busy"];
            let words: Vec<_> = names.iter().map(|name| value(name).unwrap_or("-")).collect();
            let end = event.end_ms.map_or(String::new(), |end| format!(" {}..{end}", event.start_ms));
            format!("{}{end}", words.join(" "))
        };
        events.map(said).collect()
    }
}

#[test]
fn busy_workers_are_a_full_pool_after_a_while() {
    let mut world = World::serving();
    let began = world.ms + 500;
    world.turn(11, 0, 1);
    world.tick(10);
    assert_eq!((world.saturated(), world.model.crowded()), (vec![], vec![]), "one is free");
    world.turn(12, 0, 1);
    let began = began + 10_000;
    world.tick(5);
    assert_eq!(world.saturated(), [""; 0]);
    assert_eq!(world.model.crowded(), [key(10), key(11), key(12)]);
    world.tick(1);
    assert_eq!(world.saturated(), ["pool - 0 2 2"]);
    world.look(10, 3, &[]);
    world.ms += 1;
    world.look(10, 9, &[]);
    assert_eq!(world.saturated(), ["accept-queue 9 0 2 2"]);
    world.look(10, 0, &[]);
    world.turn(11, 1, 0);
    let ended = world.ms + 500;
    world.tick(4);
    assert_eq!(world.saturated(), [format!("accept-queue 0 0 2 1 {began}..{ended}")]);
    world.tick(60);
    assert_eq!(world.saturated(), [""; 0]);
    assert_eq!(world.model.crowded(), []);
}

#[test]
fn what_stays_unread_is_a_full_pool_whatever_the_class() {
    let mut world = World::serving();
    world.look(10, 0, &[(11, 3, 4), (12, 2, 0)]);
    assert_eq!(world.saturated(), [""; 0]);
    assert_eq!(world.model.crowded(), [key(10), key(11), key(12)], "it may become one");
    world.tick(2);
    world.look(10, 0, &[(11, 3, 6), (12, 2, 2)]);
    assert_eq!(world.saturated(), ["pool 0 5 2 0"]);
    world.end(10, 9, false);
    let [over] = <[String; 1]>::try_from(world.saturated()).unwrap();
    assert!(over.starts_with("pool 0 5 - - ") && over.contains(".."), "{over}");
}

#[test]
fn a_workers_own_listener_is_its_masters_trouble() {
    let mut world = World::serving();
    world.look(12, 9, &[]);
    assert_eq!(world.saturated(), ["accept-queue 9 0 2 0"]);
    assert_eq!(world.model.crowded().len(), 3);
}

#[test]
fn what_an_app_child_serves_is_its_workers() {
    let mut world = World::serving();
    world.fork(11, 30, false);
    world.model.accepted(30);
    world.turn(30, 0, 1);
    world.model.instance(world.at(), 30, &mut world.changes);
    let everyone = [10, 11, 12, 30].map(key);
    let all = world.model.turnover(world.at(), everyone.into_iter());
    let own = &all[&key(11)];
    assert_eq!((own.accepts, own.requests, own.in_flight), (1, 1, 1));
    assert_eq!((own.waits.is_some(), own.late_ns), (true, None), "sync has no loop that could be late");
    assert_eq!((all[&key(12)].accepts, all.len()), (0, 2));
    let one = world.model.turnover(world.at(), [key(12)].into_iter());
    assert_eq!(one.keys().copied().collect::<Vec<_>>(), [key(12)]);
}

#[test]
fn respawns_are_ends_that_nobody_asked_for() {
    let mut world = World::serving();
    world.exit(11, 0); // --max-requests
    world.worker(10, 13);
    world.end(12, 11, false); // SEGV
    world.booting(10, 14);
    world.exit(14, 1); // did not boot
    world.wait(1_100);
    assert_eq!(world.model.respawns(key(10)), Some(3));
    world.worker(10, 15);
    world.signal(STRANGER, 10, signal::TTOU);
    world.signal(10, 13, signal::TERM);
    world.exit(13, 0);
    world.signal(STRANGER, 10, signal::TERM);
    world.signal(10, 15, signal::TERM);
    world.exit(15, 0);
    assert_eq!(world.model.respawns(key(10)), Some(3));
    assert_eq!(world.model.respawns(key(15)), None);
}
