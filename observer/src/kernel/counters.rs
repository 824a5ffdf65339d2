//! What the probes count as lost.
use std::sync::atomic::Ordering;

use aya::Ebpf;
use observer_ebpf::counter::DROPS;
use observer_ebpf::counter::SLOTS;

use super::KernelError;
use super::mapped::Mapped;

/// The mapped counters, and how much of them was told.
pub struct Counters {
    slots: Mapped,
    told: [u64; DROPS.len()],
}

impl Counters {
    /// Maps the counters of an object that was loaded for this many processors.
    pub fn take(ebpf: &mut Ebpf, processors: usize) -> Result<Counters, KernelError> {
        let slots = Mapped::take(ebpf, "COUNTERS", processors * SLOTS as usize)?;
        Ok(Counters { slots, told: [0; DROPS.len()] })
    }

    /// What the probes lost since the last call, by name.
    pub fn losses(&mut self) -> Vec<(&'static str, u64)> {
        let slots = self.slots.words();
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
