//! Fork, exec, exit, worker slot and heartbeat: who exists and who is alive.
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::bpf_probe_read_user_str_bytes;
use observer_ebpf::config::BEAT_INTERVAL;
use observer_ebpf::counter::Drop;
use observer_ebpf::key::Watch;
use observer_ebpf::key::watch;
use observer_ebpf::record::Execed;
use observer_ebpf::record::Exited;
use observer_ebpf::record::Forked;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Signalled;
use observer_ebpf::record::Slot;
use observer_ebpf::record::exited;
use observer_ebpf::record::forked;

use crate::emit;
use crate::entry::Entry;
use crate::filter;
use crate::io;
use crate::kernel;
use crate::kernel::offset;
use crate::maps::SLOTS;
use crate::maps::WATCHED;
use crate::program;

/// Every worker slot's file name starts so (gunicorn, `workers/workertmp.py`, 20.1 to 27).
const SLOT_PREFIX: [u8; 10] = *b"wgunicorn-";
/// What `tempfile.mkstemp` appends to the prefix.
const SLOT_SUFFIX: usize = 8;
/// `SI_KERNEL` of `<asm-generic/siginfo.h>`.
const SI_KERNEL: i32 = 128;
/// `SI_TIMER` of the same.
const SI_TIMER: i32 = -2;
/// `TRACE_SIGNAL_IGNORED` of `<trace/events/signal.h>`: the target is dying already, or does not want it.
const IGNORED: u32 = 1;

/// A task was made and is about to run: argument `n` is its `task_struct`.
#[inline(always)]
pub fn forked(cx: &impl Entry, n: usize) -> Option<()> {
    let watch = filter::watched()?;
    let child = cx.arg(n)?;
    let child_pid: u32 = io::counted(kernel::read(child, offset!(task_tgid)), Drop::KernelFault)?;
    if child_pid == filter::current_process() {
        return None; // a thread
    }
    let parent = kernel::current_task();
    let memory = |task| kernel::read::<u64>(task, offset!(task_mm)).unwrap_or(0);
    let shares = memory(child) == memory(parent);
    let worker = !shares && SLOTS.remove(filter::current()).is_ok();
    // SAFETY: a live map value.
    let inherited = unsafe { (*watch).flags };
    let disregarded = inherited & watch::DISREGARDED != 0;
    let flags = match (worker, shares) {
        _ if disregarded => inherited,
        (true, _) => watch::LIFE | watch::TRAFFIC,
        (_, true) => watch::LIFE,
        (false, false) => inherited,
    };
    if WATCHED.insert(child_pid, Watch { flags, zero: 0, beat: 0 }, 0).is_err() {
        emit::lost(Drop::WatchedFull);
    }
    emit::record(Forked {
        header: emit::header(Kind::Forked),
        child: child_pid,
        child_inner: kernel::inner_pid(child).unwrap_or(child_pid),
        child_start: kernel::process_start(child),
        parent_start: kernel::process_start(parent),
        flags: (u32::from(shares) * forked::SHARES_MEMORY)
            | (u32::from(worker) * forked::WORKER)
            | (u32::from(disregarded) * forked::DISREGARDED),
        zero: 0,
    });
    Some(())
}

/// The running process replaced its program; what it was before no longer counts.
#[inline(always)]
pub fn execed() -> Option<()> {
    program::started();
    let watch = filter::watched()?;
    // SAFETY: a live map value.
    unsafe { (*watch).flags = watch::LIFE };
    let start = kernel::process_start(kernel::current_task());
    emit::record(Execed { header: emit::header(Kind::Execed), start });
    Some(())
}

/// A thread of the running process is ending; the last one ends the process.
#[inline(always)]
pub fn exited() -> Option<()> {
    io::forget(); // also when the process was reported by another of its threads
    filter::watched()?;
    // A slot that its thread did not fork for is not to make a worker of what a later thread of this number forks.
    let _made = SLOTS.remove(filter::current()).is_ok();
    let task = kernel::current_task();
    let signal: u64 = kernel::read(task, offset!(task_signal))?;
    let live: u32 = kernel::read(signal, offset!(signal_live))?;
    if live != 0 {
        return None;
    }
    if WATCHED.remove(filter::current_process()).is_err() {
        return None; // reported already
    }
    let group: u32 = kernel::read(signal, offset!(signal_group_exit_code)).unwrap_or(0);
    let leader = kernel::read(task, offset!(task_group_leader)).unwrap_or(task);
    let status = if group != 0 { group } else { kernel::read(leader, offset!(task_exit_code)).unwrap_or(0) };
    let start = kernel::process_start(task);
    // The kernel keeps what the process had in memory from the choice to the end of the structure.
    let oom = kernel::read::<u64>(signal, offset!(signal_oom_mm)).is_some_and(|memory| memory != 0);
    let flags = u32::from(oom) * exited::OOM;
    emit::record(Exited { header: emit::header(Kind::Exited), start, status, flags });
    Some(())
}

/// A signal was sent: arguments of `signal_generate`.
#[inline(always)]
pub fn signalled(cx: &impl Entry) -> Option<()> {
    let (signal, info, task, result) = (cx.arg(0)? as u32, cx.arg(1)?, cx.arg(2)?, cx.arg(4)? as u32);
    let target: u32 = kernel::read(task, offset!(task_tgid))?;
    if result == IGNORED || is_harmless(signal) || WATCHED.get_ptr(target).is_none() {
        return None;
    }
    // `SEND_SIG_NOINFO` and `SEND_SIG_PRIV` of `<linux/sched/signal.h>` stand for a process and for the kernel.
    let code = match info {
        0 => 0,
        1 => SI_KERNEL,
        info => io::counted(kernel::read(info, offset!(siginfo_code)), Drop::KernelFault)?,
    };
    if is_timed(signal) && !(code <= 0 && code != SI_TIMER) {
        return None; // a profiler's clock, many times a second
    }
    emit::record(Signalled {
        header: emit::header(Kind::Signalled),
        target,
        signal,
        target_start: kernel::process_start(task),
        code,
        result,
        sender: bpf_get_current_comm().unwrap_or_default(),
    });
    Some(())
}

/// Whether a signal by default ends nothing and steers nothing. Numbers of x86 and ARM: CHLD CONT STOP TSTP URG, and 32 and
/// 33, which the C library keeps for itself.
#[inline(always)]
fn is_harmless(signal: u32) -> bool {
    const HARMLESS: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23 | 1 << 32 | 1 << 33;
    signal < 64 && HARMLESS >> signal & 1 == 1
}

/// Whether clocks send it: ALRM VTALRM PROF, and those of real time.
#[inline(always)]
fn is_timed(signal: u32) -> bool {
    matches!(signal, 14 | 26 | 27) || signal >= 34
}

/// A file is being unlinked; argument 1 is its `dentry`.
#[inline(always)]
pub fn unlinked_dentry(cx: &impl Entry) -> Option<()> {
    let dentry = cx.arg(1)?;
    let inode = slot_inode(dentry)?;
    slotted(cx, Some(inode))
}

/// A file is being unlinked; argument `n` is its path in user memory.
#[inline(always)]
pub fn unlinked_path(cx: &impl Entry, n: usize) -> Option<()> {
    let path = cx.arg(n)?;
    let mut bytes = [0u8; 256];
    // SAFETY: the helper checks the user address and reports a bad one as an error.
    let len = unsafe { bpf_probe_read_user_str_bytes(path as *const u8, &mut bytes) }.ok()?.len();
    let tail = len.checked_sub(SLOT_PREFIX.len() + SLOT_SUFFIX)? as u64;
    let name: [u8; 10] = kernel::read_user(path + tail)?;
    if name != SLOT_PREFIX {
        return None;
    }
    slotted(cx, None)
}

/// The running thread made a worker slot: it is an arbiter, and its next fork is a worker.
#[inline(always)]
fn slotted(cx: &impl Entry, inode: Option<u64>) -> Option<()> {
    let (thread, again) = (filter::current(), u32::from(cx.again()));
    // SAFETY: the entry is this thread's own: nobody else writes or removes it.
    if unsafe { SLOTS.get(thread) }.is_some_and(|by| *by != again) {
        return None; // the other of two programs noted it
    }
    if SLOTS.insert(thread, again, 0).is_err() {
        emit::lost(Drop::WatchedFull);
    }
    if filter::watched().is_none() {
        let watch = Watch { flags: watch::LIFE, zero: 0, beat: 0 };
        if WATCHED.insert(filter::current_process(), watch, 0).is_err() {
            emit::lost(Drop::WatchedFull);
        }
    }
    emit_slot(Kind::Slotted, inode);
    Some(())
}

/// A file's times are set: argument 0 is its `struct path`.
#[inline(always)]
pub fn beat_path(cx: &impl Entry) -> Option<()> {
    let watch = beating()?;
    beat(watch, kernel::read(cx.arg(0)?, offset!(path_dentry))?)
}

/// A file's mode is set: argument 0 is its `struct file`.
#[inline(always)]
pub fn beat_file(cx: &impl Entry) -> Option<()> {
    let watch = beating()?;
    beat(watch, kernel::read(cx.arg(0)?, offset!(file_dentry))?)
}

/// A file's times or mode are set: argument 0 is its descriptor.
#[inline(always)]
pub fn beat_descriptor(cx: &impl Entry) -> Option<()> {
    let watch = beating()?;
    let file = kernel::file_of(cx.arg(0)?)?;
    beat(watch, kernel::read(file, offset!(file_dentry))?)
}

/// The running process's entry, if no heartbeat of it was reported just now.
#[inline(always)]
fn beating() -> Option<*mut Watch> {
    let watch = filter::watched()?;
    // SAFETY: a live map value.
    let last = unsafe { (*watch).beat };
    (emit::now() >= last.saturating_add(BEAT_INTERVAL)).then_some(watch)
}

/// The file behind `dentry` is touched: a heartbeat if it is a worker slot. Only workers beat, so that one whose fork
/// was taken for another's (a `pre_fork` hook that forks, too) is known from here on.
#[inline(always)]
fn beat(entry: *mut Watch, dentry: u64) -> Option<()> {
    let inode = slot_inode(dentry)?;
    // SAFETY: a live map value.
    let entry = unsafe { &mut *entry };
    if entry.flags & watch::DISREGARDED == 0 {
        entry.flags = watch::LIFE | watch::TRAFFIC;
    }
    entry.beat = emit::now();
    emit_slot(Kind::Beat, Some(inode));
    Some(())
}

/// The inode behind `dentry`, if its name is a worker slot's.
#[inline(always)]
fn slot_inode(dentry: u64) -> Option<u64> {
    let name: u64 = kernel::read(dentry, offset!(dentry_name))?;
    let name: [u8; 10] = kernel::read(name, 0)?;
    if name != SLOT_PREFIX {
        return None;
    }
    kernel::read(dentry, offset!(dentry_inode))
}

#[inline(always)]
fn emit_slot(kind: Kind, inode: Option<u64>) {
    let (mut ino, mut dev) = (0, 0);
    if let Some(inode) = inode {
        ino = kernel::read(inode, offset!(inode_ino)).unwrap_or(0);
        let sb = kernel::read(inode, offset!(inode_sb)).unwrap_or(0);
        dev = kernel::read(sb, offset!(sb_dev)).unwrap_or(0);
    }
    let start = kernel::process_start(kernel::current_task());
    emit::record(Slot { header: emit::header(kind), start, ino, dev, zero: 0 });
}
