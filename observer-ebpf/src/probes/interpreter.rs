//! The interpreter's clocks: how long its collector runs, and how long threads wait for its lock.
use observer_ebpf::counter::Drop;
use observer_ebpf::key;
use observer_ebpf::key::Interpreter;
use observer_ebpf::key::NEVER;
use observer_ebpf::key::WAITERS_BYTES;

use crate::emit;
use crate::entry::Entry;
use crate::entry::Exit;
use crate::filter;
use crate::io;
use crate::kernel;
use crate::maps::INTERPRETERS;
use crate::maps::WAITS;

/// `FUTEX_CMD_MASK`, without flags, of `<linux/futex.h>`.
const FUTEX_COMMAND: u64 = 127;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAIT_BITSET: u64 = 9;
/// A wait for the lock ends after each switch interval, 5 ms; of one that seems longer the end was not seen.
const LONGEST_WAIT: u64 = 10_000_000_000;

/// The function is entered that the collector calls when a run begins and when it ends: who calls tells which of the two,
/// and the collector's own counters of which generation, since a run is counted before it ends. Argument `stack` is the
/// stack pointer.
#[inline(always)]
pub fn passed(stack: u64) -> Option<()> {
    let entry = interpreter()?;
    if entry.counters == 0 {
        return None;
    }
    let caller: u64 = io::counted(kernel::read_user(stack), Drop::UserFault)?;
    let counters: [[u64; 3]; 3] = io::counted(kernel::read_user(entry.counters), Drop::UserFault)?;
    let before = core::mem::replace(&mut entry.runs, [counters[0][0], counters[1][0], counters[2][0]]);
    if is_one(caller, &entry.begins) {
        entry.begun = emit::now();
        if before != NEVER && before != entry.runs {
            emit::lost(Drop::MissedRun);
        }
    } else if is_one(caller, &entry.ends) {
        let begun = core::mem::replace(&mut entry.begun, 0);
        let [a, b, c] = entry.runs;
        let grown = [a.wrapping_sub(before[0]), b.wrapping_sub(before[1]), c.wrapping_sub(before[2])];
        let is_one = grown[0].wrapping_add(grown[1]).wrapping_add(grown[2]) == 1;
        if begun != 0 && is_one {
            ran(entry, grown, emit::now().saturating_sub(begun));
        } else if before != NEVER {
            emit::lost(Drop::MissedRun);
        }
    }
    Some(())
}

#[inline(always)]
fn is_one(caller: u64, calls: &[u64; 4]) -> bool {
    caller == calls[0] || caller == calls[1] || caller == calls[2] || caller == calls[3]
}

/// A run of the one generation that grew.
#[inline(always)]
fn ran(entry: &mut Interpreter, grown: [u64; 3], ns: u64) {
    let one = |sum: &mut u64, longest: &mut u64| {
        *sum += ns; // who collects holds the interpreter's lock
        *longest = ns.max(*longest);
    };
    if grown[0] == 1 {
        one(&mut entry.paused[0], &mut entry.longest[0]);
    } else if grown[1] == 1 {
        one(&mut entry.paused[1], &mut entry.longest[1]);
    } else {
        one(&mut entry.paused[2], &mut entry.longest[2]);
    }
}

/// `futex(address, command, …)` starts: a wait for the interpreter's lock if it is for what that sleeps on.
#[inline(always)]
pub fn wait_begins(cx: &impl Entry) -> Option<()> {
    let entry = interpreter()?;
    let is_lock = entry.waiters != 0 && cx.arg(0)?.wrapping_sub(entry.waiters) < WAITERS_BYTES;
    let command = cx.arg(1)? & FUTEX_COMMAND;
    if !is_lock || (command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET) {
        return None;
    }
    if WAITS.insert(filter::current(), emit::now(), 0).is_err() {
        emit::lost(Drop::CallsFull);
    }
    Some(())
}

/// `futex` ends.
#[inline(always)]
pub fn wait_ended(_: &impl Exit) -> Option<()> {
    let thread = filter::current();
    // SAFETY: a live map value, of this thread's own.
    let since = unsafe { *WAITS.get_ptr(thread)? };
    let ns = emit::now().saturating_sub(since);
    // It was there just now, and only this thread removes it.
    let removed = WAITS.remove(thread);
    if removed.is_err() || ns > LONGEST_WAIT {
        return None;
    }
    add(&mut interpreter()?.waited, ns);
    Some(())
}

/// Adds to what other threads of the process may add to at the same time. The target has no `fetch_add`, which could
/// return what was there: kernels before 5.12 cannot.
#[inline(always)]
fn add(sum: &mut u64, more: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the address is that of a live and aligned machine word.
    unsafe {
        core::arch::asm!("lock *(u64 *)({sum} + 0) += {more}", sum = in(reg) sum, more = in(reg) more);
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        *sum += more; // host tools only look at it
    }
}

/// The running process's interpreter, if it is timed.
#[inline(always)]
fn interpreter() -> Option<&'static mut Interpreter> {
    let pid = filter::current_process();
    for place in 0..key::PLACES {
        let entry = INTERPRETERS.get_ptr_mut(pid.wrapping_add(place) & (key::INTERPRETERS - 1))?;
        // SAFETY: a live map value. Who collects holds the interpreter's lock, and nobody else writes to what it does.
        let entry = unsafe { &mut *entry };
        if entry.pid == u64::from(pid) {
            return Some(entry);
        }
    }
    None
}
