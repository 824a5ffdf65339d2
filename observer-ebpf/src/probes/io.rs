//! Read and write: which bytes. A call's buffers are noted at its start and its bytes reported at its end.
use aya_ebpf::helpers::generated::bpf_probe_read_user as copy_from_user;
use observer_ebpf::config::ABSENT;
use observer_ebpf::config::RECEIVE_CAP;
use observer_ebpf::config::SEGMENTS;
use observer_ebpf::config::SEND_CAP;
use observer_ebpf::config::WHOLE_CAP;
use observer_ebpf::counter::Drop;
use observer_ebpf::key::Socket;
use observer_ebpf::key::wanted;
use observer_ebpf::key::watch;
use observer_ebpf::record::AF_UNIX;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Moved;

use crate::emit;
use crate::entry::Entry;
use crate::entry::Exit;
use crate::filter;
use crate::kernel;
use crate::kernel::offset;
use crate::maps::CALLS;
use crate::maps::RECORDS;
use crate::socket;
use crate::socket::Stream;
use crate::tls;

/// `MSG_OOB | MSG_PEEK | MSG_ERRQUEUE`: such a call does not move the stream.
pub const MSG_ASIDE: u64 = 1 | 2 | 0x2000;

/// How the preface of HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: [u8; 4] = *b"PRI ";
/// How long the answer is with which gunicorn goes over to HTTP/2 when it is asked to, and what it has where.
const AGREED_LEN: u64 = 71;
const AGREED_AT: u64 = 64;
const AGREED: [u8; 4] = *b"h2c\r";
/// The type of a frame of a body, and the bytes of a frame's header (RFC 9113, 4.1).
const DATA: u8 = 0;
const FRAME_HEADER: u64 = 9;

/// How a call's buffers are described.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Shape {
    /// Not in user memory (`sendfile`, `splice`): bytes are counted only.
    Opaque = 0,
    /// One buffer in user memory.
    Buffer = 1,
    /// An array of `struct iovec` in user memory.
    UserVector = 2,
    /// An array of `struct iovec` in kernel memory.
    KernelVector = 3,
}

/// The buffers of one call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Buffers {
    /// How to read the rest.
    pub shape: Shape,
    /// How many `iovec`s.
    pub segments: u32,
    /// The buffer or the array.
    pub base: u64,
    /// Bytes of the first buffer to skip.
    pub skip: u64,
}

/// A socket call under way.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// Its socket; 0 when the call is over. The entry stays until its thread ends, since making and removing one costs
    /// more than all else that is done for a call.
    sk: u64,
    /// Where its bytes are.
    pub buffers: Buffers,
    /// When bytes were ready to be read; 0: they were not when the call began.
    ready: u64,
    family: u16,
    /// Whether it reads.
    pub receives: u16,
    /// Whether the second of two programs noted it.
    again: u32,
}

impl Call {
    /// A call of which only the end is seen.
    #[inline(always)]
    pub fn ended(receives: bool, buffers: Buffers, ready: u64) -> Call {
        Call { sk: 0, buffers, ready, family: 0, receives: u16::from(receives), again: 0 }
    }

    /// The entry of its socket.
    #[inline(always)]
    pub fn socket(&self) -> Option<*mut Socket> {
        socket::entry(Stream { sk: self.sk, family: self.family })
    }
}

/// A payload of at most `N` bytes behind its record.
#[repr(C)]
struct Frame<const N: usize> {
    moved: Moved,
    bytes: [u8; N],
}

/// A kernel socket function starts: arguments 0 and 1 are `struct socket` and `struct msghdr`, `flags` the
/// argument that holds `MSG_*`, where there is one.
#[inline(always)]
pub fn begin_message(cx: &impl Entry, receives: bool, flags: Option<usize>) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    if let Some(n) = flags
        && cx.arg(n)? & MSG_ASIDE != 0
    {
        return None;
    }
    let sk = kernel::read(cx.arg(0)?, offset!(socket_sk))?;
    let buffers = iterator(cx.arg(1)? + u64::from(offset!(msghdr_iter)));
    begin(cx, sk, receives, buffers)
}

/// A kernel socket function that sends pages starts: argument 0 is `struct socket`.
#[inline(always)]
pub fn begin_pages(cx: &impl Entry, receives: bool) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let sk = kernel::read(cx.arg(0)?, offset!(socket_sk))?;
    begin(cx, sk, receives, OPAQUE)
}

/// Buffers whose bytes cannot be copied.
pub const OPAQUE: Buffers = Buffers { shape: Shape::Opaque, segments: 0, base: 0, skip: 0 };

/// The buffers of a `struct iov_iter`, before the call consumes it.
#[inline(always)]
fn iterator(iter: u64) -> Buffers {
    let facts = kernel::facts();
    let kind = u32::from(kernel::read::<u8>(iter, offset!(iter_type)).unwrap_or(0xff)) & facts.iter_mask;
    let skip = kernel::read(iter, offset!(iter_offset)).unwrap_or(0);
    if kind == facts.iter_iovec {
        let base = kernel::read(iter, offset!(iter_iov)).unwrap_or(0);
        let segments = kernel::read::<u64>(iter, offset!(iter_segments)).unwrap_or(0) as u32;
        Buffers { shape: Shape::KernelVector, segments, base, skip }
    } else if facts.iter_ubuf != ABSENT && kind == facts.iter_ubuf {
        let base: u64 = kernel::read(iter, offset!(iter_ubuf)).unwrap_or(0);
        Buffers { shape: Shape::Buffer, segments: 1, base: base.wrapping_add(skip), skip: 0 }
    } else {
        OPAQUE
    }
}

/// A call on the socket `sk` starts; only those on streams are noted.
#[inline(always)]
pub fn begin(cx: &impl Entry, sk: u64, receives: bool, buffers: Buffers) -> Option<()> {
    let thread = filter::current();
    let entry = CALLS.get_ptr_mut(thread);
    // SAFETY: the entry is this thread's own: nobody else writes or removes it.
    let before = entry.map(|entry| unsafe { &*entry }).filter(|call| call.sk != 0);
    // Two programs at one place run in an order that the kernel chooses.
    if let Some(call) = before
        && call.again != u32::from(cx.again())
        && call.sk == sk
        && call.buffers.base == buffers.base
    {
        return None; // the other program noted it
    }
    let stream = socket::stream(sk)?;
    if before.is_some() {
        emit::lost(Drop::MissedReturn); // a thread has one call at a time, so the last one's end went by
    }
    let family = stream.family;
    let mut ready = 0;
    if receives && family != AF_UNIX {
        let next: u32 = kernel::read(sk, offset!(tcp_rcv_nxt)).unwrap_or(0);
        let copied: u32 = kernel::read(sk, offset!(tcp_copied_seq)).unwrap_or(0);
        if next != copied {
            ready = socket::last_packet(stream);
        }
    }
    let call =
        Call { sk, buffers, ready, family, receives: u16::from(receives), again: u32::from(cx.again()) };
    match entry {
        // SAFETY: as above.
        Some(entry) => unsafe { *entry = call },
        None if CALLS.insert(thread, call, 0).is_err() => emit::lost(Drop::CallsFull),
        None => {}
    }
    Some(())
}

/// The running thread ends.
#[inline(always)]
pub fn forget() {
    let _had = CALLS.remove(filter::current()).is_ok();
}

/// The call that this thread began ends; its result is the number of bytes moved, or an error.
#[inline(always)]
pub fn end(cx: &impl Exit) -> Option<()> {
    let (call, size) = take(cx)?;
    if size == 0 && call.receives == 0 {
        return None;
    }
    moved(call.socket()?, &call, size as u64)
}

/// The call that this thread began, with its result; `None` when it failed or none was begun.
#[inline(always)]
pub fn take(cx: &impl Exit) -> Option<(Call, i64)> {
    // Only threads of watched processes have an entry: one question in place of two.
    let entry = CALLS.get_ptr_mut(filter::current())?;
    // SAFETY: the entry is this thread's own: nobody else writes or removes it.
    let entry = unsafe { &mut *entry };
    let call = *entry;
    if call.sk == 0 {
        return None;
    }
    entry.sk = 0;
    let result = cx.ret();
    (result >= 0).then_some((call, result))
}

/// `size` bytes of a socket moved through a call's buffers.
#[inline(always)]
pub fn moved(socket: *mut Socket, call: &Call, size: u64) -> Option<()> {
    let receives = call.receives != 0;
    // SAFETY: a live map value. Two threads that read one stream at a time may disturb the count; so they
    // do the stream itself.
    let socket = unsafe { &mut *socket };
    let total = if receives { &mut socket.received } else { &mut socket.sent };
    let offset = *total;
    *total = offset + size;
    if receives {
        socket.arrived = 0;
    }
    let conn = socket.conn;
    if socket.wanted == wanted::NOTHING {
        return None;
    }
    let header = emit::header(if receives { Kind::Received } else { Kind::Sent });
    let ready = match (receives && socket.family != u32::from(AF_UNIX), call.ready) {
        (false, _) => 0,
        (true, 0) => header.at,
        (true, ready) => ready,
    };
    if tls::hides(socket, call, size, ready, header.at) {
        return None;
    }
    let mut record = Moved { header, conn, offset, ready, size: 0, flags: 0 };
    let mut left = size;
    if size == 0 {
        emit::record(record); // the end of the stream
        return Some(());
    }
    if socket.wanted == wanted::SIZES {
        piece(&mut record, 0, size, 0);
        return Some(());
    }
    let cap = cap(socket, &call.buffers, offset, size, receives);
    let mut skip = call.buffers.skip;
    let mut n = 0u32;
    while n < SEGMENTS as u32 {
        let Some((base, len)) = segment(&call.buffers, n, left) else { break };
        let base = base.wrapping_add(skip);
        let take = len.saturating_sub(skip).min(left);
        skip = 0;
        if take > 0 {
            piece(&mut record, base, take, cap);
            left -= take;
        }
        if left == 0 {
            return Some(());
        }
        n += 1;
    }
    piece(&mut record, 0, left, 0);
    Some(())
}

/// How much of a buffer is copied: all of it where the client began with the preface of HTTP/2 or the server agreed to go over to
/// it, except of a write of one frame of a body, whose header is enough.
#[inline(always)]
pub fn cap(socket: &mut Socket, buffers: &Buffers, offset: u64, size: u64, receives: bool) -> u64 {
    let begins = receives && offset == 0;
    let agrees = !receives && size == AGREED_LEN;
    let is_large = !receives && size > SEND_CAP as u64 && socket.wanted == wanted::WHOLE;
    let mut is_body = false;
    if begins || agrees || is_large {
        let base = segment(buffers, 0, size).map_or(0, |(base, _)| base.wrapping_add(buffers.skip));
        let at = if agrees { AGREED_AT } else { 0 };
        let word = kernel::read_user::<[u8; 4]>(base.wrapping_add(at)).unwrap_or_default();
        if (begins && word == PREFACE) || (agrees && word == AGREED) {
            socket.wanted = wanted::WHOLE;
        }
        let [a, b, c, kind] = word;
        is_body =
            is_large && kind == DATA && u64::from(u32::from_be_bytes([0, a, b, c])) + FRAME_HEADER == size;
    }
    match (socket.wanted == wanted::WHOLE && !is_body, receives) {
        (true, _) => WHOLE_CAP as u64,
        (false, true) => RECEIVE_CAP as u64,
        (false, false) => SEND_CAP as u64,
    }
}

/// Base and length of the `n`th buffer.
#[inline(always)]
pub fn segment(buffers: &Buffers, n: u32, left: u64) -> Option<(u64, u64)> {
    if n >= buffers.segments {
        return None;
    }
    let at = buffers.base.wrapping_add(u64::from(n) * 16);
    let pair: [u64; 2] = match buffers.shape {
        Shape::Opaque => return None,
        Shape::Buffer => [buffers.base, left],
        Shape::UserVector => counted(kernel::read_user(at), Drop::UserFault)?,
        Shape::KernelVector => counted(kernel::read(at, 0), Drop::KernelFault)?,
    };
    Some((pair[0], pair[1]))
}

/// Counts a value that could not be read: what it leads to is not reported.
#[inline(always)]
pub fn counted<T>(value: Option<T>, reason: Drop) -> Option<T> {
    if value.is_none() {
        emit::lost(reason);
    }
    value
}

/// Reports the next `size` bytes of a call, and copies at most `cap` of them; they stand at `base`, or cannot be copied when
/// it is 0.
///
/// A function of its own: inlined into the loop over buffers it would make the verifier walk every
/// combination of sizes.
#[inline(never)]
pub fn piece(record: &mut Moved, base: u64, size: u64, cap: u64) {
    let copied = if base == 0 { 0 } else { size.min(cap) };
    record.size = size as u32;
    match copied {
        0 => emit::record(*record),
        1..=256 => framed::<256>(record, base, copied),
        257..=1_024 => framed::<1_024>(record, base, copied),
        1_025..=4_096 => framed::<4_096>(record, base, copied),
        4_097..=16_384 => framed::<RECEIVE_CAP>(record, base, copied),
        16_385..=65_536 => framed::<65_536>(record, base, copied),
        _ => framed::<WHOLE_CAP>(record, base, copied),
    }
    record.offset += size;
}

/// Writes a record with `len` bytes of payload, at most `N`.
#[inline(always)]
fn framed<const N: usize>(record: &Moved, base: u64, len: u64) {
    let Some(mut entry) = RECORDS.reserve::<Frame<N>>(0) else {
        return emit::lost(Drop::RingFull);
    };
    // The callers keep within `N`; hidden from the compiler, so that the verifier sees it checked here.
    let len = core::hint::black_box(len).min(N as u64) as u32;
    // SAFETY: reserved memory of this type, all of it integers; every field that is read later is written here.
    let frame = unsafe { &mut *entry.as_mut_ptr() };
    frame.moved = *record;
    // SAFETY: the helper writes at most `N` bytes and reports a bad user address as an error.
    if unsafe { copy_from_user(frame.bytes.as_mut_ptr().cast(), len, base as *const _) } == 0 {
        frame.moved.header.len = len;
    } else {
        emit::lost(Drop::UserFault);
    }
    entry.submit(emit::wake());
}
