//! Is this process watched? The first question of every handler.
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use observer_ebpf::key::Watch;

use crate::maps::WATCHED;

/// The running thread: process in the upper half, thread in the lower.
#[inline(always)]
pub fn current() -> u64 {
    bpf_get_current_pid_tgid()
}

/// The running thread's process.
#[inline(always)]
pub fn current_process() -> u32 {
    (current() >> 32) as u32
}

/// What is to be reported of the running process, if anything.
#[inline(always)]
pub fn watched() -> Option<*mut Watch> {
    WATCHED.get_ptr_mut(current_process())
}

/// Whether the running process is to be reported in any of these ways (`key::watch` bits).
#[inline(always)]
pub fn watched_for(flags: u32) -> bool {
    // SAFETY: a live map value; the program holds the RCU read lock for its whole run.
    watched().is_some_and(|watch| unsafe { (*watch).flags } & flags != 0)
}
