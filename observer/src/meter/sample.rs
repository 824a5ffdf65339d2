//! Numbers of the host and its processes at one moment.
use serde::Deserialize;
use serde::Serialize;

use crate::clock::KernelTime;
use crate::identity::ProcessKey;

/// Numbers of one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// When they were read.
    pub at: KernelTime,
    /// The host's.
    pub host: HostSample,
    /// Each process's.
    pub processes: Vec<ProcessSample>,
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
}
