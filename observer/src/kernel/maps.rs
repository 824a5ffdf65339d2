//! Typed handles on the maps that both sides use.
use aya::Ebpf;
use aya::maps::HashMap;
use aya::maps::MapData;
use observer_ebpf::key::Socket;
use observer_ebpf::key::Watch;
use observer_ebpf::key::wanted;
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

    /// Nothing of this connection is reported any more.
    pub fn ignore(&mut self, conn: Conn) {
        self.want(conn, wanted::NOTHING);
    }

    /// Of this connection's bytes only their number is reported from here on.
    pub fn count(&mut self, conn: Conn) {
        self.want(conn, wanted::SIZES);
    }

    /// Says what is wanted of a connection. One that is gone is not an error, and its socket may be another connection's by
    /// now: the kernel uses the address of one that was closed again at once. An entry can only be written whole: what a
    /// call moves between the two lines is missing from the offsets of the later ones.
    fn want(&mut self, conn: Conn, wanted: u32) {
        let entry = self.sockets.get(&conn.sock, 0).ok();
        let Some(wanting) = entry.and_then(|Pod(socket)| wanting(socket, conn, wanted)) else { return };
        // BPF_EXIST: a socket that was closed meanwhile is not to come back.
        if let Err(error) = self.sockets.insert(conn.sock, Pod(wanting), 2) {
            tracing::trace!(conn.sock, %error, "was closed");
        }
    }
}

/// The entry of `conn` with what is wanted of it; `None` when the entry is another connection's.
fn wanting(socket: Socket, conn: Conn, wanted: u32) -> Option<Socket> {
    (socket.conn == conn).then_some(Socket { wanted, ..socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connection_on_the_same_socket_is_left_alone() {
        let conn = Conn { sock: 1, born: 2 };
        let socket = Socket {
            conn,
            received: 3,
            sent: 4,
            session: 0,
            plain_received: 0,
            plain_sent: 0,
            ready: 0,
            arrived: 0,
            wanted: wanted::BYTES,
            cipher: 0,
            family: 2,
            zero: 0,
        };
        assert_eq!(wanting(socket, conn, wanted::SIZES).map(|socket| socket.wanted), Some(wanted::SIZES));
        assert_eq!(wanting(socket, Conn { born: 1, ..conn }, wanted::NOTHING), None);
    }
}
