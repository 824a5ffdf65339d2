//! Numbers of the host and its processes at one moment.
use serde::Deserialize;
use serde::Serialize;

use crate::clock::KernelTime;
use crate::identity::ProcessKey;
use crate::identity::load::Queues;

/// Numbers of one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// When they were read.
    pub at: KernelTime,
    /// The host's.
    pub host: HostSample,
    /// Each process's.
    pub processes: Vec<ProcessSample>,
    /// The queues of those that were asked for.
    #[serde(default)]
    pub queues: Queues,
}

/// Numbers of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSample {
    /// Time that all processors together were at work, in clock ticks since boot.
    pub busy_ticks: u64,
    /// Time that went by on all of them.
    pub total_ticks: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory that is available to programs, in bytes.
    pub available_bytes: u64,
}

/// Numbers of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Which process.
    pub key: ProcessKey,
    /// Processor time of all its threads, in hundredths of a second.
    pub cpu_ticks: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// What its interpreter says; nothing where that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<PythonSample>,
}

/// Numbers of a CPython interpreter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonSample {
    /// Per generation of the collector, youngest first.
    pub generations: [Generation; 3],
    /// Threads that have a thread state in the main interpreter.
    pub threads: u64,
    /// Whether a thread holds the interpreter's lock.
    pub gil_locked: bool,
    /// Whether that is the main thread.
    #[serde(default)]
    pub gil_main: bool,
    /// Time in the collector by generation, in nanoseconds: since the process started where the interpreter keeps it (from
    /// 3.15), else since it is timed.
    #[serde(default)]
    pub gc_paused_ns: Option<[u64; 3]>,
    /// The longest run of each generation since the last sample, where it is timed.
    #[serde(default)]
    pub gc_longest_ns: Option<[u64; 3]>,
    /// Time that threads waited for the lock since they are timed, together, in nanoseconds.
    #[serde(default)]
    pub gil_waited_ns: Option<u64>,
}

/// What the collector did with one generation since the process started (`gc.get_stats()`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Runs.
    pub collections: u64,
    /// Objects collected.
    pub collected: u64,
    /// Objects that could not be.
    pub uncollectable: u64,
}
