//! Typed handles on the maps that both sides use.
use aya::Ebpf;
use aya::maps::HashMap;
use aya::maps::MapData;
use observer_ebpf::key::Socket;
use observer_ebpf::key::Watch;
use observer_ebpf::record::Conn;

use super::KernelError;
use super::pod::Pod;

/// The maps that user space writes to.
pub struct Maps {
    watched: HashMap<MapData, u32, Pod<Watch>>,
    sockets: HashMap<MapData, u64, Pod<Socket>>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Maps, KernelError> {
        let mut map = |name: &'static str| ebpf.take_map(name).ok_or(KernelError::NoMap { name });
        let wrong = |name| move |source| KernelError::Map { name, source };
        Ok(Maps {
            watched: map("WATCHED")?.try_into().map_err(wrong("WATCHED"))?,
            sockets: map("SOCKETS")?.try_into().map_err(wrong("SOCKETS"))?,
        })
    }

    /// Watches a process in these ways (`observer_ebpf::key::watch` bits).
    pub fn watch(&mut self, pid: u32, flags: u32) -> Result<(), KernelError> {
        let value = Pod(Watch { flags, zero: 0, beat: 0 });
        self.watched.insert(pid, value, 0).map_err(|source| KernelError::Map { name: "WATCHED", source })
    }

    /// Watches a process no longer. One that is not watched is not an error: its exit may have come first.
    pub fn unwatch(&mut self, pid: u32) {
        if let Err(error) = self.watched.remove(&pid) {
            tracing::trace!(pid, %error, "was not watched");
        }
    }

    /// Copies this connection's bytes no longer. One that is gone is not an error, and its socket may be another
    /// connection's by now: the kernel uses the address of one that was closed again at once.
    pub fn ignore(&mut self, conn: Conn) {
        let entry = self.sockets.get(&conn.sock, 0).ok();
        let Some(ignored) = entry.and_then(|Pod(socket)| ignoring(socket, conn)) else { return };
        // BPF_EXIST: a socket that was closed meanwhile is not to come back.
        if let Err(error) = self.sockets.insert(conn.sock, Pod(ignored), 2) {
            tracing::trace!(conn.sock, %error, "was closed");
        }
    }
}

/// The entry of `conn` with its bytes ignored; `None` when the entry is another connection's.
fn ignoring(socket: Socket, conn: Conn) -> Option<Socket> {
    (socket.conn == conn).then_some(Socket { ignored: 1, ..socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connection_on_the_same_socket_is_not_ignored() {
        let conn = Conn { sock: 1, born: 2 };
        let socket = Socket {
            conn,
            received: 3,
            sent: 4,
            session: 0,
            plain_received: 0,
            plain_sent: 0,
            ready: 0,
            ignored: 0,
            cipher: 0,
        };
        assert_eq!(ignoring(socket, conn).map(|socket| socket.ignored), Some(1));
        assert_eq!(ignoring(socket, Conn { born: 1, ..conn }), None);
    }
}
