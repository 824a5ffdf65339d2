//! Reasons for which the probes lose something: append-only numbers, indexes of the map `COUNTERS`.

/// Why a probe lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Drop {
    /// The ring had no room for a record.
    RingFull = 0,
    /// The table of watched processes is full.
    WatchedFull = 1,
    /// The table of sockets is full.
    SocketsFull = 2,
    /// The table of threads that make socket calls is full.
    CallsFull = 3,
    /// User memory could not be read (paged out, or gone); the bytes are counted but not copied.
    UserFault = 4,
    /// A kernel structure could not be read.
    KernelFault = 5,
    /// A message list too long to follow (`sendmmsg`, `recvmmsg`).
    MessageList = 6,
    /// A call's end was not seen: the kernel ran out of return-probe instances.
    MissedReturn = 7,
    /// The begin or the end of a run of an interpreter's collector was not seen; its time is missing.
    MissedRun = 8,
}

/// Every reason with its stable name.
pub const DROPS: [(Drop, &str); 9] = [
    (Drop::RingFull, "ring_full"),
    (Drop::WatchedFull, "watched_full"),
    (Drop::SocketsFull, "sockets_full"),
    (Drop::CallsFull, "calls_full"),
    (Drop::UserFault, "user_fault"),
    (Drop::KernelFault, "kernel_fault"),
    (Drop::MessageList, "message_list"),
    (Drop::MissedReturn, "missed_return"),
    (Drop::MissedRun, "missed_run"),
];

/// Slots of each processor in the map `COUNTERS`; more than there are reasons, so that an old object fits a new
/// observer.
pub const SLOTS: u32 = 32;
