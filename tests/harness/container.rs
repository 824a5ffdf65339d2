//! A gunicorn in a container without Docker: namespaces of its own, an overlay root, other paths than outside.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::fmt::Write;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::cgroup::Cgroup;
use crate::client::Address;
use crate::gunicorn::Launch;
use crate::gunicorn::kill;
use crate::python::Python;
use crate::stage::Stage;
use crate::stage::must;
use crate::stage::package;
use crate::stage::wait;

/// How long a container may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Namespaces of a container; `crun` makes its own.
const NAMESPACES: [&str; 5] = ["--pid", "--mount", "--uts", "--net", "--ipc"];

/// What is the first process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// gunicorn itself.
    Gunicorn,
    /// tini, with gunicorn as its child.
    Tini,
    /// gunicorn, started by an OCI runtime with a pivoted root.
    Crun,
    /// A process that only waits, as in a pod; there is no gunicorn.
    Pause,
}

/// What to start.
#[derive(Debug)]
pub struct Recipe<'a> {
    launch: Launch,
    first: First,
    hostname: &'a str,
    cgroups: Vec<&'a Cgroup>,
    beside: Option<&'a Container>,
    program: Option<&'a str>,
}

impl<'a> Recipe<'a> {
    /// A container with this host name; [`Launch::unix`] holds anyway.
    pub fn new(first: First, hostname: &'a str, launch: Launch) -> Self {
        Self { launch, first, hostname, cgroups: Vec::new(), beside: None, program: None }
    }

    /// In this control group.
    pub fn within(mut self, cgroup: &'a Cgroup) -> Self {
        self.cgroups.push(cgroup);
        self
    }

    /// In the pid, network and host name namespaces of another, with a mount namespace of its own: what
    /// `shareProcessNamespace` makes of the containers of a pod.
    pub fn beside(mut self, other: &'a Container) -> Self {
        self.beside = Some(other);
        self
    }

    /// This Python program instead of `-m gunicorn` and its arguments; it serves on `/srv/state/socket`.
    pub fn program(mut self, program: &'a str) -> Self {
        self.program = Some(program);
        self
    }
}

/// A process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its number outside.
    pub pid: u32,
    /// Its number inside.
    pub inner: u32,
}

/// A running container; everything in it ends when this is dropped.
#[derive(Debug)]
pub struct Container {
    outer: Child,
    first: u32,
    namespace: PathBuf,
    state: PathBuf,
}

impl Container {
    /// Starts one and waits until its workers have loaded the application.
    pub fn start(stage: &Stage, recipe: &Recipe<'_>) -> Self {
        let dir = stage.folder("container");
        let state = dir.join("state");
        must(fs::create_dir_all(state.join("counts")), "make a folder for the counts");
        let script = dir.join("start.sh");
        must(fs::write(&script, recipe.script(&dir)), "write the script of a container");
        let log = must(File::create(state.join("log")), "make the log of a container");
        let mut command = recipe.enter();
        command.arg("sh").arg(&script).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command.stdout(must(log.try_clone(), "share the log of a container")).stderr(log);
        let outer = must(command.spawn(), format_args!("start {command:?}"));
        let mut container = Self { outer, first: 0, namespace: PathBuf::new(), state };
        let Some(first) = wait(PATIENCE, || container.descendant(recipe)) else {
            panic!("the container did not start:\n{}", container.log())
        };
        container.first = first;
        container.namespace = namespace(first).unwrap_or_default();
        if recipe.first != First::Pause {
            container.wait_workers(recipe.launch.workers, &[]);
        }
        container
    }

    /// The first process in the new pid namespace, once the script in it is over.
    fn descendant(&self, recipe: &Recipe<'_>) -> Option<u32> {
        if recipe.first != First::Pause && !self.log().contains("Listening at: ") {
            return None;
        }
        let all = processes();
        let first = all.iter().find(|pid| parent(**pid) == Some(self.outer.id()))?;
        // A pause is itself once it has another name than the shell that sets it up.
        let name = fs::read_to_string(format!("/proc/{first}/comm")).ok()?;
        (recipe.first != First::Pause || name.trim() == "sleep").then_some(*first)
    }

    /// The process that is number 1 inside, or that a pod's container began with.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Where it serves, seen from outside.
    pub fn address(&self) -> Address {
        Address::Unix(self.state.join("socket"))
    }

    /// What its gunicorn and the application wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.state.join("log")).unwrap_or_default()
    }

    /// The process that has a number inside, as long as it lives.
    pub fn member(&self, inner: u32) -> Option<Member> {
        self.members().into_iter().find(|member| member.inner == inner)
    }

    /// Every living process of its pid namespace, by number outside.
    pub fn members(&self) -> Vec<Member> {
        let inside = |pid: &u32| namespace(*pid).is_some_and(|found| found == self.namespace);
        let member = |pid| Some(Member { pid, inner: inner(pid)? });
        processes().into_iter().filter(inside).filter_map(member).collect()
    }

    /// Its master.
    pub fn master(&self) -> Member {
        let log = self.log();
        let inner = log.lines().find_map(|line| line.rsplit_once("Listening at: ")?.1.rsplit_once('('));
        let inner = inner.and_then(|(_, rest)| rest.trim_end_matches(')').parse().ok());
        match inner.and_then(|inner| self.member(inner)) {
            Some(master) => master,
            None => panic!("the container has no master:\n{log}"),
        }
    }

    /// The workers that are ready and alive.
    pub fn workers(&self) -> Vec<Member> {
        let log = self.log();
        let ready: Vec<u32> =
            log.lines().filter_map(|line| line.split_once("worker ready: ")?.1.trim().parse().ok()).collect();
        self.members().into_iter().filter(|member| ready.contains(&member.inner)).collect()
    }

    /// Waits for `count` workers that are none of `old`, and until those of `old` are gone.
    pub fn wait_workers(&self, count: usize, old: &[Member]) -> Vec<Member> {
        let is_old = |member: &Member| old.iter().any(|old| old.pid == member.pid);
        let found = wait(PATIENCE, || {
            let workers = self.workers();
            (workers.len() == count && !workers.iter().any(is_old)).then_some(workers)
        });
        found.unwrap_or_else(|| {
            panic!("the container has {:?}, not {count} new workers:\n{}", self.workers(), self.log())
        })
    }

    /// Asks gunicorn to end, and waits for the container's end.
    pub fn stop(&mut self) {
        kill(self.master().pid, Signal::TERM);
        if wait(PATIENCE, || self.outer.try_wait().ok().flatten()).is_none() {
            panic!("the container does not end on TERM:\n{}", self.log());
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Ok(None) = self.outer.try_wait() {
            // Beside another container nothing takes the workers along.
            let mut left = self.members();
            left.retain(|member| [member.pid, parent(member.pid).unwrap_or(0)].contains(&self.first));
            for member in left {
                kill(member.pid, Signal::KILL);
            }
            wait(PATIENCE, || self.outer.try_wait().ok().flatten());
            self.outer.kill().ok();
        }
        self.outer.wait().ok();
    }
}

impl Recipe<'_> {
    /// The command that makes or enters the namespaces.
    fn enter(&self) -> Command {
        if let Some(other) = self.beside {
            let mut command = Command::new("nsenter");
            command.arg(format!("--target={}", other.first));
            command.args(["--pid", "--uts", "--net", "--ipc", "unshare", "--mount"]);
            return command;
        }
        let mut command = Command::new("unshare");
        match self.first {
            First::Crun => command.arg("--mount"),
            First::Gunicorn | First::Tini | First::Pause => {
                command.args(NAMESPACES).args(["--fork", "--kill-child=KILL"])
            }
        };
        command
    }

    /// Makes the root and starts what is the first process.
    fn script(&self, dir: &Path) -> String {
        let apps = package().join("apps");
        let python = Python::standard().script("..");
        let outer = dir.join("root");
        let mut text = format!(
            "set -e\nouter={}\nroot=$outer/root\nmkdir $outer\nmount -t tmpfs tmpfs $outer\n",
            outer.display()
        );
        for cgroup in &self.cgroups {
            writeln!(text, "echo 0 > {}", cgroup.entrance().display()).ok();
        }
        text.push_str("mkdir $outer/upper $outer/work $root\n");
        text.push_str(
            "mount -t overlay -o lowerdir=/,upperdir=$outer/upper,workdir=$outer/work overlay $root\n",
        );
        text.push_str("mkdir -p $root/srv/python $root/srv/app $root/srv/state\n");
        for (from, to) in [(&*python, "python"), (&*apps, "app"), (&*dir.join("state"), "state")] {
            writeln!(text, "mount --bind {} $root/srv/{to}", from.display()).ok();
        }
        text.push_str("mount -t tmpfs tmpfs $root/tmp\n");
        let words = self.words();
        if self.first == First::Crun {
            must(fs::write(dir.join("config.json"), self.config(&words)), "write the OCI configuration");
            // The runtime does not start where both versions of cgroups are mounted; it gets one of them to see.
            text.push_str("umount --recursive /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup\n");
            let dir = dir.display();
            writeln!(text, "exec crun --root {dir}/crun --cgroup-manager=disabled run --bundle {dir} box")
                .ok();
            return text;
        }
        text.push_str("mount --bind /dev $root/dev\nmount -t proc proc $root/proc\n");
        if self.beside.is_none() {
            writeln!(text, "hostname {}", self.hostname).ok();
        }
        let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        writeln!(text, "exec chroot $root env -i {} {}", self.variables().join(" "), quoted.join(" ")).ok();
        text
    }

    /// The command of the first process.
    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        match self.first {
            First::Pause => return ["sleep", "600"].map(str::to_owned).to_vec(),
            First::Tini => words.extend(["/usr/bin/tini".to_owned(), "--".to_owned()]),
            First::Gunicorn | First::Crun => {}
        }
        words.push("/srv/python/bin/python".to_owned());
        if let Some(program) = self.program {
            words.push(program.to_owned());
            return words;
        }
        let Launch { class, app, workers, .. } = &self.launch;
        let fixed = ["-m", "gunicorn", "--chdir", "/srv/app", "--bind", "unix:/srv/state/socket"];
        words.extend(fixed.map(str::to_owned));
        words.extend(["--config", "/srv/app/gunicorn.conf.py", "--worker-class", class].map(str::to_owned));
        words.extend(["--workers".to_owned(), workers.to_string()]);
        words.extend(self.launch.args.iter().cloned());
        words.push((*app).to_owned());
        words
    }

    fn variables(&self) -> Vec<String> {
        let fixed =
            ["PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp", "LIVE_COUNTS=/srv/state/counts"];
        let own = self.launch.env.iter().map(|(name, value)| format!("{name}={value}"));
        fixed.map(str::to_owned).into_iter().chain(own).collect()
    }

    /// What an OCI runtime reads.
    fn config(&self, words: &[String]) -> String {
        let namespaces =
            ["pid", "mount", "uts", "network", "ipc"].map(|kind| serde_json::json!({ "type": kind }));
        let mount =
            |to: &str, kind: &str| serde_json::json!({"destination": to, "type": kind, "source": kind});
        let config = serde_json::json!({
            "ociVersion": "1.0.2",
            "hostname": self.hostname,
            "root": {"path": "root/root"},
            "process": {
                "args": words,
                "env": self.variables(),
                "cwd": "/srv/app",
                "user": {"uid": 0, "gid": 0},
            },
            "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/tmp", "tmpfs")],
            "linux": {"namespaces": namespaces},
        });
        config.to_string()
    }
}

/// Every process of this machine.
fn processes() -> Vec<u32> {
    let entries = must(fs::read_dir("/proc"), "list /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The pid namespace of a process that is no zombie.
fn namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// The number of a process in its own namespace.
fn inner(pid: u32) -> Option<u32> {
    field(pid, "NSpid:")?.split_whitespace().last()?.parse().ok()
}

/// The process that a process is a child of now.
pub fn parent(pid: u32) -> Option<u32> {
    field(pid, "PPid:")?.trim().parse().ok()
}

fn field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}
