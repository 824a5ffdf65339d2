//! Who is who: plain types of processes, roles and instances.
mod arbiter;
pub mod cause;
mod chronicle;
pub mod event;
pub mod found;
pub mod framework;
pub mod gunicorn;
mod life;
pub mod load;
pub mod naming;
mod pressure;
pub mod target;

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::KernelTime;

/// One process for as long as it lives: a pid alone is used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Pid in the initial pid namespace.
    pub pid: u32,
    /// Start since boot in hundredths of a second, as `/proc/<pid>/stat` gives it.
    pub start: u64,
}

/// What a process is to gunicorn (gunicorn's own words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Gunicorn's arbiter: makes worker slots and forks workers.
    Master,
    /// A master that another one started by USR2 and that is not promoted yet.
    UpgradeMaster,
    /// Serves requests; its slot was made by its master.
    Worker,
    /// A child of the master that is the arbiter of the dirty workers (from 25).
    DirtyArbiter,
    /// Runs a dirty app; its slot was made by the dirty arbiter.
    DirtyWorker,
    /// Forked by a worker; not an instance of its own.
    AppChild,
    /// A worker whose arbiter is gone.
    Orphan,
}

impl Role {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::UpgradeMaster => "upgrade-master",
            Role::Worker => "worker",
            Role::DirtyArbiter => "dirty-arbiter",
            Role::DirtyWorker => "dirty-worker",
            Role::AppChild => "app-child",
            Role::Orphan => "orphan",
        }
    }

    /// Whether it makes worker slots.
    pub fn is_arbiter(self) -> bool {
        matches!(self, Role::Master | Role::UpgradeMaster | Role::DirtyArbiter)
    }
}

/// What a process is, said whenever that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Casting {
    /// Which process.
    pub process: ProcessKey,
    /// What it is from now on; nothing when it is gone or not gunicorn's any more.
    pub role: Option<Role>,
    /// The pid of the arbiter of a worker, of the worker of an app child.
    pub parent: Option<u32>,
}

/// What `/proc` says of one process; only the variables that names and settings come from are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Which process.
    pub key: ProcessKey,
    /// Its parent's pid in the initial pid namespace.
    pub parent: u32,
    /// Its pid in its own pid namespace.
    pub inner_pid: u32,
    /// Inode of its pid namespace; 0 when it may not be looked at.
    pub pidns: u64,
    /// The signals it catches, bit `n - 1` for signal `n` (`SigCgt`).
    pub caught: u64,
    /// Its command line, as it was at exec where that is known.
    pub argv: Vec<String>,
    /// What setproctitle put in place of its command line: `gunicorn: master [name]`.
    pub title: Option<String>,
    /// The same of its parent.
    pub parent_title: Option<String>,
    /// The variables of its environment at exec that the SkyWalking agent or a service name is configured with.
    pub environ: Vec<(String, String)>,
    /// What its configuration file says of `proc_name`, `wsgi_app` and `bind`, where that is a literal.
    pub config: Vec<(String, String)>,
    /// The host name that it sees.
    pub hostname: String,
    /// The addresses of its network namespace, loopback only when there are no others.
    pub ipv4: Vec<String>,
    /// Version of its Python: `3.11.7`, or `3.8` where only that can be told.
    pub python_version: Option<String>,
    /// Version of its gunicorn, from the metadata beside the interpreter.
    pub gunicorn_version: Option<String>,
    /// Its cgroup: the path in the unified hierarchy, else the one that tells most.
    pub cgroup: String,
    /// Id of its container, 64 hexadecimal digits.
    pub container: Option<String>,
    /// Uid of its pod.
    pub pod_uid: Option<String>,
    /// Name of its pod.
    pub pod: Option<String>,
    /// Its systemd unit: `shop.service`.
    pub unit: Option<String>,
    /// The TCP ports that it listens on itself, sorted.
    pub ports: Vec<u16>,
}

impl Facts {
    /// A variable of the environment; an empty one is as good as none.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environ.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A literal of the configuration file; an empty one is as good as none.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.config.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// A worker slot as seen in a table of open files.
pub type SlotFile = (u64, u64);

/// A process that holds worker slots, or catches signals as a master does that has none; found by looking rather
/// than by watching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// What it is.
    pub facts: Facts,
    /// The slots it holds, as (device, inode).
    pub slots: Vec<SlotFile>,
    /// Whether its slot says that it has not beaten yet.
    pub booting: bool,
    /// When it beat last, as its slot says.
    pub beat: Option<KernelTime>,
}

/// How often an instance is heard of, as far as its master's environment says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Seconds between two signs of life, from 1.
    pub heartbeat_s: Option<u32>,
    /// Every how many of them its properties go with it, from 1.
    pub properties_factor: Option<u32>,
    /// Seconds between two reports of its meters, from 1.
    pub meter_period_s: Option<u32>,
}

impl Pace {
    /// As the agent inside would have read it; a number that is none, or 0, is as good as none.
    pub fn of(master: &Facts) -> Pace {
        let number = |name: &str| master.variable(name)?.trim().parse().ok().filter(|number| *number > 0);
        Pace {
            heartbeat_s: number("SW_AGENT_COLLECTOR_HEARTBEAT_PERIOD"),
            properties_factor: number("SW_AGENT_COLLECTOR_PROPERTIES_REPORT_PERIOD_FACTOR"),
            meter_period_s: number("SW_AGENT_METER_REPORTER_PERIOD"),
        }
    }
}

/// A SkyWalking service instance: one master or one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The process behind it.
    pub process: ProcessKey,
    /// Master or worker.
    pub role: Role,
    /// SkyWalking service name, namespace included.
    pub service: Arc<str>,
    /// SkyWalking service instance name.
    pub name: Arc<str>,
    /// Instance properties in the order the Python agent sends them.
    pub properties: Vec<(String, String)>,
    /// How often it is heard of.
    pub pace: Pace,
}
