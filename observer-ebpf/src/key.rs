//! Every map key and value that both sides see.
use crate::record::Conn;
use crate::wire;

/// Bits of [`Watch::flags`].
pub mod watch {
    /// Report this process's forks, exec and exit.
    pub const LIFE: u32 = 1;
    /// Report its socket traffic.
    pub const TRAFFIC: u32 = 2;
    /// It is not reported, nor are the processes it forks: never report their traffic.
    pub const DISREGARDED: u32 = 4;
}

wire! {
    /// Value of the map `WATCHED`, keyed by the process's pid in the initial pid namespace.
    pub struct Watch [16] {
        /// [`watch`] bits.
        pub flags: u32,
        /// Always zero.
        pub zero: u32,
        /// When its heartbeat was last reported, in kernel monotonic nanoseconds.
        pub beat: u64,
    }
}

/// Entries of the map `INTERPRETERS`: a power of two.
pub const INTERPRETERS: u32 = 8_192;
/// An interpreter's entry is one of so many, from the one that its pid's lowest bits name.
pub const PLACES: u32 = 4;

/// What threads that wait for the interpreter lock sleep on, in bytes: twice glibc's condition variable and its mutex behind
/// it (`pthread_cond_t` and `pthread_mutex_t` of x86-64). On the second pair sleeps who gave the lock up, until another thread
/// has taken it.
pub const WAITERS_BYTES: u64 = 2 * (48 + 40);

/// [`Interpreter::runs`] before the probe was passed.
pub const NEVER: [u64; 3] = [u64::MAX; 3];

wire! {
    /// Entry of the map `INTERPRETERS`: an interpreter that is timed. All times are in nanoseconds.
    pub struct Interpreter [176] {
        /// Its process, in the initial pid namespace; 0 for an entry that nobody uses.
        pub pid: u64,
        /// Address of the collector's counters, three for each of three generations (`struct gc_generation_stats`), the
        /// first of which counts runs; 0 when its runs are not timed.
        pub counters: u64,
        /// Address of what threads that wait for the lock sleep on, [`WAITERS_BYTES`] long; 0 when waits are not timed.
        pub waiters: u64,
        /// Return addresses of the calls of the function with the collector's probe: at the begin of a run; 0 for none.
        pub begins: [u64; 4],
        /// At the end of a run.
        pub ends: [u64; 4],
        /// When a run began, in kernel monotonic time; 0 while there is none.
        pub begun: u64,
        /// How often each generation had been collected when the probe was last passed; [`NEVER`] before.
        pub runs: [u64; 3],
        /// Time in the collector, by generation.
        pub paused: [u64; 3],
        /// The longest of its runs since the observer last looked, by generation.
        pub longest: [u64; 3],
        /// Time that threads waited for the lock, together.
        pub waited: u64,
    }
}

wire! {
    /// Value of the map `SOCKETS`, keyed by the address of a `struct sock`.
    pub struct Socket [88] {
        /// Which connection this is.
        pub conn: Conn,
        /// Bytes read so far.
        pub received: u64,
        /// Bytes written so far.
        pub sent: u64,
        /// Address of the TLS session that it belongs to, in the process that uses it; 0 for none.
        pub session: u64,
        /// Bytes read so far, after decryption.
        pub plain_received: u64,
        /// Bytes written so far, before encryption.
        pub plain_sent: u64,
        /// When the encrypted bytes that were read last had been ready.
        pub ready: u64,
        /// When the bytes arrived that are being read; 0 while none are.
        pub arrived: u64,
        /// A number of [`wanted`].
        pub wanted: u32,
        /// A number of [`cipher`].
        pub cipher: u32,
        /// `AF_*`
        pub family: u32,
        /// Always zero.
        pub zero: u32,
    }
}

/// What the observer wants of a connection.
pub mod wanted {
    /// Its bytes.
    pub const BYTES: u32 = 0;
    /// Nothing.
    pub const NOTHING: u32 = 1;
    /// How many bytes each call moves.
    pub const SIZES: u32 = 2;
    /// All of its bytes, not only the first of each call: it speaks HTTP/2, whose heads may stand anywhere. The probes see
    /// that themselves: until the observer could say so, bytes would be missing.
    pub const WHOLE: u32 = 3;
}

/// What [`Socket::cipher`] says.
pub mod cipher {
    /// No byte was seen yet.
    pub const UNKNOWN: u32 = 0;
    /// Its first bytes are TLS.
    pub const YES: u32 = 1;
    /// Its first bytes are not TLS.
    pub const NO: u32 = 2;
    /// It was there before it was seen: a call of a TLS library may still show that it is encrypted.
    pub const LATE: u32 = 3;
}
