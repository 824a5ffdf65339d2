//! The table of connections: one per kernel socket and life, bounded, the longest idle one goes first.
use observer_ebpf::record::Conn;
use std::collections::BTreeMap;

/// Connections, each with a `T`.
#[derive(Debug)]
pub struct Connections<T> {
    by_sock: BTreeMap<u64, Entry<T>>,
    /// Sockets by their last use.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    limit: usize,
}

#[derive(Debug)]
struct Entry<T> {
    born: u64,
    used: u64,
    value: T,
}

/// What had to go for a new connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Displaced<T> {
    /// Nothing.
    Nothing,
    /// An earlier connection on the same socket: it must have ended unseen.
    Earlier(T),
    /// The connection that was idle longest: the table was full.
    Idle(T),
}

impl<T> Connections<T> {
    /// A table for at most `limit` connections, at least one.
    pub fn new(limit: usize) -> Connections<T> {
        Connections { by_sock: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0, limit: limit.max(1) }
    }

    /// The connection, which is in use now; `None` when it is not there.
    pub fn touch(&mut self, conn: Conn) -> Option<&mut T> {
        let entry = self.by_sock.get_mut(&conn.sock).filter(|entry| entry.born == conn.born)?;
        if entry.used != self.uses {
            self.uses += 1;
            self.by_use.remove(&entry.used);
            self.by_use.insert(self.uses, conn.sock);
            entry.used = self.uses;
        }
        Some(&mut entry.value)
    }

    /// Whether a later connection on the same socket is known.
    pub fn is_over(&self, conn: Conn) -> bool {
        self.by_sock.get(&conn.sock).is_some_and(|entry| entry.born > conn.born)
    }

    /// Adds a connection and says what had to go for it.
    pub fn insert(&mut self, conn: Conn, value: T) -> Displaced<T> {
        let mut displaced = match self.by_sock.remove(&conn.sock) {
            Some(earlier) => {
                self.by_use.remove(&earlier.used);
                Displaced::Earlier(earlier.value)
            }
            None => Displaced::Nothing,
        };
        if self.by_sock.len() >= self.limit
            && let Some((_, sock)) = self.by_use.pop_first()
            && let Some(idle) = self.by_sock.remove(&sock)
        {
            displaced = Displaced::Idle(idle.value);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, conn.sock);
        self.by_sock.insert(conn.sock, Entry { born: conn.born, used: self.uses, value });
        displaced
    }

    /// Takes a connection out.
    pub fn remove(&mut self, conn: Conn) -> Option<T> {
        self.by_sock.get(&conn.sock).filter(|entry| entry.born == conn.born)?;
        let entry = self.by_sock.remove(&conn.sock)?;
        self.by_use.remove(&entry.used);
        Some(entry.value)
    }

    /// All of them, by socket.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.by_sock.values_mut().map(|entry| &mut entry.value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_sock.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_sock.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(sock: u64, born: u64) -> Conn {
        Conn { sock, born }
    }

    #[test]
    fn a_socket_used_again_is_another_connection() {
        let mut table = Connections::new(9);
        assert_eq!(table.insert(conn(1, 10), 'a'), Displaced::Nothing);
        assert_eq!(table.insert(conn(1, 20), 'b'), Displaced::Earlier('a'));
        assert!(table.is_over(conn(1, 10)));
        assert!(!table.is_over(conn(1, 20)));
        assert_eq!(table.touch(conn(1, 10)), None);
        assert_eq!(table.remove(conn(1, 10)), None);
        assert_eq!(table.remove(conn(1, 20)), Some('b'));
        assert!(table.is_empty());
    }

    #[test]
    fn the_longest_idle_one_goes_first() {
        let mut table = Connections::new(2);
        table.insert(conn(1, 1), 'a');
        table.insert(conn(2, 2), 'b');
        assert_eq!(table.touch(conn(1, 1)), Some(&mut 'a'));
        assert_eq!(table.insert(conn(3, 3), 'c'), Displaced::Idle('b'));
        assert_eq!(table.values_mut().map(|c| *c).collect::<String>(), "ac");
        assert_eq!(table.len(), 2);
    }
}
