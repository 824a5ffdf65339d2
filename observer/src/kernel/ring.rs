//! The ring reader: records out, in the order in which the kernel wrote them.
use std::ops::ControlFlow;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::MapData;
use aya::maps::RingBuf;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::KernelError;

/// How long records may lie before they are looked at. The probes wake the reader only when the ring fills up.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Reads the ring `RECORDS`.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Takes the ring out of a loaded object. Must be called inside a tokio runtime.
    pub fn take(ebpf: &mut Ebpf) -> Result<Ring, KernelError> {
        const NAME: &str = "RECORDS";
        let map = ebpf.take_map(NAME).ok_or(KernelError::NoMap { name: NAME })?;
        let ring = RingBuf::try_from(map).map_err(|source| KernelError::Map { name: NAME, source })?;
        // SAFETY: the ring owns its descriptor and keeps it open and unchanged until it is dropped.
        let polled = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        polled.map(Ring).map_err(|error| KernelError::Poll(error.into()))
    }

    /// Waits until it is time to read: the poll interval is over, or the ring fills up.
    pub async fn due(&self) {
        if let Ok(Ok(mut guard)) = tokio::time::timeout(POLL_INTERVAL, self.0.readable()).await {
            guard.clear_ready();
        }
    }

    /// Hands records that are there to `each`, at most `limit` of them, until it breaks; whether there may be more.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> bool {
        let ring = self.0.get_mut();
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
