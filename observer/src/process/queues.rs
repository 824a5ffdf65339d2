//! Accept queues and unread connections of processes, each looked at inside its own network namespace.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use procfs::process::Process;

use super::diag::Bound;
use super::diag::Diag;
use super::diag::Row;
use crate::clock::KernelTime;
use crate::identity::ProcessKey;
use crate::identity::load::Listener;
use crate::identity::load::Overflow;
use crate::identity::load::Queues;
use crate::identity::load::Unread;

/// Namespaces whose netlink sockets are kept open between two looks; one beyond is opened for each look.
const NAMESPACES: usize = 256;
/// Descriptors of one process that are looked at.
const DESCRIPTORS: usize = 1 << 16;

/// Where a master from 25.1 on is steered (`gunicornc`): nobody's requests come that way.
const CONTROL: &str = "/gunicorn.ctl";

/// What is remembered between two looks.
#[derive(Default)]
pub struct Reader {
    namespaces: BTreeMap<u64, Namespace>,
    processes: BTreeMap<ProcessKey, Known>,
    /// Whether it was said already that a namespace cannot be looked into.
    said: bool,
}

/// A network namespace. A socket in it keeps it from going: it is let go at the first full look that finds nobody in it.
#[derive(Default)]
struct Namespace {
    diag: Option<Diag>,
    /// Inodes of the sockets that listened when it was looked at last.
    listening: BTreeSet<u32>,
    /// Connections that had unread bytes, by inode.
    unread: BTreeMap<u32, Waiting>,
}

/// A connection with unread bytes.
#[derive(Clone, Copy)]
struct Waiting {
    bytes: u32,
    /// Since when it is so many.
    since: KernelTime,
    /// Whose it is, once that was found out.
    holder: Option<ProcessKey>,
}

/// What is known of a process. When a new socket listens in its namespace, a master may hold that; a worker makes its own
/// (`--reuse-port`) before it is an instance.
#[derive(Clone, Debug)]
struct Known {
    namespace: u64,
    parent: u32,
    /// Inodes of its sockets that listened when it was looked at.
    listening: BTreeSet<u32>,
}

impl Reader {
    /// Looks at the queues of these processes. `every` says that they are all there are: what is remembered of others is
    /// forgotten.
    pub fn read(&mut self, at: KernelTime, processes: &[ProcessKey], every: bool) -> Queues {
        let mut members: BTreeMap<u64, Vec<ProcessKey>> = BTreeMap::new();
        for key in processes {
            let namespace =
                self.processes.get(key).map(|known| known.namespace).or_else(|| namespace(key.pid));
            members.entry(namespace.unwrap_or(0)).or_default().push(*key);
        }
        members.remove(&0); // ended, or not to be looked at
        if every {
            let asked: BTreeSet<_> = processes.iter().collect();
            self.processes.retain(|key, _| asked.contains(key));
            self.namespaces.retain(|namespace, _| members.contains_key(namespace));
        }
        let mut queues = Queues::default();
        for (inode, members) in members {
            let mut namespace = self.namespaces.remove(&inode).unwrap_or_default();
            match self.look(at, inode, &mut namespace, &members, &mut queues) {
                Ok(()) if self.namespaces.len() < NAMESPACES => {
                    self.namespaces.insert(inode, namespace);
                }
                Ok(()) => {}
                Err(error) => self.complain(&error),
            }
        }
        queues
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                "cannot look at accept queues: {error}: it takes CAP_SYS_ADMIN and a kernel with CONFIG_INET_DIAG"
            );
        }
    }

    /// Looks into one namespace, in which all of `members` live.
    fn look(
        &mut self,
        at: KernelTime,
        inode: u64,
        namespace: &mut Namespace,
        members: &[ProcessKey],
        queues: &mut Queues,
    ) -> io::Result<()> {
        let mut diag = match namespace.diag.take() {
            Some(diag) => diag,
            None => match entered(inode, members)? {
                Some(diag) => diag,
                None => return Ok(()), // all of them ended
            },
        };
        let mut rows = diag.tcp_listeners()?;
        rows.extend(diag.unix_listeners()?);
        rows.retain(|row| !matches!(&row.bound, Bound::Unix(path) if path.ends_with(CONTROL)));
        let listening: BTreeSet<u32> = rows.iter().map(|row| row.inode).collect();
        if !listening.is_subset(&namespace.listening) {
            let pids: BTreeSet<u32> = self.processes.keys().map(|key| key.pid).collect();
            self.processes.retain(|_, known| known.namespace != inode || pids.contains(&known.parent));
        }
        for key in members {
            if !self.processes.contains_key(key)
                && let Some(known) = known(*key, inode, &listening)
            {
                self.processes.insert(*key, known);
            }
        }
        let holders = self.holders(members);
        let mut held = Vec::new();
        for row in rows {
            for holder in holders.get(&row.inode).into_iter().flatten() {
                let (depth, limit) = (row.queue, row.limit);
                queues.listeners.push(Listener {
                    holder: *holder,
                    address: address(&row.bound),
                    depth,
                    limit,
                });
            }
            if holders.contains_key(&row.inode) {
                held.push(row);
            }
        }
        let unread = unread(&mut diag, &held)?;
        self.count_unread(at, namespace, members, &unread, queues);
        let masters: BTreeSet<ProcessKey> = holders.into_values().flatten().collect();
        if let Some((overflows, drops)) = masters.first().and_then(|key| overflows(key.pid)) {
            queues.overflows.extend(masters.into_iter().map(|process| Overflow {
                process,
                overflows,
                drops,
            }));
        }
        namespace.listening = listening;
        namespace.diag = Some(diag);
        Ok(())
    }

    /// Who holds which listening socket: of a process and its child only the process.
    fn holders(&self, members: &[ProcessKey]) -> BTreeMap<u32, Vec<ProcessKey>> {
        let known = || members.iter().filter_map(|key| Some((*key, self.processes.get(key)?)));
        let by_pid: BTreeMap<u32, &Known> = known().map(|(key, known)| (key.pid, known)).collect();
        let mut holders: BTreeMap<u32, Vec<ProcessKey>> = BTreeMap::new();
        for (key, known) in known() {
            let above = by_pid.get(&known.parent);
            for inode in &known.listening {
                if !above.is_some_and(|above| above.listening.contains(inode)) {
                    holders.entry(*inode).or_default().push(key);
                }
            }
        }
        holders
    }

    /// Counts who holds the connections that have unread bytes; only where there are any, tables of open files are read.
    fn count_unread(
        &self,
        at: KernelTime,
        namespace: &mut Namespace,
        members: &[ProcessKey],
        unread: &[Row],
        queues: &mut Queues,
    ) {
        let before = std::mem::take(&mut namespace.unread);
        for row in unread {
            let (bytes, known) = (row.queue, before.get(&row.inode));
            let holder = known.and_then(|known| known.holder).filter(|key| members.contains(key));
            let since = known.filter(|known| known.bytes == bytes).map_or(at, |known| known.since);
            namespace.unread.insert(row.inode, Waiting { bytes, since, holder });
        }
        let is_nobodys = |waiting: &&Waiting| waiting.holder.is_none();
        let mut left = namespace.unread.values().filter(is_nobodys).count();
        let mut counted: BTreeMap<ProcessKey, Unread> = BTreeMap::new();
        for process in members.iter().filter(|key| self.processes.contains_key(key)) {
            counted.insert(*process, Unread { process: *process, connections: 0, oldest_ns: 0 });
            for inode in if left > 0 { sockets(process.pid) } else { Vec::new() } {
                // A connection that its child holds too is its own.
                if let Some(waiting) =
                    namespace.unread.get_mut(&inode).filter(|waiting| is_nobodys(&&**waiting))
                {
                    waiting.holder = Some(*process);
                    left -= 1;
                }
            }
        }
        for waiting in namespace.unread.values() {
            if let Some(own) = waiting.holder.and_then(|holder| counted.get_mut(&holder)) {
                own.connections += 1;
                own.oldest_ns = own.oldest_ns.max(at.since(waiting.since));
            }
        }
        queues.unread.extend(counted.into_values());
    }
}

/// A netlink socket inside a namespace, by way of the first member that is still there.
fn entered(inode: u64, members: &[ProcessKey]) -> io::Result<Option<Diag>> {
    for key in members.iter().filter(|key| namespace(key.pid) == Some(inode)) {
        match Diag::open(&PathBuf::from(format!("/proc/{}/ns/net", key.pid))) {
            Ok(diag) => return Ok(Some(diag)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it ended just now
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Connections with unread bytes that came by one of these listeners.
fn unread(diag: &mut Diag, held: &[Row]) -> io::Result<Vec<Row>> {
    let tcp = |row: &Row| if let Bound::Tcp(address) = row.bound { Some(address) } else { None };
    let bound: BTreeSet<_> = held.iter().filter_map(tcp).collect();
    let ports: BTreeSet<u16> = bound.iter().map(std::net::SocketAddr::port).collect();
    let mut found = match (ports.first(), ports.last()) {
        (Some(first), Some(last)) => diag.tcp_unread(if first == last { *first } else { 0 })?,
        _ => Vec::new(),
    };
    found.retain(|row| {
        let by = |local: &std::net::SocketAddr| {
            tcp(row).is_some_and(|own| {
                own.port() == local.port() && (local.ip().is_unspecified() || local.ip() == own.ip())
            })
        };
        bound.iter().any(by)
    });
    let names: BTreeSet<&Bound> = held.iter().map(|row| &row.bound).filter(|bound| !is_tcp(bound)).collect();
    if !names.is_empty() {
        let connections = diag.unix_unread()?;
        found.extend(connections.into_iter().filter(|row| names.contains(&row.bound)));
    }
    Ok(found)
}

fn is_tcp(bound: &Bound) -> bool {
    matches!(bound, Bound::Tcp(_))
}

fn address(bound: &Bound) -> String {
    match bound {
        Bound::Tcp(address) => address.to_string(),
        Bound::Unix(name) => format!("unix:{name}"),
    }
}

/// Inode of the network namespace of a process.
fn namespace(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|namespace| namespace.ino())
}

/// What is known of a process that lives in this namespace; nothing when it ended or moved.
fn known(key: ProcessKey, inode: u64, listening: &BTreeSet<u32>) -> Option<Known> {
    let stat = Process::new(i32::try_from(key.pid).ok()?).ok()?.stat().ok()?;
    let sockets = sockets(key.pid).into_iter().filter(|inode| listening.contains(inode)).collect();
    let is_it = stat.starttime == key.start && namespace(key.pid) == Some(inode);
    let parent = u32::try_from(stat.ppid).unwrap_or(0);
    is_it.then_some(Known { namespace: inode, parent, listening: sockets })
}

/// Inodes of a process's sockets.
pub(super) fn sockets(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().take(DESCRIPTORS);
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// `ListenOverflows` and `ListenDrops` of a process's network namespace.
fn overflows(pid: u32) -> Option<(u64, u64)> {
    counters(&fs::read_to_string(format!("/proc/{pid}/net/netstat")).ok()?)
}

/// The file has a line of names, then one of values (`proc_pid_net(5)`).
fn counters(text: &str) -> Option<(u64, u64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let at = names.split_ascii_whitespace().position(|name| name == wanted)?;
        values.split_ascii_whitespace().nth(at)?.parse().ok()
    };
    Some((value("ListenOverflows")?, value("ListenDrops")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start: 1 }
    }

    #[test]
    fn a_listener_is_its_topmost_holders() {
        let known = |parent, listening: &[u32]| Known {
            namespace: 1,
            parent,
            listening: listening.iter().copied().collect(),
        };
        // A master with a worker, one with --reuse-port, and an orphan.
        let processes = [
            (10, known(1, &[100])),
            (11, known(10, &[100])),
            (20, known(1, &[])),
            (21, known(20, &[201])),
            (22, known(20, &[202])),
            (31, known(30, &[300])),
        ];
        let members: Vec<_> = processes.iter().map(|(pid, _)| key(*pid)).collect();
        let processes = processes.into_iter().map(|(pid, known)| (key(pid), known)).collect();
        let reader = Reader { processes, ..Reader::default() };
        let found: Vec<_> = reader
            .holders(&members)
            .into_iter()
            .map(|(inode, keys)| (inode, keys.iter().map(|key| key.pid).collect::<Vec<_>>()))
            .collect();
        assert_eq!(found, [(100, vec![10]), (201, vec![21]), (202, vec![22]), (300, vec![31])]);
    }

    #[test]
    fn counters_are_found_by_name() {
        let text =
            "TcpExt: SyncookiesSent ListenOverflows X ListenDrops\nTcpExt: 1 2 3 4\nIpExt: a\nIpExt: 1\n";
        assert_eq!(counters(text), Some((2, 4)));
        assert_eq!(counters("TcpExt: ListenOverflows\nTcpExt:\n"), None);
        assert_eq!(counters(""), None);
    }

    #[test]
    fn who_is_not_there_has_no_queues() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(KernelTime(1), &[key(u32::MAX)], true), Queues::default());
        assert!(!reader.said);
    }
}
