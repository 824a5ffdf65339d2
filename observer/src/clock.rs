//! Kernel time, wall time, and the only conversion between them.
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Kernel monotonic time in nanoseconds (`bpf_ktime_get_ns`, `CLOCK_MONOTONIC`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct KernelTime(pub u64);

impl KernelTime {
    /// Nanoseconds from `earlier` to `self`; 0 when `earlier` is later.
    pub fn since(self, earlier: KernelTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What has to be added to kernel time to get wall time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct WallOffset(pub i64);

impl WallOffset {
    /// Wall time of a kernel time, in milliseconds since 1970.
    pub fn wall_ms(self, at: KernelTime) -> i64 {
        let ns = i128::from(at.0) + i128::from(self.0);
        i64::try_from(ns.div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }
}

/// The kernel's monotonic clock now.
pub fn kernel_now() -> KernelTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    KernelTime(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The offset between the two clocks now; it moves when the wall clock is set.
pub fn wall_offset() -> WallOffset {
    let before = kernel_now();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX);
    WallOffset(wall.saturating_sub(i64::try_from(before.0).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_rounds_down_and_takes_negative_offsets() {
        assert_eq!(WallOffset(1_500_000).wall_ms(KernelTime(600_000)), 2);
        assert_eq!(WallOffset(-2_000_000).wall_ms(KernelTime(1_000_000)), -1);
    }
}
