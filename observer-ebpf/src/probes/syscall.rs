//! The socket layer seen from the system calls: descriptor to socket, arguments to buffers.
use observer_ebpf::counter::Drop;
use observer_ebpf::key::watch;

use crate::emit;
use crate::entry::Entry;
use crate::entry::Exit;
use crate::filter;
use crate::io;
use crate::io::Buffers;
use crate::io::Shape;
use crate::kernel;
use crate::kernel::offset;
use crate::socket;

/// How a system call hands over its buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// `(fd, buffer, length, flags?)`
    Buffer,
    /// `(fd, iovec, count)`
    Vector,
    /// `(fd, msghdr, flags)`
    Message,
    /// `(fd, mmsghdr, count, flags)`
    Messages,
}

/// A system call that moves bytes starts; `flags` is the argument that holds `MSG_*`, where there is one.
#[inline(always)]
pub fn begin(cx: &impl Entry, receives: bool, arguments: Arguments, flags: Option<usize>) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let sk = kernel::sock_of(kernel::file_of(cx.arg(0)?)?)?;
    if let Some(n) = flags
        && cx.arg(n)? & io::MSG_ASIDE != 0
    {
        return None;
    }
    let base = cx.arg(1)?;
    let buffers = match arguments {
        Arguments::Buffer => Buffers { shape: Shape::Buffer, segments: 1, base, skip: 0 },
        Arguments::Vector => Buffers { shape: Shape::UserVector, segments: cx.arg(2)? as u32, base, skip: 0 },
        Arguments::Message => message(base)?,
        Arguments::Messages => Buffers { base, ..io::OPAQUE },
    };
    io::begin(cx, sk, receives, buffers)
}

/// The buffers of a `struct user_msghdr`.
#[inline(always)]
pub fn message(at: u64) -> Option<Buffers> {
    let iov = at.wrapping_add(u64::from(offset!(user_msghdr_iov)));
    let len = at.wrapping_add(u64::from(offset!(user_msghdr_iovlen)));
    let base = io::counted(kernel::read_user(iov), Drop::UserFault)?;
    let segments = io::counted(kernel::read_user::<u64>(len), Drop::UserFault)? as u32;
    Some(Buffers { shape: Shape::UserVector, segments, base, skip: 0 })
}

/// `sendmmsg` or `recvmmsg` ends: its result counts messages, and each message says how many bytes it moved.
/// On a stream one message is the rule; what others move is counted as lost.
#[inline(always)]
pub fn end_messages(cx: &impl Exit) -> Option<()> {
    let (mut call, count) = io::take(cx)?;
    if count == 0 {
        return None;
    }
    if count > 1 {
        emit::lost(Drop::MessageList);
    }
    let first = call.buffers.base;
    let len = first.wrapping_add(u64::from(offset!(mmsghdr_len)));
    let size: u32 = io::counted(kernel::read_user(len), Drop::UserFault)?;
    call.buffers = message(first)?;
    io::moved(call.socket()?, &call, u64::from(size))
}

/// `splice(in, …, out, …)` starts: either end may be a socket, not both.
#[inline(always)]
pub fn begin_splice(cx: &impl Entry) -> Option<()> {
    begin_opaque(cx, true, 0).or_else(|| begin_opaque(cx, false, 2))
}

/// A call that moves bytes past user memory starts; argument `n` is a descriptor that may be a socket.
#[inline(always)]
pub fn begin_opaque(cx: &impl Entry, receives: bool, n: usize) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let sk = kernel::sock_of(kernel::file_of(cx.arg(n)?)?)?;
    io::begin(cx, sk, receives, io::OPAQUE)
}

/// `accept` or `accept4` ends: its result is the new descriptor.
#[inline(always)]
pub fn accepted(cx: &impl Exit) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let fd = u64::try_from(cx.ret()).ok()?;
    let sk = kernel::sock_of(kernel::file_of(fd)?)?;
    socket::accepted_sock(sk)
}
