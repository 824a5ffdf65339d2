//! Records to ordered chunks per connection: what is missing, and which connections there are.
mod connections;

pub use connections::Connections;
pub use connections::Displaced;
pub use connections::Known;

use crate::clock::KernelTime;
use observer_ebpf::record::Moved;

/// One read or write of a connection, placed in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Bytes before it whose records were lost.
    pub lost: u64,
    /// What was copied of it.
    pub bytes: &'a [u8],
    /// Bytes after those that were not copied.
    pub hole: u64,
    /// When the call ended.
    pub at: KernelTime,
    /// When its first byte was ready to be read; `None` when not known.
    pub ready: Option<KernelTime>,
    /// The process that made the call.
    pub pid: u32,
    /// The thread that did.
    pub tid: u32,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Offset of the next chunk; `None` before the first one of a stream that was joined in the middle.
    next: Option<u64>,
}

impl Stream {
    /// A stream that is seen from its first byte on.
    pub fn from_start() -> Stream {
        Stream { next: Some(0) }
    }

    /// A stream that is joined somewhere.
    pub fn from_middle() -> Stream {
        Stream { next: None }
    }

    /// Places a read or write; `None` when the stream is already past it.
    pub fn place<'a>(&mut self, moved: &Moved, bytes: &'a [u8]) -> Option<Chunk<'a>> {
        let lost = match self.next {
            Some(next) => moved.offset.checked_sub(next)?,
            None => 0,
        };
        let size = u64::from(moved.size);
        self.next = Some(moved.offset.saturating_add(size));
        let most = usize::try_from(moved.size).unwrap_or(usize::MAX);
        let bytes = bytes.get(..most).unwrap_or(bytes);
        Some(Chunk {
            lost,
            bytes,
            hole: size - bytes.len() as u64,
            at: KernelTime(moved.header.at),
            ready: (moved.ready != 0).then_some(KernelTime(moved.ready)),
            pid: moved.header.tgid,
            tid: moved.header.tid,
        })
    }

    /// Counts a read or write of which no bytes are wanted, with those before it whose records were lost; 0 for what was
    /// counted as lost already.
    pub fn count(&mut self, moved: &Moved) -> u64 {
        let end = moved.offset.saturating_add(moved.size.into());
        let next = self.next.unwrap_or(moved.offset);
        self.next = Some(next.max(end));
        end.saturating_sub(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_ebpf::record::Conn;
    use observer_ebpf::record::Header;

    fn moved(offset: u64, size: u32) -> Moved {
        let header = Header { at: 5, tgid: 1, tid: 2, kind: 7, zero: 0, len: 0 };
        Moved { header, conn: Conn { sock: 1, born: 1 }, offset, ready: 0, size, flags: 0 }
    }

    #[test]
    fn a_jump_is_a_loss_and_what_was_not_copied_a_hole() {
        let mut stream = Stream::from_start();
        let chunk = stream.place(&moved(0, 10), b"abc").unwrap();
        assert_eq!((chunk.lost, chunk.bytes, chunk.hole), (0, &b"abc"[..], 7));
        let chunk = stream.place(&moved(15, 2), b"xy").unwrap();
        assert_eq!((chunk.lost, chunk.bytes, chunk.hole), (5, &b"xy"[..], 0));
        assert_eq!(chunk.ready, None);
    }

    #[test]
    fn what_comes_late_is_refused() {
        let mut stream = Stream::from_start();
        assert!(stream.place(&moved(4, 4), b"").is_some());
        assert_eq!(stream.place(&moved(0, 4), b"abcd"), None);
        assert_eq!(stream.place(&moved(8, 0), b"").map(|chunk| chunk.hole), Some(0));
    }

    #[test]
    fn what_is_counted_is_counted_once() {
        let mut stream = Stream::from_start();
        let counted =
            [(0, 4), (10, 5), (4, 6), (15, 0), (15, 1)].map(|(at, size)| stream.count(&moved(at, size)));
        assert_eq!(counted, [4, 11, 0, 0, 1]);
        assert_eq!(Stream::from_middle().count(&moved(70, 4)), 4);
    }

    #[test]
    fn a_stream_joined_in_the_middle_has_lost_nothing() {
        let mut stream = Stream::from_middle();
        assert_eq!(stream.place(&moved(70, 4), b"abcd").map(|chunk| chunk.lost), Some(0));
        assert_eq!(
            stream.place(&moved(75, 4), b"abcdefgh").map(|chunk| (chunk.lost, chunk.bytes.len())),
            Some((1, 4))
        );
    }
}
