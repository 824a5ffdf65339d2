//! The table of connections: one per kernel socket and life, bounded, the longest idle one goes first.
use observer_ebpf::record::Conn;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

/// Of a full table this part is looked up at a time, to let go of it one by one.
const IDLE_PART: usize = 16;

/// Connections, each with a `T`.
#[derive(Debug)]
pub struct Connections<T> {
    by_sock: BTreeMap<u64, Entry<T>>,
    uses: u64,
    limit: usize,
    /// The longest idle ones by their last use, the longest last, as it was when the table was full. Who is not among them
    /// was used later than all of them; who was used since is not idle.
    idle: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Entry<T> {
    born: u64,
    used: u64,
    value: T,
}

/// What is known of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Known<'a, T> {
    /// It is there, and in use now.
    There(&'a mut T),
    /// A later one on the same socket is there.
    Over,
    /// Nothing.
    Not,
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
        Connections { by_sock: BTreeMap::new(), uses: 0, limit: limit.max(1), idle: Vec::new() }
    }

    /// The connection, which is in use now.
    pub fn touch(&mut self, conn: Conn) -> Known<'_, T> {
        match self.by_sock.get_mut(&conn.sock) {
            Some(entry) if entry.born == conn.born => {
                self.uses += 1;
                entry.used = self.uses;
                Known::There(&mut entry.value)
            }
            Some(entry) if entry.born > conn.born => Known::Over,
            Some(_) | None => Known::Not,
        }
    }

    /// Adds a connection and says what had to go for it.
    pub fn insert(&mut self, conn: Conn, value: T) -> Displaced<T> {
        self.uses += 1;
        let entry = Entry { born: conn.born, used: self.uses, value };
        if let Some(earlier) = self.by_sock.get_mut(&conn.sock) {
            return Displaced::Earlier(std::mem::replace(earlier, entry).value);
        }
        let is_full = self.by_sock.len() >= self.limit;
        let idle = if is_full { self.longest_idle() } else { None };
        let idle = idle.and_then(|sock| self.by_sock.remove(&sock));
        self.by_sock.insert(conn.sock, entry);
        idle.map_or(Displaced::Nothing, |idle| Displaced::Idle(idle.value))
    }

    /// The socket that was used last before all others were.
    fn longest_idle(&mut self) -> Option<u64> {
        loop {
            while let Some((used, sock)) = self.idle.pop() {
                if self.by_sock.get(&sock).is_some_and(|entry| entry.used == used) {
                    return Some(sock);
                }
            }
            self.idle.extend(self.by_sock.iter().map(|(sock, entry)| (entry.used, *sock)));
            self.idle.sort_unstable();
            self.idle.truncate(self.by_sock.len().div_ceil(IDLE_PART));
            self.idle.reverse();
            if self.idle.is_empty() {
                return None;
            }
        }
    }

    /// Takes a connection out.
    pub fn remove(&mut self, conn: Conn) -> Option<T> {
        match self.by_sock.entry(conn.sock) {
            MapEntry::Occupied(entry) if entry.get().born == conn.born => Some(entry.remove().value),
            MapEntry::Occupied(_) | MapEntry::Vacant(_) => None,
        }
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
        assert_eq!(table.touch(conn(1, 10)), Known::Over);
        assert_eq!(table.touch(conn(1, 30)), Known::Not);
        assert_eq!(table.touch(conn(2, 10)), Known::Not);
        assert_eq!(table.remove(conn(1, 10)), None);
        assert_eq!(table.remove(conn(1, 20)), Some('b'));
        assert!(table.is_empty());
    }

    #[test]
    fn the_longest_idle_one_goes_first() {
        let mut table = Connections::new(2);
        table.insert(conn(1, 1), 'a');
        table.insert(conn(2, 2), 'b');
        assert_eq!(table.touch(conn(1, 1)), Known::There(&mut 'a'));
        assert_eq!(table.insert(conn(3, 3), 'c'), Displaced::Idle('b'));
        assert_eq!(table.values_mut().map(|c| *c).collect::<String>(), "ac");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_full_table_lets_go_in_the_order_of_the_last_uses() {
        let mut table = Connections::new(64);
        for sock in 0..64 {
            assert_eq!(table.insert(conn(sock, 1), sock), Displaced::Nothing);
        }
        let mut order: Vec<u64> = (0..64).collect();
        for new in 64..400 {
            let oldest = order.remove(0);
            assert_eq!(table.insert(conn(new, 1), new), Displaced::Idle(oldest));
            let mut used = order.remove(5);
            assert_eq!(table.touch(conn(used, 1)), Known::There(&mut used));
            let ended = order.remove(3);
            assert_eq!(table.remove(conn(ended, 1)), Some(ended));
            assert_eq!(table.insert(conn(ended, 1), ended), Displaced::Nothing);
            order.extend([new, used, ended]);
        }
    }
}
