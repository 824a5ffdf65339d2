//! Command line, environment, names and addresses of one process.
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use procfs::process::Process;
use rustix::thread::LinkNameSpaceType;

use crate::identity::Facts;
use crate::identity::ProcessKey;
use crate::python::version;

/// The variables that are kept: what names and settings come from. Never a secret.
const VARIABLES: [&str; 9] = [
    "SW_AGENT_NAME",
    "SW_AGENT_INSTANCE_NAME",
    "SW_AGENT_NAMESPACE",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "DD_SERVICE",
    "NEW_RELIC_APP_NAME",
    "GUNICORN_CMD_ARGS",
    "HOSTNAME",
];

/// Reads the facts of a process; an error means that it ended meanwhile or may not be read.
pub fn read(pid: u32) -> Result<Facts, procfs::ProcError> {
    let process = Process::new(i32::try_from(pid).unwrap_or(i32::MAX))?;
    let stat = process.stat()?;
    let status = process.status()?;
    let environ = process.environ().unwrap_or_default(); // blanked by setproctitle, refused for other users
    let variables = VARIABLES.iter().filter_map(|name| {
        let value = environ.get(std::ffi::OsStr::new(name))?;
        Some(((*name).to_owned(), value.to_string_lossy().into_owned()))
    });
    let environ: Vec<_> = variables.collect();
    let inner = status.nspid.and_then(|pids| pids.last().copied()).unwrap_or(stat.pid);
    Ok(Facts {
        key: ProcessKey { pid, start: stat.starttime },
        parent: u32::try_from(stat.ppid).unwrap_or(0),
        inner_pid: u32::try_from(inner).unwrap_or(pid),
        argv: process.cmdline().unwrap_or_default(),
        hostname: hostname(pid, &environ),
        environ,
        ipv4: ipv4(pid),
        python_version: version::of(&process),
    })
}

/// Start of a process as [`ProcessKey`] has it; `None` when there is none with this pid.
pub fn start(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    process.stat().ok().map(|stat| stat.starttime)
}

/// The host name that the process sees: that of its UTS namespace, or what it was told at exec, or a name for
/// the namespace itself, so that two containers stay two.
fn hostname(pid: u32, environ: &[(String, String)]) -> String {
    let namespace = PathBuf::from(format!("/proc/{pid}/ns/uts"));
    let own = fs::read_link("/proc/self/ns/uts").ok();
    let its = fs::read_link(&namespace).ok();
    if its.is_none() || its == own {
        return own_hostname();
    }
    let told = || environ.iter().find(|(name, _)| name == "HOSTNAME").map(|(_, value)| value.clone());
    let unnamed = || its.map(|link| link.to_string_lossy().replace([':', '[', ']'], ""));
    entered_hostname(&namespace).or_else(told).or_else(unnamed).unwrap_or_else(own_hostname)
}

fn own_hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Asks inside the namespace, in a thread that ends afterwards: a UTS namespace belongs to the thread.
fn entered_hostname(namespace: &Path) -> Option<String> {
    let file = File::open(namespace).ok()?;
    let asked = std::thread::spawn(move || {
        let kind = Some(LinkNameSpaceType::HostNameAndNISDomainName);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).ok()?;
        Some(own_hostname())
    });
    asked.join().ok().flatten()
}

/// Local addresses of the process's network namespace, from the routing trie; loopback when there are no others.
fn ipv4(pid: u32) -> Vec<String> {
    let trie = fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).unwrap_or_default();
    local_addresses(&trie)
}

fn local_addresses(trie: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut address = None;
    for line in trie.lines() {
        let line = line.trim_start();
        if let Some(leaf) = line.strip_prefix("|-- ") {
            address = Some(leaf.trim());
        } else if line.starts_with("/32 host LOCAL")
            && let Some(local) = address
            && !local.starts_with("127.")
            && found.iter().all(|known| known != local)
        {
            found.push(local.to_owned());
        }
    }
    if found.is_empty() { vec!["127.0.0.1".to_owned()] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_leave_out_loopback_unless_it_is_all() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.2.3\n        \
                    /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(local_addresses(trie), ["10.1.2.3"]);
        assert_eq!(local_addresses(""), ["127.0.0.1"]);
    }

    #[test]
    fn this_process_can_be_read() {
        let facts = read(std::process::id()).unwrap();
        assert_eq!(facts.key.start, start(facts.key.pid).unwrap());
        assert!(!facts.hostname.is_empty() && !facts.argv.is_empty());
    }
}
