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
        rest: u32,
        /// Bytes of its client's preface that were read already.
        said: u8,
    },
}

impl Verdict {
    /// It speaks HTTP/2 from the last `rest` bytes on. Of so few bytes a verdict stays in registers.
    pub(super) fn http2(rest: u64, said: usize) -> Verdict {
        let rest = u32::try_from(rest).unwrap_or(u32::MAX);
        Verdict::Http2 { rest, said: u8::try_from(said).unwrap_or(u8::MAX) }
    }
}
