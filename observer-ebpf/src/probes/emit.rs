//! Reserve, fill, submit; the only place that loses records and counts them.
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use observer_ebpf::counter;
use observer_ebpf::counter::Drop;
use observer_ebpf::record::Header;
use observer_ebpf::record::Kind;

use crate::filter;
use crate::maps::COUNTERS;
use crate::maps::RECORDS;

/// How much of the ring may be unread before a record wakes the reader, in bytes; set by the loader. Else the reader
/// polls, so that no record costs a wake-up.
#[unsafe(no_mangle)]
static WAKE_AT: u32 = 0;
const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;

/// Kernel monotonic time in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_ktime_get_ns() }
}

/// The header of a record that the running thread causes.
#[inline(always)]
pub fn header(kind: Kind) -> Header {
    let current = filter::current();
    Header {
        at: now(),
        tgid: (current >> 32) as u32,
        tid: current as u32,
        kind: kind as u16,
        zero: 0,
        len: 0,
    }
}

/// Counts a loss.
#[inline(always)]
pub fn lost(reason: Drop) {
    // SAFETY: no arguments, no side effects.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(counter) = COUNTERS.get_ptr_mut(cpu * counter::SLOTS + reason as u32) {
        // SAFETY: a live value of this CPU's own; an interrupted increment loses at most a count.
        unsafe { *counter += 1 };
    }
}

/// Writes one record without payload.
#[inline(always)]
pub fn record<T: 'static>(value: T) {
    if let Some(mut entry) = RECORDS.reserve::<T>(0) {
        entry.write(value);
        entry.submit(wake());
    } else {
        lost(Drop::RingFull);
    }
}

/// Whether this submission should wake the reader.
#[inline(always)]
pub fn wake() -> u64 {
    // SAFETY: a valid static; volatile, because the loader changes it after compilation.
    let wake_at = unsafe { core::ptr::read_volatile(&raw const WAKE_AT) };
    let unread = RECORDS.query(BPF_RB_AVAIL_DATA);
    if unread >= u64::from(wake_at) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}
