//! Request and response paired, with their times and the process that served them.
mod http2;
mod pair;
mod room;
#[cfg(test)]
mod tests;
mod turn;
mod verdict;
mod waiting;
mod websocket;

use crate::clock::KernelTime;
pub use crate::protocol::http1::Phrase;
use crate::stats::Drops;
use crate::stats::Reason;
use crate::stream::Connections;
use crate::stream::Displaced;
use crate::stream::Known;
use compact_str::CompactString;
use http2::Http2;
use observer_ebpf::record::AF_INET;
use observer_ebpf::record::AF_INET6;
use observer_ebpf::record::AF_UNIX;
use observer_ebpf::record::Closed;
use observer_ebpf::record::Conn;
use observer_ebpf::record::Moved;
use observer_ebpf::record::Opened;
use observer_ebpf::record::moved;
use pair::Connection;
use room::Room;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
pub use turn::Turn;
use verdict::Verdict;
pub use websocket::Carried;
use websocket::WebSocket;

/// Closed connections whose room is kept: more than these are seldom opened before another one is closed.
const SPARE: usize = 64;

/// The ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// TCP over IPv4 or IPv6.
    Tcp {
        /// The worker's end.
        local: SocketAddr,
        /// The client's end.
        peer: SocketAddr,
    },
    /// A Unix socket; it has no address worth showing.
    Unix,
    /// The connection was there before it could be seen being opened and its ends are not known.
    Unknown,
}

impl Ends {
    /// The ends that a record names. IPv4 inside IPv6 shows as IPv4.
    pub fn of(opened: &Opened) -> Ends {
        let end = |address: &[u8; 16], port: u16| {
            let [a, b, c, d, ..] = *address;
            let ip = match opened.family {
                AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                _ => IpAddr::V6(Ipv6Addr::from(*address)).to_canonical(),
            };
            SocketAddr::new(ip, port)
        };
        match opened.family {
            AF_UNIX => Ends::Unix,
            AF_INET | AF_INET6 => Ends::Tcp {
                local: end(&opened.local, opened.local_port),
                peer: end(&opened.peer, opened.peer_port),
            },
            _ => Ends::Unknown,
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response was written.
    Complete,
    /// The connection or the process ended before the response did.
    Cut,
}

/// One request that a worker served, and its response.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The process that read the request's first byte (pid of the initial namespace).
    pub pid: u32,
    /// The thread that did.
    pub tid: u32,
    /// Between whom.
    pub ends: Ends,
    /// They spoke TLS.
    pub encrypted: bool,
    /// Whom a proxy in front named as its client.
    pub client: Option<SocketAddr>,
    /// Upper-case method as sent.
    pub method: CompactString,
    /// Request target as sent: path and query, or an absolute URL.
    pub target: CompactString,
    /// `Host` header.
    pub host: Option<CompactString>,
    /// `sw8` header.
    pub sw8: Option<CompactString>,
    /// `sw8-correlation` header.
    pub correlation: Option<CompactString>,
    /// `traceparent` header.
    pub traceparent: Option<CompactString>,
    /// Status; `None` when no response head was seen.
    pub status: Option<u16>,
    /// What the server said of it.
    pub phrase: Phrase,
    /// When the request's first byte was ready to be read; `None` when not known.
    pub ready: Option<KernelTime>,
    /// When the connection was accepted; only of its first request, where that was seen.
    pub accepted: Option<KernelTime>,
    /// When the worker read its first byte.
    pub start: KernelTime,
    /// When the worker wrote the response's first byte.
    pub first_byte: Option<KernelTime>,
    /// When the worker wrote its last byte, or the connection ended. Where records of the last bytes were
    /// lost: the last write that was seen.
    pub end: KernelTime,
    /// Bytes of the request on the wire, as far as the worker had read them when the response ended.
    pub request_bytes: u64,
    /// Bytes of the response on the wire, interim responses included.
    pub response_bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What came of records; the caller empties it.
#[derive(Debug, Default)]
pub struct Findings {
    /// Requests begun and over, in the order of the records.
    pub turns: Vec<Turn>,
    /// Exchanges that have ended, in the order in which that was noticed.
    pub exchanges: Vec<Exchange>,
    /// What WebSockets carried; of a new one at least what was written with its handshake, even if that is nothing.
    pub carried: Vec<Carried>,
    /// Connections of which nothing is wanted any more.
    pub ignored: Vec<Conn>,
    /// Connections of whose bytes only the number is wanted from here on.
    pub counted: Vec<Conn>,
    /// What was lost.
    pub drops: Drops,
}

/// Records of connections in, exchanges out.
#[derive(Debug)]
pub struct Exchanges {
    connections: Connections<Followed>,
    /// Those that were closed, for their room.
    #[expect(clippy::vec_box, reason = "the boxes are the room")]
    spare: Vec<Box<Connection>>,
    room: Room,
}

/// A connection of the table.
#[derive(Debug)]
enum Followed {
    Yes(Box<Connection>),
    /// It is encrypted, and nothing of its session was seen yet.
    Encrypted(Box<Encrypted>),
    /// Its handshake is over.
    WebSocket(Box<WebSocket>),
    Http2(Box<Http2>),
    /// Given up; kept so that records still on their way do not open it again.
    No,
}

/// A connection whose session was not seen yet.
#[derive(Debug)]
struct Encrypted {
    /// The process that read its first byte.
    pid: u32,
    ends: Ends,
    accepted: Option<KernelTime>,
}

impl Exchanges {
    /// Follows at most `limit` connections.
    pub fn new(limit: usize) -> Exchanges {
        Exchanges { connections: Connections::new(limit), spare: Vec::new(), room: Room::default() }
    }

    /// A connection was accepted, made, or first seen.
    pub fn opened(&mut self, opened: &Opened, findings: &mut Findings) {
        match self.connections.touch(opened.conn) {
            Known::There(Followed::Yes(connection)) => connection.learn_ends(Ends::of(opened)),
            Known::There(Followed::Http2(http2)) => http2.learn_ends(Ends::of(opened)),
            Known::There(Followed::Encrypted(_) | Followed::WebSocket(_) | Followed::No) | Known::Over => {}
            Known::Not => {
                let accepted = (opened.accepted == 1).then_some(KernelTime(opened.header.at));
                self.follow(opened.conn, Ends::of(opened), accepted, findings);
            }
        }
    }

    /// A process read from a connection; `bytes` is what was copied of it.
    pub fn received(&mut self, moved: &Moved, bytes: &[u8], findings: &mut Findings) {
        self.moved(moved, bytes, true, findings);
    }

    /// A process wrote to a connection; `bytes` is what was copied of it.
    pub fn sent(&mut self, moved: &Moved, bytes: &[u8], findings: &mut Findings) {
        self.moved(moved, bytes, false, findings);
    }

    /// The last reference to a connection went away.
    pub fn closed(&mut self, closed: &Closed, findings: &mut Findings) {
        match self.connections.remove(closed.conn) {
            Some(Followed::Yes(mut connection)) => {
                let at = KernelTime(closed.header.at);
                self.room.change(connection.held, 0);
                connection.closed(at, findings);
                connection.idle(at, findings);
                if self.spare.len() < SPARE {
                    self.spare.push(connection);
                }
            }
            Some(Followed::Encrypted(_)) => findings.drops.count(Reason::Tls),
            Some(Followed::Http2(mut http2)) => {
                let at = KernelTime(closed.header.at);
                self.room.change(http2.held, 0);
                http2.closed(at, findings);
                http2.idle(at, findings);
            }
            Some(Followed::WebSocket(_) | Followed::No) | None => {}
        }
    }

    /// A process ended: so do the exchanges that it had open. Others may go on with its connections.
    pub fn exited(&mut self, pid: u32, at: KernelTime, findings: &mut Findings) {
        for followed in self.connections.values_mut() {
            match followed {
                Followed::Yes(connection) => {
                    connection.exited(pid, at, findings);
                    connection.turn(at, findings);
                }
                Followed::Http2(http2) => {
                    http2.exited(pid, at, findings);
                    http2.turn(at, findings);
                }
                Followed::Encrypted(encrypted) if encrypted.pid == pid => {
                    findings.drops.count(Reason::Tls);
                    *followed = Followed::No;
                }
                Followed::Encrypted(_) | Followed::WebSocket(_) | Followed::No => {}
            }
        }
    }

    /// Connections known at present, those given up included.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn moved(&mut self, moved: &Moved, bytes: &[u8], receives: bool, findings: &mut Findings) {
        let followed = match self.connections.touch(moved.conn) {
            Known::There(followed) => followed,
            Known::Over => return findings.drops.count(Reason::Gap),
            Known::Not => {
                self.follow(moved.conn, Ends::Unknown, None, findings);
                let Known::There(followed) = self.connections.touch(moved.conn) else { return };
                followed
            }
        };
        let is_plain = moved.flags & moved::PLAIN != 0;
        if is_plain {
            self.room.change(decrypt(followed), 0);
        }
        let connection = match followed {
            Followed::Yes(connection) => connection,
            Followed::WebSocket(socket) if socket.decrypted == is_plain => {
                return findings.carried.push(socket.moved(moved, receives));
            }
            Followed::Http2(http2) if http2.decrypted == is_plain => {
                http2.room = self.room.of(http2.held);
                let verdict = guarded(|| http2.moved(moved, bytes, receives, findings));
                if !settle(&mut self.room, http2, verdict, moved, findings) {
                    *followed = Followed::No;
                }
                return;
            }
            Followed::Encrypted(_) | Followed::WebSocket(_) | Followed::Http2(_) | Followed::No => return,
        };
        if connection.decrypted != is_plain || (is_plain && moved.size == 0) {
            return;
        }
        let at = KernelTime(moved.header.at);
        let before = connection.held;
        connection.room = self.room.of(before);
        let verdict = guarded(|| match receives {
            true => connection.received(moved, bytes, findings),
            false => connection.sent(moved, bytes, findings),
        });
        if verdict == Some(Verdict::Follow) {
            connection.held = connection.holds();
            self.room.change(before, connection.held);
            return connection.turn(at, findings);
        }
        self.room.change(before, 0);
        match verdict {
            Some(Verdict::Encrypted) => {
                let (pid, ends, accepted) = (moved.header.tgid, connection.ends.clone(), connection.accepted);
                *followed = Followed::Encrypted(Box::new(Encrypted { pid, ends, accepted }));
                return;
            }
            Some(Verdict::WebSocket(sent)) => {
                connection.given_up(findings);
                connection.idle(at, findings);
                findings.carried.push(Carried { pid: moved.header.tgid, received: 0, sent });
                findings.counted.push(moved.conn);
                *followed = Followed::WebSocket(Box::new(WebSocket::after(connection)));
                return;
            }
            Some(Verdict::Http2 { rest, preface }) => {
                let mut http2 = Box::new(Http2::after(connection, preface));
                connection.given_up(findings); // what was asked before can only be answered there
                http2.room = self.room.of(0);
                let verdict = guarded(|| http2.begin(moved, bytes, rest, receives, findings));
                let goes_on = settle(&mut self.room, &mut http2, verdict, moved, findings);
                *followed = if goes_on { Followed::Http2(http2) } else { Followed::No };
                return;
            }
            Some(Verdict::GiveUp | Verdict::Follow) => connection.given_up(findings),
            None => findings.drops.count(Reason::ParserPanic),
        }
        connection.idle(at, findings);
        *followed = Followed::No;
        findings.ignored.push(moved.conn);
    }

    fn follow(&mut self, conn: Conn, ends: Ends, accepted: Option<KernelTime>, findings: &mut Findings) {
        let connection = match self.spare.pop() {
            Some(mut spare) => {
                spare.begin(ends, accepted);
                spare
            }
            None => Box::new(Connection::new(ends, accepted)),
        };
        match self.connections.insert(conn, Followed::Yes(connection)) {
            Displaced::Earlier(Followed::Yes(mut earlier)) => {
                let at = KernelTime(conn.born);
                self.room.change(earlier.held, 0);
                earlier.closed(at, findings);
                earlier.idle(at, findings);
            }
            Displaced::Idle(Followed::Yes(mut idle)) => {
                findings.drops.count(Reason::ConnectionsFull);
                self.room.change(idle.held, 0);
                idle.idle(KernelTime(conn.born), findings);
            }
            Displaced::Earlier(Followed::Encrypted(_)) | Displaced::Idle(Followed::Encrypted(_)) => {
                findings.drops.count(Reason::Tls);
            }
            Displaced::Earlier(Followed::Http2(mut earlier)) => {
                let at = KernelTime(conn.born);
                self.room.change(earlier.held, 0);
                earlier.closed(at, findings);
                earlier.idle(at, findings);
            }
            Displaced::Idle(Followed::Http2(mut idle)) => {
                findings.drops.count(Reason::ConnectionsFull);
                self.room.change(idle.held, 0);
                idle.idle(KernelTime(conn.born), findings);
            }
            Displaced::Idle(Followed::WebSocket(_)) => findings.drops.count(Reason::ConnectionsFull),
            Displaced::Earlier(Followed::WebSocket(_) | Followed::No)
            | Displaced::Idle(Followed::No)
            | Displaced::Nothing => {}
        }
    }
}

/// The bytes of a connection are those of its session from here on. Returns how many it held of those before.
fn decrypt(followed: &mut Followed) -> usize {
    let (ends, accepted, held) = match followed {
        Followed::Yes(connection) if !connection.decrypted => {
            (connection.ends.clone(), connection.accepted, connection.held)
        }
        Followed::Encrypted(encrypted) => (encrypted.ends.clone(), encrypted.accepted, 0),
        Followed::Yes(_) | Followed::WebSocket(_) | Followed::Http2(_) | Followed::No => return 0,
    };
    let mut connection = Box::new(Connection::new(ends, accepted));
    connection.decrypted = true;
    *followed = Followed::Yes(connection);
    held
}

/// What comes of a connection that speaks HTTP/2 after a read or write; false when it is given up.
fn settle(
    room: &mut Room,
    http2: &mut Http2,
    verdict: Option<Verdict>,
    moved: &Moved,
    findings: &mut Findings,
) -> bool {
    let at = KernelTime(moved.header.at);
    let goes_on = verdict == Some(Verdict::Follow);
    let held = if goes_on { http2.holds() } else { 0 };
    room.change(std::mem::replace(&mut http2.held, held), held);
    if goes_on {
        http2.turn(at, findings);
        return true;
    }
    if verdict.is_none() {
        findings.drops.count(Reason::ParserPanic);
    }
    http2.idle(at, findings);
    findings.ignored.push(moved.conn);
    false
}

/// The one place where a panic is caught: a hostile stream must not end the observer. The connection is given
/// up afterwards, so nobody sees its state again.
fn guarded<T>(step: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(step)).ok()
}
