//! A BPF array mapped into this process.
//!
//! Not read by `bpf()` calls: while a task is inside one for a map, the kernel passes over the kprobe and tracepoint
//! programs on its processor (`bpf_disable_instrumentation`, `include/linux/bpf.h`).
use std::ptr;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use aya::Ebpf;
use aya::maps::Map;
use aya::maps::MapData;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;

use super::KernelError;

/// An array of machine words that probes change meanwhile.
pub struct Mapped {
    words: NonNull<AtomicU64>,
    len: usize,
    /// Programs that are loaded later still refer to it.
    _map: MapData,
}

impl Mapped {
    /// Maps the array `name`, of `len` words in all, out of a loaded object.
    pub fn take(ebpf: &mut Ebpf, name: &'static str, len: usize) -> Result<Mapped, KernelError> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(KernelError::NoMap { name });
        };
        let fd = map.fd();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let mapped = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len * size_of::<AtomicU64>(), access, MapFlags::SHARED, fd, 0)
        };
        let address = mapped.map_err(|errno| KernelError::Mapping { name, source: errno.into() })?;
        let words = NonNull::new(address.cast()).ok_or(KernelError::NoMap { name })?;
        Ok(Mapped { words, len, _map: map })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds so many aligned words until it is dropped; what the probes change meanwhile is only
        // looked at as atomics.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<AtomicU64>();
        // SAFETY: the mapping was made by `take` with this size, and nothing borrows from it any more.
        if let Err(error) = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), bytes) } {
            tracing::debug!(%error, "an array stays mapped");
        }
    }
}
