//! The header of a frame (RFC 9113, 4.1), and what of it has to be as it is.
use super::Fault;

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 9;
/// The bits of a stream's number.
pub(super) const STREAM: u32 = 0x7fff_ffff;

/// The frame ends its message.
pub(super) const END_STREAM: u8 = 0x1;
/// The frame ends its block of headers.
pub(super) const END_HEADERS: u8 = 0x4;
/// Its payload begins with how much of it, at its end, is padding.
const PADDED: u8 = 0x8;
/// It says what its stream depends on.
const PRIORITY: u8 = 0x20;
/// Bytes that it takes to say so.
const PRIORITY_LEN: usize = 5;
/// Bytes of the number of a stream that is promised.
const PROMISED_LEN: usize = 4;

/// Kinds of frames, by what we do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Reset,
    Promise,
    Away,
    Continuation,
    /// Nothing that matters to us.
    Control,
    /// No kind of the standard's: to be passed over.
    Unknown,
}

/// Longest frame of a kind that nobody knows, in bytes: what an endpoint takes unless it said otherwise.
const UNKNOWN_LIMIT: u32 = 16_384;

/// A frame's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Its number.
    number: u8,
    flags: u8,
    pub(super) stream: u32,
    /// Bytes behind it.
    pub(super) len: u32,
}

impl Header {
    pub(super) fn of([a, b, c, number, flags, stream @ ..]: [u8; HEADER]) -> Header {
        let kind = match number {
            0 => Kind::Data,
            1 => Kind::Headers,
            3 => Kind::Reset,
            5 => Kind::Promise,
            7 => Kind::Away,
            9 => Kind::Continuation,
            2 | 4 | 6 | 8 => Kind::Control,
            _ => Kind::Unknown,
        };
        let stream = u32::from_be_bytes(stream) & STREAM;
        Header { kind, number, flags, stream, len: u32::from_be_bytes([0, a, b, c]) }
    }

    /// The one at the front of `bytes`, and what is behind it.
    pub(super) fn at_front(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let (header, rest) = bytes.split_first_chunk()?;
        Some((Header::of(*header), rest))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it is a server's first: settings, and no answer to a client's.
    pub(super) fn is_settings(&self) -> bool {
        self.number == 4 && self.flags == 0 && self.is_sound()
    }

    /// Whether length and stream are such as this kind has.
    pub(super) fn is_sound(&self) -> bool {
        let is_stream = self.stream != 0;
        match self.number {
            0 | 1 | 5 | 9 => is_stream,
            2 => is_stream && self.len == 5,
            3 => is_stream && self.len == 4,
            4 => !is_stream && self.len.is_multiple_of(6) && (!self.has(1) || self.len == 0),
            6 => !is_stream && self.len == 8,
            7 => !is_stream && self.len >= 8,
            8 => self.len == 4,
            _ => self.len <= UNKNOWN_LIMIT,
        }
    }

    /// What stands before and behind the block of headers in a payload that begins one, in bytes.
    pub(super) fn around(&self, payload: &[u8]) -> Result<(usize, usize), Fault> {
        let mut head = if self.kind == Kind::Promise {
            PROMISED_LEN
        } else if self.has(PRIORITY) {
            PRIORITY_LEN
        } else {
            0
        };
        let mut tail = 0;
        if self.has(PADDED) {
            tail = usize::from(*payload.first().ok_or(Fault::Malformed)?);
            head += 1;
        }
        if head + tail > payload.len() { Err(Fault::Malformed) } else { Ok((head, tail)) }
    }
}
