//! The socket layer seen from its own tracepoints: they name the socket; where the bytes are, the registers tell with which
//! the process entered the kernel.
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use observer_ebpf::counter::Drop;
use observer_ebpf::key::watch;

use crate::emit;
use crate::entry::Entry;
use crate::filter;
use crate::io;
use crate::io::Buffers;
use crate::io::Call;
use crate::io::Shape;
use crate::kernel::offset;
use crate::socket;
use crate::syscall;

/// Numbers of x86-64's system calls (`arch/x86/entry/syscalls/syscall_64.tbl`). Those of 32-bit programs that move bytes are
/// none of these.
mod number {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const RECVMMSG: u64 = 299;
    pub const SENDMMSG: u64 = 307;
}

/// Bytes of a TCP connection are about to be taken out of its queue, after they were copied: argument 0 is its `sock`
/// (`tcp_rcv_space_adjust`). Behind it the kernel forgets when the last packet came.
#[inline(always)]
pub fn taken(cx: &impl Entry) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let sk = cx.arg(0)?;
    // SAFETY: a live map value. Two threads that read one stream at a time may disturb the time; so they do the stream itself.
    let socket = unsafe { &mut *socket::followed(sk)? };
    if socket.arrived == 0 {
        socket.arrived = socket::last_packet_of(sk);
    }
    Some(())
}

/// A call of the socket layer ends: arguments are its `sock`, how many bytes it moved or an error, and `MSG_*`
/// (`sock_recv_length`, `sock_send_length`).
#[inline(always)]
pub fn moved(cx: &impl Entry, receives: bool) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    // Both are `int`: the upper half of the slot is undefined.
    let size = u64::try_from(cx.arg(1)? as i32).ok()?;
    if size == 0 && !receives || receives && cx.arg(2)? & io::MSG_ASIDE != 0 {
        return None;
    }
    let socket = socket::followed(cx.arg(0)?)?;
    // SAFETY: a live map value; the program holds the RCU read lock for its whole run.
    let ready = unsafe { (*socket).arrived };
    io::moved(socket, &Call::ended(receives, buffers(), ready), size)
}

/// The buffers of the system call that the running thread is in.
#[inline(always)]
fn buffers() -> Buffers {
    let base = argument(offset!(regs_si));
    match argument(offset!(regs_orig_ax)) {
        number::READ | number::WRITE | number::SENDTO | number::RECVFROM => {
            Buffers { shape: Shape::Buffer, segments: 1, base, skip: 0 }
        }
        number::READV | number::WRITEV => {
            let segments = argument(offset!(regs_dx)) as u32;
            Buffers { shape: Shape::UserVector, segments, base, skip: 0 }
        }
        number::SENDMSG | number::RECVMSG => syscall::message(base).unwrap_or(io::OPAQUE),
        number::SENDMMSG | number::RECVMMSG => {
            if argument(offset!(regs_dx)) == 1 {
                return syscall::message(base).unwrap_or(io::OPAQUE);
            }
            emit::lost(Drop::MessageList);
            io::OPAQUE
        }
        _ => io::OPAQUE,
    }
}

/// A register of the process. The verifier knows the type behind the pointer, so that this is one load; where the kernel has
/// no such register, it refuses the program.
#[inline(always)]
fn argument(offset: u32) -> u64 {
    // SAFETY: no arguments, and there is always a current task.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: the registers of the current task, which enters the kernel with them.
    let registers = unsafe { bpf_task_pt_regs(task) } as u64;
    // SAFETY: the verifier refuses what is no field of `struct pt_regs`, and lets such a load of a bad address read 0.
    unsafe { read_volatile((registers + u64::from(offset)) as *const u64) }
}
