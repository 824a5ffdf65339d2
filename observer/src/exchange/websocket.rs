//! What moves on a connection after it became a WebSocket: how many bytes, and nothing else.
use super::pair::Connection;
use crate::stream::Stream;
use observer_ebpf::record::Moved;

/// Bytes that a process moved on a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The process (pid of the initial namespace).
    pub pid: u32,
    /// Bytes that it read.
    pub received: u64,
    /// Bytes that it wrote.
    pub sent: u64,
}

/// A connection whose handshake is over.
#[derive(Debug)]
pub(super) struct WebSocket {
    received: Stream,
    sent: Stream,
    /// What counts are the bytes of its TLS session.
    pub(super) decrypted: bool,
}

impl WebSocket {
    /// What goes on where the handshake ended.
    pub(super) fn after(handshake: &Connection) -> WebSocket {
        let Connection { received, sent, decrypted, .. } = *handshake;
        WebSocket { received, sent, decrypted }
    }

    /// A process read or wrote.
    pub(super) fn moved(&mut self, moved: &Moved, receives: bool) -> Carried {
        let pid = moved.header.tgid;
        match receives {
            true => Carried { pid, received: self.received.count(moved), sent: 0 },
            false => Carried { pid, received: 0, sent: self.sent.count(moved) },
        }
    }
}
