//! What is to become of a connection after a read or write.

/// Whether a connection is worth following any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Follow,
    GiveUp,
    /// It is encrypted.
    Encrypted,
    /// It is a WebSocket from here on, of which so many bytes were written already.
    WebSocket(u64),
}
