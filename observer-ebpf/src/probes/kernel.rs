//! Reading kernel structures at offsets given by the loader.
use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use observer_ebpf::config::ABSENT;
use observer_ebpf::config::Facts;
use observer_ebpf::config::Offsets;
use observer_ebpf::wire::Wire;

/// Set by the loader from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::NONE;

/// Set by the loader likewise.
#[unsafe(no_mangle)]
static FACTS: Facts = Facts::NONE;

/// One of the offsets.
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::load(core::mem::offset_of!(observer_ebpf::config::Offsets, $field))
    };
}
pub(crate) use offset;

/// The offset that stands `at` bytes into the table; volatile, because the loader changes it after compilation.
#[inline(always)]
pub fn load(at: usize) -> u32 {
    // SAFETY: `at` is the offset of one of the table's fields, all of which are `u32`.
    unsafe { core::ptr::read_volatile((&raw const OFFSETS).cast::<u8>().wrapping_add(at).cast::<u32>()) }
}

/// Facts of the running kernel.
#[inline(always)]
pub fn facts() -> Facts {
    // SAFETY: a valid static.
    unsafe { core::ptr::read_volatile(&raw const FACTS) }
}

/// The value at `base + offset`; `None` when the kernel lacks the field or the read fails.
#[inline(always)]
pub fn read<T: Wire>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == ABSENT {
        return None;
    }
    // Zeroed, because before 6.3 the verifier refuses to see a byte of the stack that was never written.
    let mut value = MaybeUninit::<T>::zeroed();
    let source = (base + u64::from(offset)) as *const c_void;
    // SAFETY: the helper writes `size_of::<T>()` bytes and reports a bad address as an error.
    let failed = unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source) };
    // SAFETY: `Wire` values have no invalid bit patterns, zero included.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// The value at `address` of the running process; `None` when it cannot be read.
#[inline(always)]
pub fn read_user<T: Wire>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper writes `size_of::<T>()` bytes and reports a bad address as an error.
    let failed = unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void)
    };
    // SAFETY: as above.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// The running task's `struct task_struct`.
#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: no arguments, and there is always a current task.
    unsafe { bpf_get_current_task() }
}

/// Start of the process that `task` belongs to, in nanoseconds since boot: that of its first thread.
#[inline(always)]
pub fn process_start(task: u64) -> u64 {
    read::<u64>(task, offset!(task_group_leader))
        .and_then(|leader| read::<u64>(leader, offset!(task_start_boottime)))
        .unwrap_or(0)
}

/// The pid of `task` in its own pid namespace.
#[inline(always)]
pub fn inner_pid(task: u64) -> Option<u32> {
    let pid: u64 = read(task, offset!(task_thread_pid))?;
    let level: u32 = read(pid, offset!(pid_level))?;
    let size = offset!(upid_size);
    if level > 32 || size > 64 {
        return None; // MAX_PID_NS_LEVEL is 32
    }
    read(pid + u64::from(level * size), offset!(pid_numbers).wrapping_add(offset!(upid_nr)))
}

/// The open file behind a descriptor of the running process.
#[inline(always)]
pub fn file_of(fd: u64) -> Option<u64> {
    let files: u64 = read(current_task(), offset!(task_files))?;
    let table: u64 = read(files, offset!(files_fdt))?;
    let limit: u32 = read(table, offset!(fdtable_max_fds))?;
    if fd >= u64::from(limit) {
        return None;
    }
    let array: u64 = read(table, offset!(fdtable_fd))?;
    let file: u64 = read(array + fd * 8, 0)?;
    (file != 0).then_some(file)
}

/// The `struct sock` behind an open file, if it is a socket.
#[inline(always)]
pub fn sock_of(file: u64) -> Option<u64> {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    let inode: u64 = read(file, offset!(file_inode))?;
    let mode: u16 = read(inode, offset!(inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket: u64 = read(file, offset!(file_private_data))?;
    read(socket, offset!(socket_sk))
}
