//! Who is who: plain types of processes, roles and instances.
pub mod gunicorn;
pub mod naming;

use std::sync::Arc;

/// One process for as long as it lives: a pid alone is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ProcessKey {
    /// Pid in the initial pid namespace.
    pub pid: u32,
    /// Start since boot in hundredths of a second, as `/proc/<pid>/stat` gives it.
    pub start: u64,
}

/// What a process is to gunicorn (gunicorn's own words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Gunicorn's arbiter: makes worker slots and forks workers.
    Master,
    /// Serves requests; its slot was made by its master.
    Worker,
    /// Forked by a worker; not an instance of its own.
    AppChild,
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
}
