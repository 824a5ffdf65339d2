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
    /// It speaks HTTP/2 from here on.
    Http2 {
        /// Bytes at the end of those that were copied which are to be read so.
        rest: u64,
        /// What is to come of its client's preface.
        preface: &'static [u8],
    },
}
