//! Who is who from `/proc` alone: slots, parents and signal masks of processes that were there before. Pure.
use std::collections::BTreeMap;

use super::Facts;
use super::Holder;
use super::Role;
use super::SlotFile;
use super::naming;

/// One bit per signal, as in `SigCgt` of `/proc/<pid>/status`.
const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// What an arbiter catches and a worker does not, unless its application does.
const HUP: u64 = bit(1);
/// What an arbiter catches; an application that reloads on HUP seldom waits for children by itself.
const ARBITER: u64 = HUP | bit(17);
/// What a master catches and a dirty arbiter does not.
const USR2: u64 = bit(12);
/// Everything that a master catches (`arbiter.py`): HUP INT QUIT USR1 USR2 TERM CHLD TTIN TTOU WINCH.
pub const MASTER: u64 =
    HUP | bit(2) | bit(3) | bit(10) | USR2 | bit(15) | bit(17) | bit(21) | bit(22) | bit(28);

/// What a master may catch besides: faulthandler's ILL ABRT BUS FPE SEGV, and what is libc's own, from 32 on.
const BESIDE: u64 = bit(4) | bit(6) | bit(7) | bit(8) | bit(11) | !(bit(32) - 1);
/// What every worker catches, unless what it runs took its handlers away.
const TERM: u64 = bit(15);

/// Whether signals are caught as a master does. What catches many more is a launcher that passes them on.
pub fn catches_as_master(caught: u64) -> bool {
    caught & MASTER == MASTER && caught & !(MASTER | BESIDE) == 0
}

/// Whether an arbiter, which has its own signal handlers when it makes its first slot, is a dirty one.
pub fn is_dirty(arbiter: &Facts) -> bool {
    arbiter.caught & (HUP | USR2) == HUP
}

/// Whether a master was started by its parent's USR2, and not by a hook of it: as gunicorn itself does (`arbiter.py`),
/// this believes `GUNICORN_PID` when that is the parent. Where setproctitle wiped the environment, the title tells.
pub fn is_upgrade(new: &Facts, parents_inner_pid: u32) -> bool {
    match new.variable("GUNICORN_PID") {
        Some(pid) => pid.parse() == Ok(parents_inner_pid),
        None => naming::is_titled_upgrade(new),
    }
}

/// What each of these is, arbiters first, with its parent's pid where that is gunicorn's too. Processes about which
/// nothing can be said yet, as one between a fork and its exec, are left out, and so are those that hooks forked.
///
/// A slot that a process does not share with its parent makes it an arbiter, unless it catches signals as workers
/// do: then its arbiter is gone. Of those that share one with an arbiter the first is the worker, and the others are
/// its app children, whoever adopted them. Without any slot, only a master's signals and a listener tell.
pub fn roles(holders: &[Holder]) -> Vec<(&Holder, Role, Option<u32>)> {
    let by_pid: BTreeMap<u32, &Holder> =
        holders.iter().map(|holder| (holder.facts.key.pid, holder)).collect();
    let first = first(holders);
    let mut cast: BTreeMap<u32, Role> = BTreeMap::new();
    let mut found = Vec::new();
    // A parent is cast before its children: each turn casts those whose parent is.
    let mut waiting: Vec<&Holder> = holders.iter().collect();
    loop {
        let before = waiting.len();
        waiting.retain(|holder| {
            let parent = by_pid.get(&holder.facts.parent).copied();
            let known = parent.and_then(|parent| cast.get(&parent.facts.key.pid).copied());
            if parent.is_some() && known.is_none() {
                return true;
            }
            let role = if holder.catches(ARBITER) || holder.slots.is_empty() {
                let role = arbiter(holder, parent.zip(known), holders);
                let above = parent.filter(|_| role != Some(Role::Master));
                role.map(|role| (role, above))
            } else {
                worker(holder, parent.zip(known), &first)
            };
            if let Some((role, above)) = role {
                cast.insert(holder.facts.key.pid, role);
                found.push((*holder, role, above.map(|above| above.facts.key.pid)));
            }
            false
        });
        if waiting.len() == before {
            break;
        }
    }
    found.sort_by_key(|(_, role, _)| (!role.is_arbiter(), *role == Role::AppChild));
    found
}

/// Whom each slot was made for: the first of its holders that is no arbiter. What that forked is younger.
fn first(holders: &[Holder]) -> BTreeMap<SlotFile, &Holder> {
    let mut first: BTreeMap<SlotFile, &Holder> = BTreeMap::new();
    for holder in holders.iter().filter(|holder| !holder.catches(ARBITER)) {
        for slot in &holder.slots {
            let known = first.entry(*slot).or_insert(holder);
            if holder.rank() < known.rank() {
                *known = holder;
            }
        }
    }
    first
}

/// The role of what catches signals as an arbiter does, or holds no slot.
fn arbiter(holder: &Holder, parent: Option<(&Holder, Role)>, holders: &[Holder]) -> Option<Role> {
    let facts = &holder.facts;
    let of_arbiter = parent.filter(|(_, role)| role.is_arbiter());
    let of_master = parent.filter(|(_, role)| matches!(role, Role::Master | Role::UpgradeMaster));
    let is_upgrade = of_master.is_some_and(|(old, _)| is_upgrade(facts, old.facts.inner_pid));
    if holder.slots.is_empty() {
        let role = match of_arbiter {
            Some(_) => is_upgrade.then_some(Role::UpgradeMaster), // else a hook's child, with its master's handlers
            None => Some(Role::Master),
        };
        return role.filter(|_| catches_as_master(facts.caught));
    }
    let owned =
        holder.slots.iter().filter(|slot| parent.is_none_or(|(parent, _)| !parent.slots.contains(slot)));
    let owned: Vec<&SlotFile> = owned.collect();
    let mut others = holders.iter().filter(|other| other.facts.key != facts.key);
    let shares = |other: &&Holder| owned.iter().any(|slot| other.slots.contains(*slot));
    // aiohttp's worker takes away the handler of CHLD alone.
    let is_worker = |other: &Holder| other.facts.parent == facts.key.pid && !other.catches(ARBITER | USR2);
    // A hook's child keeps the slots that its master has closed since, and forks none of their workers.
    let forks = others.clone().filter(shares).any(is_worker);
    let alone = of_arbiter.is_none() && !others.any(|other| shares(&other));
    match parent {
        Some((_, role)) if owned.is_empty() && !role.is_arbiter() => Some(Role::AppChild),
        _ if owned.is_empty() => None, // a fork or an upgrade under way, or a hook's child
        _ if holder.catches(USR2) && is_upgrade => Some(Role::UpgradeMaster),
        _ if holder.catches(USR2) => (forks || alone).then_some(Role::Master),
        _ if of_master.is_some() => Some(Role::DirtyArbiter),
        _ => Some(Role::Orphan),
    }
}

/// The role of what holds slots and is no arbiter, and what it stands below.
fn worker<'a>(
    holder: &Holder,
    parent: Option<(&'a Holder, Role)>,
    first: &BTreeMap<SlotFile, &'a Holder>,
) -> Option<(Role, Option<&'a Holder>)> {
    let parent = parent.filter(|(parent, _)| holder.slots.iter().any(|slot| parent.slots.contains(slot)));
    if let Some((above, _)) = parent.filter(|(_, role)| !role.is_arbiter()) {
        return Some((Role::AppChild, Some(above)));
    }
    let of_slots = || holder.slots.iter().filter_map(|slot| first.get(slot).copied());
    if !of_slots().any(|first| first.facts.key == holder.facts.key) {
        // One that is older than the worker was forked by a hook, after the slot was made.
        let worker = of_slots().max_by_key(|first| first.age())?;
        return (worker.age() < holder.age()).then_some((Role::AppChild, Some(worker)));
    }
    Some(match parent {
        Some((above, Role::DirtyArbiter)) => (Role::DirtyWorker, Some(above)),
        Some((above, _)) => (Role::Worker, Some(above)),
        None => (Role::Orphan, None),
    })
}

impl Holder {
    fn catches(&self, mask: u64) -> bool {
        self.facts.caught & mask == mask
    }

    fn age(&self) -> (u64, u32) {
        (self.facts.key.start, self.facts.key.pid)
    }

    /// Lower for the worker than for all others of a slot.
    fn rank(&self) -> (bool, (u64, u32)) {
        (!self.catches(TERM), self.age())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ProcessKey;

    const WORKER: u64 = 0x0830_4226;
    const UVICORN: u64 = 0x0030_4206;

    /// A process that started in its pid's order.
    fn holder(pid: u32, parent: u32, slots: &[u64], caught: u64) -> Holder {
        let key = ProcessKey { pid, start: 100 + u64::from(pid) };
        let facts = Facts { key, parent, inner_pid: pid, caught, ..Facts::default() };
        Holder { facts, slots: slots.iter().map(|ino| (1, *ino)).collect(), booting: false, beat: None }
    }

    /// Pid, role and parent of each that has a role.
    fn cast(holders: &[Holder]) -> Vec<(u32, &'static str, Option<u32>)> {
        let found = roles(holders).into_iter();
        let mut found: Vec<_> =
            found.map(|(holder, role, parent)| (holder.facts.key.pid, role.name(), parent)).collect();
        found.sort();
        found
    }

    #[test]
    fn a_launcher_that_passes_signals_on_is_no_master() {
        let faulthandler = bit(4) | bit(6) | bit(7) | bit(8) | bit(11);
        for caught in [MASTER, MASTER | faulthandler, MASTER | bit(33), MASTER | faulthandler | bit(33)] {
            assert!(catches_as_master(caught), "{caught:#x}");
        }
        let every = !(bit(9) | bit(19));
        for caught in [every, MASTER | bit(14), MASTER | bit(29), MASTER & !bit(17), 0] {
            assert!(!catches_as_master(caught), "{caught:#x}");
        }
    }

    #[test]
    fn what_a_hook_forks_is_nobody() {
        let holders = [
            holder(10, 1, &[2, 3], MASTER),
            holder(11, 10, &[2], WORKER),
            holder(20, 10, &[], MASTER),          // forked before the first worker
            holder(21, 10, &[2], MASTER),         // after it
            holder(22, 10, &[1, 2], MASTER),      // and the worker of slot 1 is gone
            holder(23, 22, &[1, 2], MASTER),      // its child
            holder(24, 1, &[1, 2], MASTER),       // whose parent is gone
            holder(12, 10, &[3], WORKER | HUP),   // its application has a handler of its own
            holder(9, 10, &[2], UVICORN & !TERM), // between slot and worker, without handlers
        ];
        let workers = [(11, "worker", Some(10)), (12, "worker", Some(10))];
        assert_eq!(cast(&holders), [&[(10, "master", None)], &workers[..]].concat());
        // Its master is gone, and it forked none of the workers.
        let holders = [holder(11, 1, &[2], WORKER), holder(22, 1, &[1, 2], MASTER)];
        assert_eq!(cast(&holders), [(11, "orphan", None)]);
        // A master whose only worker has just died.
        assert_eq!(cast(&[holder(10, 1, &[2], MASTER)]), [(10, "master", None)]);
    }

    #[test]
    fn a_worker_may_keep_most_of_its_masters_handlers() {
        let aiohttp = MASTER & !bit(17);
        let holders =
            [holder(10, 1, &[1, 2], MASTER), holder(11, 10, &[1], aiohttp), holder(12, 10, &[2], aiohttp)];
        let workers = [(11, "worker", Some(10)), (12, "worker", Some(10))];
        assert_eq!(cast(&holders), [&[(10, "master", None)], &workers[..]].concat());
    }

    #[test]
    fn a_daemon_of_an_application_is_its_workers_child_whoever_adopts_it() {
        for caught in [WORKER, UVICORN] {
            for adopts in [1, 10] {
                let mut holders = vec![
                    holder(10, 0, &[1, 2], MASTER),
                    holder(30, adopts, &[1], caught),
                    holder(31, 30, &[1], caught),
                    holder(32, adopts, &[2], caught & !TERM),
                    holder(11, 10, &[1], caught),
                    holder(12, 10, &[2], caught),
                ];
                let children =
                    [(30, "app-child", Some(11)), (31, "app-child", Some(30)), (32, "app-child", Some(12))];
                let workers = [(11, "worker", Some(10)), (12, "worker", Some(10))];
                assert_eq!(cast(&holders), [&[(10, "master", None)], &workers[..], &children[..]].concat());
                // Their arbiter is gone.
                holders.remove(0);
                holders.iter_mut().filter(|one| one.facts.parent == 10).for_each(|one| one.facts.parent = 1);
                let workers = [(11, "orphan", None), (12, "orphan", None)];
                assert_eq!(cast(&holders), [&workers[..], &children[..]].concat());
            }
        }
    }

    #[test]
    fn a_pid_that_wrapped_does_not_make_a_child_the_worker() {
        let mut child = holder(5, 10, &[1], WORKER);
        child.facts.key.start = 900;
        let holders = [holder(10, 0, &[1], MASTER), holder(11, 10, &[1], WORKER), child];
        let expected = [(5, "app-child", Some(11)), (10, "master", None), (11, "worker", Some(10))];
        assert_eq!(cast(&holders), expected);
    }

    #[test]
    fn dirty_workers_keep_their_siblings_slots() {
        let dirty = MASTER & !USR2;
        let mut holders = vec![
            holder(10, 0, &[1], MASTER),
            holder(11, 10, &[1], WORKER),
            holder(20, 10, &[1, 8, 9], dirty), // forked again: it has a slot of its master's
            holder(21, 20, &[1, 8], WORKER | bit(17)),
            holder(22, 20, &[1, 7, 8, 9], WORKER | bit(17)), // 7 was for one that is gone
            holder(30, 22, &[1, 7, 8, 9], WORKER | bit(17)),
            holder(31, 10, &[1, 8], WORKER | bit(17)), // a daemon of 21
        ];
        let workers = [(21, "dirty-worker", Some(20)), (22, "dirty-worker", Some(20))];
        let children = [(30, "app-child", Some(22)), (31, "app-child", Some(21))];
        let http = [(10, "master", None), (11, "worker", Some(10)), (20, "dirty-arbiter", Some(10))];
        assert_eq!(cast(&holders), [&http[..], &workers[..], &children[..]].concat());
        holders.remove(2);
        holders.iter_mut().filter(|one| one.facts.parent == 20).for_each(|one| one.facts.parent = 1);
        let workers = [(21, "orphan", None), (22, "orphan", None)];
        assert_eq!(cast(&holders), [&http[..2], &workers[..], &children[..]].concat());
    }
}
