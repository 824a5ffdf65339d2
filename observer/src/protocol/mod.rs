//! Bytes to messages. Knows nothing of connections, processes or time.
pub mod http1;
pub mod http2;

/// Part of one direction of a connection, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes that were copied.
    Bytes(&'a [u8]),
    /// So many bytes that were not.
    Hole(u64),
}

impl Piece<'_> {
    /// Bytes in it, copied or not.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Hole(len) => *len,
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up to `most` bytes off the front and says how many.
    fn skip(&mut self, most: u64) -> u64 {
        let taken = self.len().min(most);
        match self {
            Piece::Bytes(bytes) => {
                let at = usize::try_from(taken).unwrap_or(bytes.len());
                *bytes = bytes.get(at..).unwrap_or_default();
            }
            Piece::Hole(len) => *len -= taken,
        }
        taken
    }

    fn skip_all(&mut self) {
        self.skip(u64::MAX);
    }
}
