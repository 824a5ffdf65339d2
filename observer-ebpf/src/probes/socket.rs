//! Accept and close: which connections there are.
use observer_ebpf::counter::Drop;
use observer_ebpf::key::Socket;
use observer_ebpf::key::cipher;
use observer_ebpf::key::wanted;
use observer_ebpf::key::watch;
use observer_ebpf::record::AF_INET;
use observer_ebpf::record::AF_INET6;
use observer_ebpf::record::AF_UNIX;
use observer_ebpf::record::Closed;
use observer_ebpf::record::Conn;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Opened;

use crate::emit;
use crate::entry::Entry;
use crate::filter;
use crate::kernel;
use crate::kernel::offset;
use crate::maps::SOCKETS;
use crate::tls;

const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const TCP_CLOSE: u64 = 7;

/// A stream socket of a family that is followed.
#[derive(Clone, Copy)]
pub struct Stream {
    /// Address of the `struct sock`.
    pub sk: u64,
    /// `AF_*`
    pub family: u16,
}

/// `sk` as a stream socket; `None` for datagrams and other families.
#[inline(always)]
pub fn stream(sk: u64) -> Option<Stream> {
    let family: u16 = kernel::read(sk, offset!(sock_family))?;
    let kind: u16 = kernel::read(sk, offset!(sock_type))?;
    let followed = match family {
        AF_UNIX => true,
        AF_INET | AF_INET6 => kernel::read::<u16>(sk, offset!(sock_protocol)).unwrap_or(0) == IPPROTO_TCP,
        _ => false,
    };
    (followed && kind == SOCK_STREAM).then_some(Stream { sk, family })
}

/// When the last packet of a TCP connection arrived or left, in kernel monotonic nanoseconds; 0 for others.
#[inline(always)]
pub fn last_packet(stream: Stream) -> u64 {
    if stream.family == AF_UNIX { 0 } else { last_packet_of(stream.sk) }
}

/// The same of a socket that is known to be one.
#[inline(always)]
pub fn last_packet_of(sk: u64) -> u64 {
    kernel::read::<u64>(sk, offset!(tcp_mstamp)).unwrap_or(0) * 1_000
}

/// The running process accepted a connection: argument 0 is its `sock` (`security_sock_graft`).
#[inline(always)]
pub fn accepted(cx: &impl Entry) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    accepted_sock(cx.arg(0)?)
}

/// Within which time a socket without any bytes is the one that was accepted just now, in nanoseconds.
const JUST_NOW: u64 = 100_000_000;

/// The running, watched process accepted the connection `sk`.
#[inline(always)]
pub fn accepted_sock(sk: u64) -> Option<()> {
    tls::accepted();
    if let Some(socket) = SOCKETS.get_ptr(sk) {
        // SAFETY: a live map value.
        let Socket { conn, received, sent, .. } = unsafe { *socket };
        if received == 0 && sent == 0 && emit::now() < conn.born.saturating_add(JUST_NOW) {
            return None; // the other of two programs noted it
        }
    }
    open(stream(sk)?, 1).map(|_| ())
}

/// The entry of a stream's socket; one that was not seen before is announced.
#[inline(always)]
pub fn entry(stream: Stream) -> Option<*mut Socket> {
    match SOCKETS.get_ptr_mut(stream.sk) {
        Some(socket) => Some(socket),
        None => open(stream, 0),
    }
}

/// The same of a socket of which it is not known that it is a stream's.
#[inline(always)]
pub fn followed(sk: u64) -> Option<*mut Socket> {
    SOCKETS.get_ptr_mut(sk).or_else(|| open(stream(sk)?, 0))
}

#[inline(always)]
fn open(stream: Stream, accepted: u16) -> Option<*mut Socket> {
    let Stream { sk, family } = stream;
    let header = emit::header(Kind::Opened);
    let conn = Conn { sock: sk, born: header.at };
    let socket = Socket {
        conn,
        received: 0,
        sent: 0,
        session: 0,
        plain_received: 0,
        plain_sent: 0,
        ready: 0,
        arrived: 0,
        wanted: wanted::BYTES,
        cipher: if accepted == 1 { cipher::UNKNOWN } else { cipher::LATE },
        family: u32::from(family),
        zero: 0,
    };
    if SOCKETS.insert(sk, socket, 0).is_err() {
        emit::lost(Drop::SocketsFull);
        return None;
    }
    let mut opened = Opened {
        header,
        conn,
        ready: last_packet(stream),
        family,
        accepted,
        local_port: 0,
        peer_port: 0,
        local: [0; 16],
        peer: [0; 16],
        netns: 0,
        zero: 0,
    };
    if family != AF_UNIX {
        opened.local_port = kernel::read(sk, offset!(sock_num)).unwrap_or(0);
        opened.peer_port = u16::from_be(kernel::read(sk, offset!(sock_dport)).unwrap_or(0));
        if family == AF_INET6 {
            opened.local = kernel::read(sk, offset!(sock_v6_rcv_saddr)).unwrap_or_default();
            opened.peer = kernel::read(sk, offset!(sock_v6_daddr)).unwrap_or_default();
        } else {
            let local: [u8; 4] = kernel::read(sk, offset!(sock_rcv_saddr)).unwrap_or_default();
            let peer: [u8; 4] = kernel::read(sk, offset!(sock_daddr)).unwrap_or_default();
            [opened.local[0], opened.local[1], opened.local[2], opened.local[3]] = local;
            [opened.peer[0], opened.peer[1], opened.peer[2], opened.peer[3]] = peer;
        }
    }
    let net = kernel::read(sk, offset!(sock_net)).unwrap_or(0);
    opened.netns = kernel::read(net, offset!(net_inum)).unwrap_or(0);
    emit::record(opened);
    SOCKETS.get_ptr_mut(sk)
}

/// The last reference to a socket goes: argument 0 is its `struct socket` (`inet_release`, `unix_release`).
#[inline(always)]
pub fn released(cx: &impl Entry) -> Option<()> {
    let sk = kernel::read(cx.arg(0)?, offset!(socket_sk))?;
    closed(sk)
}

/// A TCP socket changed state: arguments are its `sock`, the old state and the new (`inet_sock_set_state`).
#[inline(always)]
pub fn state_changed(cx: &impl Entry) -> Option<()> {
    // The state is an `int`: the upper half of the slot is undefined.
    if cx.arg(2)? & 0xffff_ffff != TCP_CLOSE {
        return None;
    }
    closed(cx.arg(0)?)
}

/// The running process closes a descriptor; its socket goes with the last reference to the open file.
#[inline(always)]
pub fn closing(cx: &impl Entry) -> Option<()> {
    if !filter::watched_for(watch::TRAFFIC) {
        return None;
    }
    let file = kernel::file_of(cx.arg(0)?)?;
    let sk = kernel::sock_of(file)?;
    let references: u64 = kernel::read(file, offset!(file_count))?;
    if references as u32 != kernel::facts().file_last {
        return None; // a duplicate, another process or a call under way still holds it
    }
    closed(sk)
}

/// Forgets a socket and says so; whoever closes it, only sockets of watched processes are in the table.
#[inline(always)]
fn closed(sk: u64) -> Option<()> {
    let socket = SOCKETS.get_ptr_mut(sk)?;
    // SAFETY: a live map value.
    let conn = unsafe { (*socket).conn };
    if SOCKETS.remove(sk).is_ok() {
        emit::record(Closed { header: emit::header(Kind::Closed), conn });
    }
    Some(())
}
