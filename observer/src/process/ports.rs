//! The TCP ports that a process listens on.
use std::collections::BTreeSet;
use std::fs;

/// `TCP_LISTEN` as `/proc/<pid>/net/tcp` writes it.
const LISTEN: &str = "0A";

/// Its sockets against the tables of its network namespace. Costs milliseconds where there are many connections.
pub(super) fn listening(pid: u32) -> Vec<u16> {
    let sockets = sockets(pid);
    if sockets.is_empty() {
        return Vec::new();
    }
    let table = |name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let ports: BTreeSet<u16> =
        ["tcp", "tcp6"].iter().flat_map(|name| in_table(&table(name), &sockets)).collect();
    ports.into_iter().collect()
}

/// Inodes of a process's sockets.
fn sockets(pid: u32) -> BTreeSet<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// Ports of the listening sockets among these; columns as in `proc_pid_net(5)`.
fn in_table(table: &str, sockets: &BTreeSet<u64>) -> Vec<u16> {
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
        let ports = listening(std::process::id());
        assert!(ports.contains(&address.port()), "{ports:?}");
        assert!(!ports.contains(&client.local_addr().unwrap().port()), "{ports:?}");
        if let Ok(other) = other {
            assert!(ports.contains(&other.local_addr().unwrap().port()), "{ports:?}");
        }
        assert_eq!(in_table("header\nnonsense\n", &BTreeSet::new()), [0_u16; 0]);
    }
}
