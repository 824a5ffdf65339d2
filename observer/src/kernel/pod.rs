//! Contract values as aya wants them.
use observer_ebpf::wire::Wire;

/// A contract value that may be copied to and from the kernel byte for byte.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Pod<T>(pub T);

// SAFETY: `Wire` is exactly aya's requirement: no padding and no invalid bit patterns.
unsafe impl<T: Wire> aya::Pod for Pod<T> {}
