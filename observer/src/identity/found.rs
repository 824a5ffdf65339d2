//! Who is who from `/proc` alone: slots, parents and signal masks of processes that were there before. Pure.
use std::collections::BTreeMap;

use super::Facts;
use super::Holder;
use super::Role;

/// One bit per signal, as in `SigCgt` of `/proc/<pid>/status`.
const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// What an arbiter catches and a worker does not.
const HUP: u64 = bit(1);
/// What a master catches and a dirty arbiter does not.
const USR2: u64 = bit(12);
/// Everything that a master catches (`arbiter.py`): HUP INT QUIT USR1 USR2 TERM CHLD TTIN TTOU WINCH.
pub const MASTER: u64 =
    HUP | bit(2) | bit(3) | bit(10) | USR2 | bit(15) | bit(17) | bit(21) | bit(22) | bit(28);

/// Whether an arbiter, which has its own signal handlers when it makes its first slot, is a dirty one.
pub fn is_dirty(arbiter: &Facts) -> bool {
    arbiter.caught & (HUP | USR2) == HUP
}

/// What each of these is, arbiters first, with its parent's pid where that is gunicorn's too. Processes about which
/// nothing can be said yet, as one between a fork and its exec, are left out.
///
/// A slot that a process does not share with its parent makes it an arbiter, unless it catches signals as workers
/// do: then its arbiter is gone. One that it shares with an arbiter makes it a worker, one that it shares with a
/// worker an app child. Without any slot, only a master's full mask and a listener tell.
pub fn roles(holders: &[Holder]) -> Vec<(&Holder, Role, Option<u32>)> {
    let by_pid: BTreeMap<u32, &Holder> =
        holders.iter().map(|holder| (holder.facts.key.pid, holder)).collect();
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
            if let Some(role) = role(holder, parent.zip(known)) {
                cast.insert(holder.facts.key.pid, role);
                found.push((*holder, role, parent.map(|parent| parent.facts.key.pid)));
            }
            false
        });
        if waiting.len() == before {
            break;
        }
    }
    found.sort_by_key(|(_, role, _)| !role.is_arbiter());
    found
}

fn role(holder: &Holder, parent: Option<(&Holder, Role)>) -> Option<Role> {
    let catches = |mask: u64| holder.facts.caught & mask == mask;
    let shared = |parent: &Holder| holder.slots.iter().any(|slot| parent.slots.contains(slot));
    let owns = match parent {
        Some((parent, _)) => holder.slots.iter().any(|slot| !parent.slots.contains(slot)),
        None => !holder.slots.is_empty(),
    };
    if holder.slots.is_empty() {
        let upgraded = parent.is_some_and(|(_, role)| role.is_arbiter());
        return catches(MASTER).then_some(if upgraded { Role::UpgradeMaster } else { Role::Master });
    }
    let of_master = parent.is_some_and(|(_, role)| matches!(role, Role::Master | Role::UpgradeMaster));
    match parent {
        _ if owns && catches(HUP | USR2) && of_master => Some(Role::UpgradeMaster),
        _ if owns && catches(HUP | USR2) => Some(Role::Master),
        _ if owns && catches(HUP) && of_master => Some(Role::DirtyArbiter),
        _ if owns && catches(HUP) => Some(Role::Orphan),
        // Shares a slot, and still has the arbiter's signal handlers: a fork or an upgrade under way.
        Some((parent, role)) if role.is_arbiter() && shared(parent) && catches(HUP) => None,
        Some((parent, Role::DirtyArbiter)) if shared(parent) => Some(Role::DirtyWorker),
        Some((parent, role)) if role.is_arbiter() && shared(parent) => Some(Role::Worker),
        Some((parent, _)) if shared(parent) => Some(Role::AppChild),
        _ => Some(Role::Orphan),
    }
}
