//! OpenSSL's reads and writes: the bytes of a connection, as its process sees them.
//!
//! A session is bound to a connection once: by the first socket call inside one of its calls. A session that works on memory
//! has none of those. It is bound when its handshake goes on, to the connection that the thread has read just before and that
//! has no session: event loops hand over what they read at once. Of one that is older than the probes, its first bytes are
//! that moment.
use aya_ebpf::programs::ProbeContext;
use observer_ebpf::counter::Drop;
use observer_ebpf::key::Socket;
use observer_ebpf::key::cipher;
use observer_ebpf::key::wanted;
use observer_ebpf::key::watch;
use observer_ebpf::record::Conn;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Moved;
use observer_ebpf::record::moved;

use crate::emit;
use crate::entry;
use crate::filter;
use crate::io;
use crate::io::Buffers;
use crate::io::Shape;
use crate::kernel;
use crate::maps::CIPHERS;
use crate::maps::SESSIONS;
use crate::maps::SOCKETS;
use crate::maps::TLS_CALLS;

/// Type of a TLS record that belongs to a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;
/// Types of all records, and what follows them: the first byte of a version, and the highest second one.
const TYPES: core::ops::RangeInclusive<u8> = 0x14..=0x17;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

/// A session: the address of its structure, and the process that this is in.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Session {
    process: u64,
    address: u64,
}

/// A call of a TLS library under way.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    session: Session,
    /// Where the bytes are.
    base: u64,
    /// Where the library puts their number; 0: it returns it.
    count: u64,
    /// The stack pointer, which is the same when the call ends.
    stack: u64,
    /// Whether it reads.
    receives: u64,
    /// When its last socket call ended; 0: it has had none.
    at: u64,
}

/// How a function says how many bytes it moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// It returns their number, and no positive one when it fails.
    Returned,
    /// It returns 1 and puts their number where its fourth argument points to.
    Written,
}

/// What [`SESSIONS`] has for a session that works on memory and is not bound.
const MEMORY: Conn = Conn { sock: 0, born: 1 };
/// The same for one that accepts: others ask for connections themselves.
const SERVER: Conn = Conn { sock: 0, born: 2 };

/// `SSL_set_bio(session, input, output)` is entered: a socket is both of them.
#[inline(always)]
pub fn made(cx: &ProbeContext) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let session = session(cx.arg(0)?);
    let [input, output]: [u64; 2] = [cx.arg(1)?, cx.arg(2)?];
    if input == output {
        return SESSIONS.remove(session).ok();
    }
    SESSIONS.insert(session, MEMORY, 0).ok()
}

/// The session that is argument 0, if its process is watched and [`SESSIONS`] has this for it.
#[inline(always)]
fn unbound(cx: &ProbeContext, state: Conn) -> Option<Session> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let session = session(cx.arg(0)?);
    // SAFETY: a live map value; its parts are written together before it is there.
    (*unsafe { SESSIONS.get(session) }? == state).then_some(session)
}

/// `SSL_set_accept_state(session)` is entered.
#[inline(always)]
pub fn accepts(cx: &ProbeContext) -> Option<()> {
    let session = unbound(cx, MEMORY)?;
    SESSIONS.insert(session, SERVER, 0).ok()
}

/// `SSL_do_handshake(session)` is entered.
#[inline(always)]
pub fn greets(cx: &ProbeContext) -> Option<()> {
    let session = unbound(cx, SERVER)?;
    let socket = last_read().filter(|socket| socket.session == 0 && socket.cipher == cipher::YES)?;
    bind(socket, session);
    Some(())
}

/// The running thread has accepted a connection: what it read before belongs to none of its next sessions.
#[inline(always)]
pub fn accepted() {
    let thread = filter::current();
    if CIPHERS.get_ptr(thread).is_some() && CIPHERS.remove(thread).is_err() {
        // It was there just now, and only this thread removes it; or the kernel made room meanwhile.
    }
}

/// `SSL_read(session, buffer, size)`, or one of those like it, is entered.
#[inline(always)]
pub fn begin(cx: &ProbeContext, receives: bool, count: Count) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let call = Call {
        session: session(cx.arg(0)?),
        base: cx.arg(1)?,
        count: if count == Count::Written { cx.arg(3)? } else { 0 },
        stack: entry::stack(cx),
        receives: u64::from(receives),
        at: 0,
    };
    if TLS_CALLS.get_ptr(filter::current()).is_some() {
        emit::lost(Drop::MissedReturn);
    }
    if TLS_CALLS.insert(filter::current(), call, 0).is_err() {
        emit::lost(Drop::CallsFull);
    }
    Some(())
}

/// One of these functions, or another one that they end in, returns.
#[inline(always)]
pub fn end(cx: &ProbeContext) -> Option<()> {
    let thread = filter::current();
    // SAFETY: the entry is this thread's own: nobody else writes or removes it.
    let call = *unsafe { TLS_CALLS.get(thread) }?;
    if call.stack != entry::stack(cx) || TLS_CALLS.remove(thread).is_err() {
        return None; // what returns was called by another function than ours
    }
    let result = entry::result(cx) as i32; // `int`: the upper half of the register is undefined
    if result <= 0 {
        return None;
    }
    let size = match call.count {
        0 => result as u64,
        at => io::counted(kernel::read_user(at), Drop::UserFault)?,
    };
    if size == 0 {
        return None;
    }
    let socket = match bound(&call.session) {
        Some(socket) => socket,
        None if call.receives != 0 => fed(&call.session, size)?,
        None => return None,
    };
    let receives = call.receives != 0;
    let (kind, total) = match receives {
        true => (Kind::Received, &mut socket.plain_received),
        false => (Kind::Sent, &mut socket.plain_sent),
    };
    let offset = *total;
    *total = offset + size;
    if socket.wanted == wanted::NOTHING {
        return None;
    }
    let ready = if receives { socket.ready } else { 0 };
    let mut header = emit::header(kind);
    if call.at != 0 {
        header.at = call.at; // when the peer could see it, and not when the library came back
    }
    let mut record = Moved { header, conn: socket.conn, offset, ready, size: 0, flags: moved::PLAIN };
    let buffers = Buffers { shape: Shape::Buffer, segments: 1, base: call.base, skip: 0 };
    let (base, cap) = match socket.wanted {
        wanted::SIZES => (0, 0),
        _ => (call.base, io::cap(socket, &buffers, offset, size, receives)),
    };
    io::piece(&mut record, base, size, cap);
    Some(())
}

/// `SSL_free(session)` is entered: another session may be at this address afterwards.
#[inline(always)]
pub fn freed(cx: &ProbeContext) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let session = session(cx.arg(0)?);
    let socket = bound(&session);
    if let Some(socket) = socket {
        socket.session = 0;
    }
    SESSIONS.remove(session).ok()
}

/// Whether bytes that a socket call moved then are not to be reported: they are encrypted, and that is known.
#[inline(always)]
pub fn hides(socket: &mut Socket, call: &io::Call, size: u64, ready: u64, at: u64) -> bool {
    if socket.cipher == cipher::NO {
        return false;
    }
    let receives = call.receives != 0;
    let announced = socket.cipher == cipher::YES;
    if socket.session == 0 && !announced {
        if size == 0 {
            return false;
        }
        if !begins_like_tls(call, size, socket.cipher == cipher::UNKNOWN) {
            if socket.cipher == cipher::UNKNOWN {
                socket.cipher = cipher::NO;
            }
            return false;
        }
        if socket.cipher == cipher::UNKNOWN {
            socket.cipher = cipher::YES;
        }
    }
    if receives {
        socket.ready = ready;
    }
    let thread = filter::current();
    if let Some(within) = TLS_CALLS.get_ptr_mut(thread) {
        // SAFETY: a live map value, of this thread's own.
        let within = unsafe { &mut *within };
        within.at = at;
        if socket.session == 0 && bound(&within.session).is_none() {
            bind(socket, within.session);
        }
    } else if socket.session == 0 && receives && CIPHERS.insert(thread, socket.conn, 0).is_err() {
        emit::lost(Drop::CallsFull);
    }
    announced || socket.session != 0
}

/// Whether the first bytes of a call begin a TLS record; those of a connection begin a handshake.
#[inline(always)]
fn begins_like_tls(call: &io::Call, size: u64, is_first: bool) -> bool {
    let Some((base, _)) = io::segment(&call.buffers, 0, size) else { return false };
    let base = base.wrapping_add(call.buffers.skip);
    if is_first {
        return kernel::read_user::<u8>(base) == Some(HANDSHAKE); // more may not be there yet
    }
    let [kind, major, minor] = kernel::read_user::<[u8; 3]>(base).unwrap_or_default();
    size > 3 && TYPES.contains(&kind) && major == MAJOR && minor <= MINOR
}

#[inline(always)]
fn session(address: u64) -> Session {
    Session { process: u64::from(filter::current_process()), address }
}

/// The socket that a session is bound to, while that is open.
#[inline(always)]
fn bound(session: &Session) -> Option<&'static mut Socket> {
    // SAFETY: a live map value; its parts are written together before it is there.
    let conn = *unsafe { SESSIONS.get(*session) }?;
    open(conn).filter(|socket| socket.session == session.address)
}

#[inline(always)]
fn open(conn: Conn) -> Option<&'static mut Socket> {
    // SAFETY: a live map value. Two threads that use one session at a time have to wait for one another themselves.
    let socket = unsafe { &mut *SOCKETS.get_ptr_mut(conn.sock)? };
    (socket.conn.born == conn.born).then_some(socket)
}

/// Binds a session that is older than the probes, and that has just given so many bytes: they came from what the thread read
/// last.
#[inline(always)]
fn fed(session: &Session, size: u64) -> Option<&'static mut Socket> {
    if SESSIONS.get_ptr(*session).is_some() {
        return None; // it is bound otherwise, or to a connection that is gone
    }
    let is_one = |socket: &&mut Socket| socket.session == 0 && socket.cipher == cipher::LATE;
    let socket = last_read().filter(is_one).filter(|socket| socket.received > size)?;
    bind(socket, *session);
    Some(socket)
}

/// The encrypted connection that the running thread has read from last; it is told once.
#[inline(always)]
fn last_read() -> Option<&'static mut Socket> {
    let thread = filter::current();
    // SAFETY: the entry is this thread's own: nobody else writes or removes it.
    let conn = *unsafe { CIPHERS.get(thread) }?;
    CIPHERS.remove(thread).ok()?;
    open(conn)
}

/// Binds a session to a connection, and says that its bytes are seen from here on.
#[inline(always)]
fn bind(socket: &mut Socket, session: Session) {
    if SESSIONS.insert(session, socket.conn, 0).is_err() {
        return emit::lost(Drop::SocketsFull);
    }
    socket.session = session.address;
    socket.cipher = cipher::YES;
    let header = emit::header(Kind::Received);
    let (conn, offset) = (socket.conn, socket.plain_received);
    emit::record(Moved { header, conn, offset, ready: 0, size: 0, flags: moved::PLAIN });
}
