//! `Entry` and `Exit`: what a handler may ask of whatever called it.
use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::BtfTracePointContext;
use aya_ebpf::programs::FEntryContext;
use aya_ebpf::programs::FExitContext;
use aya_ebpf::programs::ProbeContext;
use aya_ebpf::programs::RetProbeContext;
use aya_ebpf::programs::TracePointContext;

/// A function about to run, however we were attached to it.
pub trait Entry {
    /// Its `n`th argument.
    fn arg(&self, n: usize) -> Option<u64>;

    /// Whether the program is the second of two at one place: what one has noted the other leaves alone.
    fn again(&self) -> bool {
        false
    }
}

/// A function that returned.
pub trait Exit {
    /// What it returned.
    fn ret(&self) -> i64;
}

impl Entry for ProbeContext {
    #[inline(always)]
    fn arg(&self, n: usize) -> Option<u64> {
        ProbeContext::arg(self, n)
    }
}

/// A kernel function entered by trampoline.
pub struct FEntry<const AGAIN: bool>(pub FEntryContext);

impl<const AGAIN: bool> Entry for FEntry<AGAIN> {
    #[inline(always)]
    fn arg(&self, n: usize) -> Option<u64> {
        Some(self.0.arg(n))
    }

    #[inline(always)]
    fn again(&self) -> bool {
        AGAIN
    }
}

impl Entry for BtfTracePointContext {
    #[inline(always)]
    fn arg(&self, n: usize) -> Option<u64> {
        Some(BtfTracePointContext::arg(self, n))
    }
}

/// Which word of x86-64's `struct pt_regs` is the stack pointer; no place for a uprobe is known elsewhere.
const STACK_POINTER: usize = 19;

/// Which one holds what a function returns.
const RESULT: usize = 10;

/// What a function is about to return, at a uprobe of its last instruction.
#[inline(always)]
pub fn result(cx: &ProbeContext) -> u64 {
    // SAFETY: the context of a uprobe's program is the process's registers, at least so many words.
    unsafe { *cx.as_ptr().cast::<u64>().wrapping_add(RESULT) }
}

/// The stack pointer of the process at a uprobe.
#[inline(always)]
pub fn stack(cx: &ProbeContext) -> u64 {
    // SAFETY: the context of a uprobe's program is the process's registers, at least so many words.
    unsafe { *cx.as_ptr().cast::<u64>().wrapping_add(STACK_POINTER) }
}

/// `syscalls:sys_enter_*`: one 8-byte slot per argument after a 16-byte header
/// (`/sys/kernel/tracing/events/syscalls/sys_enter_*/format`).
pub struct SysEnter<const AGAIN: bool>(pub TracePointContext);

impl<const AGAIN: bool> Entry for SysEnter<AGAIN> {
    #[inline(always)]
    fn arg(&self, n: usize) -> Option<u64> {
        // SAFETY: a read beyond the record is refused by the verifier, and a failed one is an error value.
        unsafe { self.0.read_at(16 + 8 * n) }.ok()
    }

    #[inline(always)]
    fn again(&self) -> bool {
        AGAIN
    }
}

/// `syscalls:sys_exit_*`: the result after the 16-byte header.
pub struct SysExit(pub TracePointContext);

impl Exit for SysExit {
    #[inline(always)]
    fn ret(&self) -> i64 {
        // SAFETY: a failed read is an error value, never a fault.
        unsafe { self.0.read_at(16) }.unwrap_or(-1)
    }
}

impl Exit for RetProbeContext {
    #[inline(always)]
    fn ret(&self) -> i64 {
        // Socket functions return `int`: the upper half of the register is undefined.
        i64::from(RetProbeContext::ret::<i32>(self))
    }
}

/// `fexit` puts the result after the arguments, so it has to know how many there are
/// (`bpf_get_func_ret` exists only from 5.17).
pub struct FExit<const ARGS: usize>(pub FExitContext);

impl<const ARGS: usize> Exit for FExit<ARGS> {
    #[inline(always)]
    fn ret(&self) -> i64 {
        let slot = self.0.as_ptr().cast::<i64>().wrapping_add(ARGS);
        // SAFETY: the context of an fexit program is an array of one slot per argument and one for the
        // result; the verifier checks the bound against the function's BTF prototype.
        let value = unsafe { *slot };
        // Socket functions return `int`: the upper half of the register is undefined.
        i64::from(value as i32)
    }
}
