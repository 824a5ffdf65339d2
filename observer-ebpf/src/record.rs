//! Every record on the ring, and its kind.
use crate::wire;

/// What a record is. The numbers are append-only: a tape recorded by an older release stays readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`Forked`]
    Forked = 1,
    /// [`Execed`]
    Execed = 2,
    /// [`Exited`]
    Exited = 3,
    /// [`Slot`]: an arbiter made a worker slot
    Slotted = 4,
    /// [`Slot`]: a worker's heartbeat
    Beat = 5,
    /// [`Opened`]
    Opened = 6,
    /// [`Moved`] and the bytes that were read
    Received = 7,
    /// [`Moved`] and the bytes that were written
    Sent = 8,
    /// [`Closed`]
    Closed = 9,
    /// [`Signalled`]
    Signalled = 10,
    /// [`Program`] and a piece of its arguments and environment
    Program = 11,
}

impl Kind {
    /// The kind with this number; `None` for a number of a newer release.
    pub fn from_wire(number: u16) -> Option<Kind> {
        Some(match number {
            1 => Kind::Forked,
            2 => Kind::Execed,
            3 => Kind::Exited,
            4 => Kind::Slotted,
            5 => Kind::Beat,
            6 => Kind::Opened,
            7 => Kind::Received,
            8 => Kind::Sent,
            9 => Kind::Closed,
            10 => Kind::Signalled,
            11 => Kind::Program,
            _ => return None,
        })
    }
}

wire! {
    /// Leads every record in the ring buffer.
    pub struct Header [24] {
        /// Kernel monotonic time, in nanoseconds (`bpf_ktime_get_ns`).
        pub at: u64,
        /// Process, in the initial pid namespace.
        pub tgid: u32,
        /// Thread, in the initial pid namespace.
        pub tid: u32,
        /// A [`Kind`] as a number.
        pub kind: u16,
        /// Always zero.
        pub zero: u16,
        /// Bytes that follow the record's fixed part.
        pub len: u32,
    }
}

wire! {
    /// A process was created; threads are never reported. The header names the parent.
    pub struct Forked [56] {
        /// Leads.
        pub header: Header,
        /// The child, in the initial pid namespace.
        pub child: u32,
        /// The child in its own pid namespace: what `getpid()` says there.
        pub child_inner: u32,
        /// When the child was started, in nanoseconds since boot (`task_struct.start_boottime`).
        pub child_start: u64,
        /// The parent's start, likewise.
        pub parent_start: u64,
        /// [`forked`] bits.
        pub flags: u32,
        /// Always zero.
        pub zero: u32,
    }
}

/// Bits of [`Forked::flags`].
pub mod forked {
    /// The child shares its parent's memory until it execs (vfork, posix_spawn).
    pub const SHARES_MEMORY: u32 = 1;
    /// The parent's thread made a worker slot just before.
    pub const WORKER: u32 = 2;
    /// Nothing is copied of the child, as of its parent.
    pub const DISREGARDED: u32 = 4;
}

wire! {
    /// A watched process replaced its program.
    pub struct Execed [32] {
        /// Leads.
        pub header: Header,
        /// The process's start, in nanoseconds since boot.
        pub start: u64,
    }
}

wire! {
    /// The last thread of a watched process ended.
    pub struct Exited [40] {
        /// Leads.
        pub header: Header,
        /// The process's start, in nanoseconds since boot.
        pub start: u64,
        /// Wait status: exit code in bits 8–15, signal in bits 0–6.
        pub status: u32,
        /// [`exited`] bits.
        pub flags: u32,
    }
}

/// Bits of [`Exited::flags`].
pub mod exited {
    /// The kernel chose it when memory ran out (`signal_struct.oom_mm`).
    pub const OOM: u32 = 1;
}

wire! {
    /// A signal was sent to a watched process. The header names the sender.
    pub struct Signalled [64] {
        /// Leads.
        pub header: Header,
        /// The process that it is for, in the initial pid namespace.
        pub target: u32,
        /// Its number.
        pub signal: u32,
        /// Start of the process that it is for, in nanoseconds since boot.
        pub target_start: u64,
        /// `si_code`: 0 from `kill`, 128 from the kernel, negative from a thread (`<asm-generic/siginfo.h>`).
        pub code: i32,
        /// `TRACE_SIGNAL_*` of `<trace/events/signal.h>`: 0 delivered, 1 ignored, 2 pending already.
        pub result: u32,
        /// The sending thread's name, ended by zero.
        pub sender: [u8; 16],
    }
}

wire! {
    /// A Python interpreter replaced some process's program. `header.len` bytes of its arguments and environment
    /// follow: both are copied before the program can change them.
    pub struct Program [56] {
        /// Leads; the process is the one that now runs the interpreter.
        pub header: Header,
        /// The process's start, in nanoseconds since boot.
        pub start: u64,
        /// Where its arguments start in its memory; forks inherit it.
        pub stack: u64,
        /// Where in both the bytes that follow stand.
        pub offset: u32,
        /// Bytes of both; the environment follows the arguments.
        pub size: u32,
        /// Bytes of the arguments.
        pub arguments: u32,
        /// Always zero.
        pub zero: u32,
    }
}

wire! {
    /// A worker slot: made by an arbiter, or beaten by its worker.
    pub struct Slot [48] {
        /// Leads.
        pub header: Header,
        /// The process's start, in nanoseconds since boot.
        pub start: u64,
        /// Inode of the slot's file.
        pub ino: u64,
        /// Device of the slot's file (kernel `dev_t`).
        pub dev: u32,
        /// Always zero.
        pub zero: u32,
    }
}

wire! {
    /// A kernel socket, told apart from an earlier one at the same address.
    pub struct Conn [16] {
        /// Address of the kernel's `struct sock`.
        pub sock: u64,
        /// When the probes first saw it, in kernel monotonic nanoseconds.
        pub born: u64,
    }
}

/// `AF_UNIX` of `<linux/socket.h>`.
pub const AF_UNIX: u16 = 1;
/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

wire! {
    /// A connection that a watched process accepted, or was first seen to use.
    pub struct Opened [96] {
        /// Leads.
        pub header: Header,
        /// Which connection.
        pub conn: Conn,
        /// Kernel monotonic time at which the last packet had arrived before this; 0 when unknown.
        pub ready: u64,
        /// [`AF_UNIX`], [`AF_INET`] or [`AF_INET6`].
        pub family: u16,
        /// 1 when it was seen being accepted, 0 when it was there before.
        pub accepted: u16,
        /// Local port, host byte order; 0 for a Unix socket.
        pub local_port: u16,
        /// The peer's port, host byte order; 0 for a Unix socket.
        pub peer_port: u16,
        /// Local address in network byte order; IPv4 in the first four bytes.
        pub local: [u8; 16],
        /// The peer's address, likewise.
        pub peer: [u8; 16],
        /// Network namespace (inode number).
        pub netns: u32,
        /// Always zero.
        pub zero: u32,
    }
}

wire! {
    /// Bytes that a watched process read or wrote. `header.len` of them follow; the rest were not copied.
    pub struct Moved [64] {
        /// Leads; `at` is the time at which the call ended.
        pub header: Header,
        /// Which connection.
        pub conn: Conn,
        /// Bytes moved in this direction before this call, as far as the probes saw.
        pub offset: u64,
        /// When the first of these bytes was ready to be read; 0 when unknown or for a write.
        pub ready: u64,
        /// Bytes moved by this call; 0 is the end of the stream.
        pub size: u32,
        /// [`moved`] bits.
        pub flags: u32,
    }
}

/// Bits of [`Moved::flags`].
pub mod moved {
    /// Bytes of a TLS session, as its process sees them, in streams of their own. With a size of 0: from here on they are
    /// seen.
    pub const PLAIN: u32 = 1;
}

wire! {
    /// The last reference to a socket went away.
    pub struct Closed [40] {
        /// Leads; the process is whoever dropped it.
        pub header: Header,
        /// Which connection.
        pub conn: Conn,
    }
}
