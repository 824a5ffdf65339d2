//! Command line, environment, names and addresses of one process.
use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use procfs::process::Process;
use rustix::thread::LinkNameSpaceType;

use super::cgroup;
use super::config_file;
use super::ports;
use super::program::Program;
use super::release;
use crate::identity::Facts;
use crate::identity::ProcessKey;
use crate::identity::naming;
use crate::identity::naming::arguments;
use crate::python::image::Images;
use crate::python::version;

/// The variables that are kept: what names, settings and the role of a new master come from. Never a secret; of `PYTHONPATH` only whether the
/// SkyWalking agent's loader is on it.
const VARIABLES: [&str; 36] = [
    "SW_AGENT_NAME",
    "SW_AGENT_INSTANCE_NAME",
    "SW_AGENT_NAMESPACE",
    "SW_AGENT_INSTANCE_PROPERTIES_JSON",
    "SW_AGENT_IGNORE_SUFFIX",
    "SW_AGENT_TRACE_IGNORE_PATH",
    "SW_AGENT_DISABLE_PLUGINS",
    "SW_PLUGIN_HTTP_IGNORE_METHOD",
    "SW_SAMPLE_N_PER_3_SECS",
    "SW_CORRELATION_ELEMENT_MAX_NUMBER",
    "SW_PLUGIN_HTTP_HTTP_PARAMS_LENGTH_THRESHOLD",
    "SW_PLUGIN_FLASK_COLLECT_HTTP_PARAMS",
    "SW_PLUGIN_SANIC_COLLECT_HTTP_PARAMS",
    "SW_PLUGIN_DJANGO_COLLECT_HTTP_PARAMS",
    "SW_PLUGIN_FASTAPI_COLLECT_HTTP_PARAMS",
    "SW_PLUGIN_BOTTLE_COLLECT_HTTP_PARAMS",
    "SW_AGENT_COLLECTOR_HEARTBEAT_PERIOD",
    "SW_AGENT_COLLECTOR_PROPERTIES_REPORT_PERIOD_FACTOR",
    "SW_AGENT_METER_REPORTER_ACTIVE",
    "SW_AGENT_METER_REPORTER_PERIOD",
    "SW_AGENT_PVM_METER_REPORTER_ACTIVE",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "DD_SERVICE",
    "NEW_RELIC_APP_NAME",
    "GUNICORN_CMD_ARGS",
    "GUNICORN_PID",
    "PORT",
    "PWD",
    "VIRTUAL_ENV",
    "SUPERVISOR_PROCESS_NAME",
    "HOSTNAME",
    "POD_NAME",
    "KUBERNETES_SERVICE_HOST",
    "prefork",
    "SW_PYTHON_PREFIX",
];

/// Reads the facts of a process that may be a master; `program` is what it was started with, where somebody saw that,
/// `images` the interpreters that were looked at already. An error means that it ended meanwhile or may not be read.
pub fn read(pid: u32, program: Option<&Program>, images: &mut Images) -> Result<Facts, procfs::ProcError> {
    let mut facts = brief(pid, program, images)?;
    facts.ports = ports::listening(pid);
    facts.gunicorn_version = release::of(pid, &facts.argv, facts.variable("VIRTUAL_ENV"));
    Ok(facts)
}

/// As [`read`], without what only a master's facts are asked for.
pub(super) fn brief(
    pid: u32,
    program: Option<&Program>,
    images: &mut Images,
) -> Result<Facts, procfs::ProcError> {
    let process = Process::new(i32::try_from(pid).unwrap_or(i32::MAX))?;
    let (stat, status) = (process.stat()?, process.status()?);
    let inner = status.nspid.and_then(|pids| pids.last().copied()).unwrap_or(stat.pid);
    let line = process.cmdline().unwrap_or_default();
    let parent = Process::new(stat.ppid).and_then(|parent| parent.cmdline()).unwrap_or_default();
    let started = program.filter(|program| !program.argv.is_empty());
    let environ = environ(pid, program);
    let place = cgroup::place(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default());
    let hostname = hostname(pid, &environ);
    let mut facts = Facts {
        key: ProcessKey { pid, start: stat.starttime },
        parent: u32::try_from(stat.ppid).unwrap_or(0),
        inner_pid: u32::try_from(inner).unwrap_or(pid),
        pidns: fs::metadata(format!("/proc/{pid}/ns/pid")).map_or(0, |namespace| namespace.ino()),
        caught: status.sigcgt,
        title: title(&line),
        argv: started.map_or(line, |program| program.argv.clone()),
        parent_title: title(&parent),
        ipv4: ipv4(pid),
        python_version: version::of(&process, images),
        cgroup: place.cgroup,
        container: place.container,
        pod: pod(pid, &environ, &hostname, place.pod_uid.is_some()),
        pod_uid: place.pod_uid,
        unit: place.unit,
        hostname,
        environ,
        ..Facts::default()
    };
    if let Some(path) = arguments::config_file(&facts) {
        facts.config = config_file::read(pid, &path, facts.variable("PWD"));
    }
    Ok(facts)
}

/// The kept variables of an environment: `NAME=value`, each ended by NUL.
pub fn pick(environ: &[u8]) -> Vec<(String, String)> {
    let value = |name: &str| {
        let mut variables = environ.split(|byte| *byte == 0);
        let value = variables.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let kept = VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?)));
    let path = value("PYTHONPATH").unwrap_or_default();
    let loader = path.split(':').any(|folder| folder.trim_end_matches('/').ends_with(naming::AGENT_LOADER));
    kept.chain(loader.then(|| ("PYTHONPATH".to_owned(), naming::AGENT_LOADER.to_owned()))).collect()
}

/// A title that setproctitle put in place of a command line.
fn title(line: &[String]) -> Option<String> {
    line.first().filter(|word| word.contains("gunicorn: ") && word.ends_with(']')).cloned()
}

/// The kept variables. Those in `/proc` may be gone: setproctitle blanks the environment or writes over it, and that of
/// another user may be refused.
fn environ(pid: u32, program: Option<&Program>) -> Vec<(String, String)> {
    let mut environ = program.map_or_else(Vec::new, |program| program.environ.clone());
    for (name, value) in pick(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()) {
        if environ.iter().all(|(known, _)| *known != name) {
            environ.push((name, value));
        }
    }
    environ
}

/// The name of the pod that a process runs in: what it was told, or its host name, unless that is the node's.
fn pod(pid: u32, environ: &[(String, String)], hostname: &str, in_pod: bool) -> Option<String> {
    let told = |name: &str| environ.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if !in_pod && told("KUBERNETES_SERVICE_HOST").is_none() {
        return None;
    }
    if let Some(name) = told("POD_NAME") {
        return Some(name.to_owned());
    }
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/uts")).ok();
    let its = namespace(&pid.to_string());
    if [namespace("1"), namespace("self")].contains(&its) {
        return told("HOSTNAME").filter(|name| *name != hostname).map(str::to_owned);
    }
    Some(hostname.to_owned())
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
        let facts = read(std::process::id(), None, &mut Images::default()).unwrap();
        assert_eq!(facts.key.start, start(facts.key.pid).unwrap());
        assert!(!facts.hostname.is_empty() && !facts.argv.is_empty());
        assert!(facts.pidns != 0 && facts.pod.is_none() && facts.title.is_none());
    }

    #[test]
    fn what_a_process_was_started_with_goes_first() {
        let program = Program::new(b"gunicorn\0-n\0shop\0", b"SW_AGENT_NAME=mine\0PWD=/srv\0");
        let facts = read(std::process::id(), Some(&program), &mut Images::default()).unwrap();
        assert_eq!(facts.argv, ["gunicorn", "-n", "shop"]);
        assert_eq!((facts.variable("SW_AGENT_NAME"), facts.variable("PWD")), (Some("mine"), Some("/srv")));
    }

    #[test]
    fn no_secret_is_kept() {
        let loader = format!("/v/lib/python3.11/site-packages/{}/", naming::AGENT_LOADER);
        let block = format!("SECRET=x\0PYTHONPATH=/a:{loader}\0prefork=gunicorn\0PORT=\0XPORT=1\0PORT=2\0");
        let kept: Vec<String> = pick(block.as_bytes()).iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(kept, ["PORT=", "prefork=gunicorn", "PYTHONPATH=skywalking/bootstrap/loader"]);
        assert_eq!(pick(b"PYTHONPATH=/a:/b\0"), []);
        assert_eq!(pick(&[0; 64]), []);
    }

    #[test]
    fn a_pod_is_named_by_what_it_was_told_or_by_its_host_name() {
        let named = |environ: &[(&str, &str)], in_pod| {
            let environ: Vec<_> = environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            pod(1, &environ, "node", in_pod)
        };
        assert_eq!(named(&[("HOSTNAME", "shop-0")], false), None);
        assert_eq!(named(&[("HOSTNAME", "shop-0")], true).as_deref(), Some("shop-0"));
        assert_eq!(named(&[("HOSTNAME", "node")], true), None);
        assert_eq!(named(&[("POD_NAME", "shop-1"), ("HOSTNAME", "node")], true).as_deref(), Some("shop-1"));
        let service = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        assert_eq!(named(&[service, ("HOSTNAME", "shop-0")], false).as_deref(), Some("shop-0"));
    }
}
