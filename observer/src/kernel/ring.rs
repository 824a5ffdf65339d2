//! The ring reader: records out, in the order in which the kernel wrote them.
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use aya::Ebpf;
use aya::maps::MapData;
use aya::maps::RingBuf;
use rustix::fs::Timespec;
use rustix::time::Itimerspec;
use rustix::time::TimerfdClockId;
use rustix::time::TimerfdFlags;
use rustix::time::TimerfdTimerFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::KernelError;

/// How long records may lie before they are looked at. The probes wake the reader only when the ring fills up.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Reads the ring `RECORDS`.
pub struct Ring {
    records: AsyncFd<RingBuf<MapData>>,
    /// The kernel's own timer: a timer of the runtime wakes up twice, and is set by a system call more.
    poll: AsyncFd<OwnedFd>,
}

impl Ring {
    /// Takes the ring out of a loaded object. Must be called inside a tokio runtime.
    pub fn take(ebpf: &mut Ebpf) -> Result<Ring, KernelError> {
        const NAME: &str = "RECORDS";
        let map = ebpf.take_map(NAME).ok_or(KernelError::NoMap { name: NAME })?;
        let ring = RingBuf::try_from(map).map_err(|source| KernelError::Map { name: NAME, source })?;
        // SAFETY: the ring owns its descriptor and keeps it open and unchanged until it is dropped.
        let records = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let records = records.map_err(|error| KernelError::Poll(error.into()))?;
        Ok(Ring { records, poll: timer().map_err(KernelError::Poll)? })
    }

    /// Waits until it is time to read: the poll interval is over, or the ring fills up.
    pub async fn due(&self) {
        tokio::select! {
            Ok(mut records) = self.records.readable() => records.clear_ready(),
            Ok(mut poll) = self.poll.readable() => {
                let mut passed = [0; 8];
                let _none_yet = rustix::io::read(&self.poll, &mut passed);
                poll.clear_ready();
            }
        }
    }

    /// Hands records that are there to `each`, at most `limit` of them, until it breaks; whether there may be more.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> bool {
        let ring = self.records.get_mut();
        for _ in 0..limit {
            match ring.next().map(|record| each(&record)) {
                Some(ControlFlow::Continue(())) => {}
                Some(ControlFlow::Break(())) => return true,
                None => return false,
            }
        }
        true
    }
}

/// A timer that is due once in each poll interval.
fn timer() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let each = Itimerspec { it_interval: POLL_INTERVAL, it_value: POLL_INTERVAL };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &each)?;
    // SAFETY: the timer owns its descriptor and keeps it open and unchanged until it is dropped.
    let poll = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
    Ok(poll?)
}
