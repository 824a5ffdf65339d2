//! Every map, each with its reason and its size rule.
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::maps::HashMap;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::maps::RingBuf;
use observer_ebpf::counter;
use observer_ebpf::key;
use observer_ebpf::key::Interpreter;
use observer_ebpf::key::Socket;
use observer_ebpf::key::Watch;
use observer_ebpf::record::Conn;

use crate::io::Call;
use crate::tls;
use crate::tls::Session;

/// Records on their way out; the loader sets its size (`--ring-size`).
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Processes to report on, by pid: masters, workers and their children.
#[map]
pub static WATCHED: HashMap<u32, Watch> = HashMap::with_max_entries(16_384, 0);

/// Worker slots that were made and not yet forked for, by thread: an arbiter makes one before each fork. The value says
/// whether the second of two programs noted it.
#[map]
pub static SLOTS: HashMap<u64, u32> = HashMap::with_max_entries(1_024, 0);

/// Sockets that watched processes use, by address; the loader sets its size (`--max-connections`). When it is full
/// the one idle longest goes, as in the observer: idle connections do not keep busy ones out, nor do Unix sockets
/// that ended with their process, which only the kernel functions for release show.
#[map]
pub static SOCKETS: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(32_768, 0);

/// Socket calls, by thread: an entry for each thread of a watched process that has made one.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(32_768, 0);

/// Calls of a TLS library between their start and their end, by thread.
#[map]
pub static TLS_CALLS: HashMap<u64, tls::Call> = HashMap::with_max_entries(16_384, 0);

/// Sockets of TLS sessions. Those that were not freed go when the map is full.
#[map]
pub static SESSIONS: LruHashMap<Session, Conn> = LruHashMap::with_max_entries(32_768, 0);

/// Which encrypted connection a thread read last, while its session is not known.
#[map]
pub static CIPHERS: LruHashMap<u64, Conn> = LruHashMap::with_max_entries(4_096, 0);

/// `BPF_F_MMAPABLE` of `<linux/bpf.h>`, from 5.5.
const MMAPABLE: u32 = 1 << 10;

/// Threads that wait for an interpreter's lock, and since when.
#[map]
pub static WAITS: HashMap<u64, u64> = HashMap::with_max_entries(16_384, 0);

/// Interpreters whose collector or lock is timed, by pid. Mapped into the observer, which writes to it, too, for the same
/// reason as the counters below.
#[map]
pub static INTERPRETERS: Array<Interpreter> = Array::with_max_entries(key::INTERPRETERS, MMAPABLE);

/// What was lost, by processor and reason; the loader sets its size. Mapped into the observer: while a task is inside a `bpf()` call for a map, the kernel
/// passes over kprobe and tracepoint programs on its processor, so that reading by calls would itself lose.
#[map]
pub static COUNTERS: Array<u64> = Array::with_max_entries(counter::SLOTS, MMAPABLE);
