//! The TCP ports that a process listens on.
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::diag::Diag;
use super::diag::Row;
use super::queues;

/// `TCP_LISTEN` as `/proc/<pid>/net/tcp` writes it.
const LISTEN: &str = "0A";

/// Its sockets against those that listen in its network namespace. Where the kernel cannot be asked for just these, its
/// tables say it: they take milliseconds, however few connections there are.
pub(super) fn listening(pid: u32) -> Vec<u16> {
    let sockets: BTreeSet<u32> = queues::sockets(pid).into_iter().collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let asked = Diag::open(&PathBuf::from(format!("/proc/{pid}/ns/net")));
    let ports: BTreeSet<u16> = match asked.and_then(|mut diag| diag.tcp_listeners()) {
        Ok(rows) => rows.iter().filter(|row| sockets.contains(&row.inode)).filter_map(Row::port).collect(),
        Err(_) => in_tables(pid, &sockets),
    };
    ports.into_iter().collect()
}

fn in_tables(pid: u32, sockets: &BTreeSet<u32>) -> BTreeSet<u16> {
    let table = |name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    ["tcp", "tcp6"].iter().flat_map(|name| in_table(&table(name), sockets)).collect()
}

/// Ports of the listening sockets among these; columns as in `proc_pid_net(5)`.
fn in_table(table: &str, sockets: &BTreeSet<u32>) -> Vec<u16> {
    let port = |line: &str| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, state) = (columns.next()?, columns.nth(1)?);
        let inode = columns.nth(5).filter(|_| state == LISTEN)?.parse().ok()?;
        let (_, port) = local.rsplit_once(':')?;
        sockets.contains(&inode).then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn only_listening_sockets_of_the_process_count() {
        let (one, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0"));
        let address = one.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let own = std::process::id();
        let sockets = queues::sockets(own).into_iter().collect();
        for ports in [listening(own), in_tables(own, &sockets).into_iter().collect()] {
            assert!(ports.contains(&address.port()), "{ports:?}");
            assert!(!ports.contains(&client.local_addr().unwrap().port()), "{ports:?}");
            if let Ok(other) = &other {
                assert!(ports.contains(&other.local_addr().unwrap().port()), "{ports:?}");
            }
        }
        assert_eq!(in_table("header\nnonsense\n", &BTreeSet::new()), [0_u16; 0]);
    }
}
