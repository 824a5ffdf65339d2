//! Every map, each with its reason and its size rule.
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::maps::RingBuf;
use observer_ebpf::counter;
use observer_ebpf::key::Socket;
use observer_ebpf::key::Watch;

use crate::io::Call;

/// Records on their way out; the loader sets its size (`--ring-size`).
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Processes to report on, by pid: masters, workers and their children.
#[map]
pub static WATCHED: HashMap<u32, Watch> = HashMap::with_max_entries(16_384, 0);

/// Worker slots that were made and not yet forked for, by thread: an arbiter makes one before each fork.
#[map]
pub static SLOTS: HashMap<u64, u64> = HashMap::with_max_entries(1_024, 0);

/// Sockets that watched processes use, by address; the loader sets its size (`--max-connections`). When it is full
/// the one idle longest goes, as in the observer: idle connections do not keep busy ones out, nor do Unix sockets
/// that ended with their process, which only the kernel functions for release show.
#[map]
pub static SOCKETS: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(32_768, 0);

/// Socket calls between their start and their end, by thread: at most one per thread.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(16_384, 0);

/// What was lost, by reason.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::SLOTS, 0);
