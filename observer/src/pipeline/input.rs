//! Everything that can reach the pipeline. What is not in here does not influence it.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::clock::KernelTime;
use crate::clock::WallOffset;
use crate::identity::Facts;
use crate::identity::Holder;
use crate::identity::ProcessKey;
use crate::identity::framework::Imports;
use crate::identity::load::Queues;
use crate::identity::naming::Given;
use crate::meter::sample::Samples;
use crate::trace::rules::Chosen;

/// One step's cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// One entry of the ring, as the probe wrote it.
    Record(Bytes),
    /// What `/proc` says of a process that was asked for.
    Facts(Box<Facts>),
    /// A process that was asked for ended before its facts could be read, or before it could be watched.
    Gone(u32),
    /// Processes that hold worker slots, found by looking.
    Found {
        /// When they were looked for.
        at: KernelTime,
        /// They.
        holders: Vec<Holder>,
    },
    /// Numbers of the host and of processes that were asked for.
    Samples(Samples),
    /// The queues of processes that were asked for.
    Queues {
        /// When they were looked at.
        at: KernelTime,
        /// They.
        queues: Queues,
    },
    /// What a process has imported that was asked for; nothing where that cannot be read.
    Imports {
        /// Which process.
        process: ProcessKey,
        /// What it has.
        imports: Option<Imports>,
    },
    /// Time passed.
    Tick {
        /// Now.
        at: KernelTime,
        /// What to add to get wall time.
        wall: WallOffset,
    },
}

/// What a pipeline starts from; the first line of a tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Format of the tape; a reader refuses others.
    pub tape: u32,
    /// What trace ids are made from.
    pub seed: u64,
    /// What to add to kernel time to get wall time.
    pub wall: WallOffset,
    /// Names given on the command line.
    pub given: Given,
    /// What is left out on purpose and what is shown beside, as the command line says.
    #[serde(default)]
    pub chosen: Chosen,
    /// How long after its fork a worker that has not beaten is stuck, in nanoseconds.
    pub stuck_after_ns: u64,
    /// Between two meter reports, in nanoseconds, where that is chosen for all.
    pub meter_period_ns: Option<u64>,
    /// Connections followed at a time.
    pub connections: usize,
}

/// Raw bytes; base64 on a tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes).map_err(serde::de::Error::custom)
    }
}
