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

wire! {
    /// Value of the map `SOCKETS`, keyed by the address of a `struct sock`.
    pub struct Socket [40] {
        /// Which connection this is.
        pub conn: Conn,
        /// Bytes read so far.
        pub received: u64,
        /// Bytes written so far.
        pub sent: u64,
        /// 1 when the observer does not want its bytes.
        pub ignored: u32,
        /// Always zero.
        pub zero: u32,
    }
}
