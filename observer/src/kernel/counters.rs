//! What the probes count as lost, mapped into this process.
//!
//! Not read by `bpf()` calls: while a task is inside one for a map, the kernel passes over the kprobe and tracepoint
//! programs on its processor (`bpf_disable_instrumentation`, `include/linux/bpf.h`).
use std::ptr;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::Map;
use aya::maps::MapData;
use observer_ebpf::counter::DROPS;
use observer_ebpf::counter::SLOTS;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;

use super::KernelError;

const NAME: &str = "COUNTERS";

/// The mapped counters, and how much of them was told.
pub struct Counters {
    slots: NonNull<AtomicU64>,
    processors: usize,
    /// Programs that are loaded later still refer to it.
    _map: MapData,
    told: [u64; DROPS.len()],
}

impl Counters {
    /// Maps the counters of an object that was loaded for this many processors.
    pub fn take(ebpf: &mut Ebpf, processors: usize) -> Result<Counters, KernelError> {
        let Some(Map::Array(map)) = ebpf.take_map(NAME) else {
            return Err(KernelError::NoMap { name: NAME });
        };
        let fd = map.fd();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let mapped = unsafe {
            rustix::mm::mmap(ptr::null_mut(), bytes(processors), ProtFlags::READ, MapFlags::SHARED, fd, 0)
        };
        let address = mapped.map_err(|errno| KernelError::Counters(errno.into()))?;
        let slots = NonNull::new(address.cast()).ok_or(KernelError::NoMap { name: NAME })?;
        Ok(Counters { slots, processors, _map: map, told: [0; DROPS.len()] })
    }

    /// What the probes lost since the last call, by name.
    pub fn losses(&mut self) -> Vec<(&'static str, u64)> {
        // SAFETY: the mapping holds `SLOTS` aligned counters for each processor until it is dropped; what the probes
        // change meanwhile is only looked at as atomics.
        let slots =
            unsafe { std::slice::from_raw_parts(self.slots.as_ptr(), self.processors * SLOTS as usize) };
        let mut losses = Vec::new();
        for ((drop, name), told) in DROPS.iter().zip(&mut self.told) {
            let of_each = slots.iter().skip(*drop as usize).step_by(SLOTS as usize);
            let total = of_each.map(|slot| slot.load(Ordering::Relaxed)).sum();
            if total > *told {
                losses.push((*name, total - *told));
                *told = total;
            }
        }
        losses
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `take` with this size, and nothing borrows from it any more.
        if let Err(error) = unsafe { rustix::mm::munmap(self.slots.as_ptr().cast(), bytes(self.processors)) }
        {
            tracing::debug!(%error, "counters stay mapped");
        }
    }
}

fn bytes(processors: usize) -> usize {
    processors * SLOTS as usize * size_of::<AtomicU64>()
}
