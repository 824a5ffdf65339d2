//! HPACK (RFC 7541), the reading side of one direction: header blocks to the few headers that we need.
//!
//! Our own, because no crate fits: `httlib-hpack` indexes beyond its input and moves all that is left with each header,
//! `hpack`, `fluke-hpack` and `loona-hpack` build hash tables for each text, and that of `h2` is private. Of headers that we do not need
//! only the sizes are kept, so that no cookie stays in memory.
//!
//! The limit that a receiver sets with `SETTINGS_HEADER_TABLE_SIZE` needs no following: a sender says each new size of its table
//! in a block, before it counts on it.
use super::huffman;
use std::borrow::Cow;
use std::collections::VecDeque;

/// What each header takes of a table beside its text (RFC 7541, 4.1), in bytes.
const OVERHEAD: usize = 32;
/// How large a table is unless its sender says otherwise, in bytes.
const USUAL: usize = 4_096;
/// How large a sender may make its table, in bytes: what browsers allow.
const LARGEST: usize = 65_536;
/// How many times a table may change its size in one block: two are of use.
const RESIZES: usize = 16;

/// Headers that we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Path,
    Authority,
    Status,
    Host,
    Sw8,
    Correlation,
    Traceparent,
    /// Any other pseudo-header.
    Pseudo,
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Name {
        match name {
            b":method" => Name::Method,
            b":path" => Name::Path,
            b":authority" => Name::Authority,
            b":status" => Name::Status,
            b"host" => Name::Host,
            b"sw8" => Name::Sw8,
            b"sw8-correlation" => Name::Correlation,
            b"traceparent" => Name::Traceparent,
            [b':', ..] => Name::Pseudo,
            _ => Name::Other,
        }
    }

    fn is_needed(self) -> bool {
        !matches!(self, Name::Pseudo | Name::Other)
    }
}

/// A header of a table.
#[derive(Debug)]
struct Entry {
    name: Name,
    /// Bytes of its name.
    name_len: usize,
    /// Bytes of its name and value, with what else it counts for.
    size: usize,
    /// Empty unless its name is needed.
    value: Box<[u8]>,
}

/// What a sender of header blocks and their reader keep in common.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { entries: VecDeque::new(), size: 0, limit: USUAL }
    }

    /// Bytes that it holds.
    pub(super) fn holds(&self) -> usize {
        let values: usize = self.entries.iter().map(|entry| entry.value.len()).sum();
        self.entries.capacity() * size_of::<Entry>() + values
    }

    /// Reads a whole block and gives each header to `take`; `None` when it is none, and then the table is of no more use.
    pub(super) fn read(&mut self, mut block: &[u8], mut take: impl FnMut(Name, &[u8])) -> Option<()> {
        let mut resizes = 0;
        while let Some(first) = block.first().copied() {
            match first {
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    match self.get(index)? {
                        Found::Fixed(name, value) => take(Name::of(name), value),
                        Found::Kept(entry) => take(entry.name, &entry.value),
                    }
                }
                0x20..0x40 => {
                    let limit = integer(&mut block, 5)?;
                    resizes += 1;
                    if limit > LARGEST || resizes > RESIZES {
                        return None;
                    }
                    self.limit = limit;
                    self.shrink();
                }
                _ => {
                    let keeps = first & 0x40 != 0;
                    let index = integer(&mut block, if keeps { 6 } else { 4 })?;
                    let (name, name_len) = match index {
                        0 => {
                            let name = text(&mut block)?;
                            (Name::of(&name), name.len())
                        }
                        _ => match self.get(index)? {
                            Found::Fixed(name, _) => (Name::of(name), name.len()),
                            Found::Kept(entry) => (entry.name, entry.name_len),
                        },
                    };
                    let value = text(&mut block)?;
                    take(name, &value);
                    if keeps {
                        self.keep(name, name_len, &value);
                    }
                }
            }
        }
        Some(())
    }

    fn get(&self, index: usize) -> Option<Found<'_>> {
        let index = index.checked_sub(1)?;
        if let Some((name, value)) = FIXED.get(index) {
            return Some(Found::Fixed(name.as_bytes(), value.as_bytes()));
        }
        self.entries.get(index - FIXED.len()).map(Found::Kept)
    }

    fn keep(&mut self, name: Name, name_len: usize, value: &[u8]) {
        let size = name_len + value.len() + OVERHEAD;
        let value = if name.is_needed() && size <= self.limit { value.into() } else { Box::default() };
        self.size += size;
        self.entries.push_front(Entry { name, name_len, size, value });
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.size > self.limit
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

enum Found<'a> {
    Fixed(&'a [u8], &'a [u8]),
    Kept(&'a Entry),
}

/// Whether a block begins as a request's does: with a pseudo-header that only requests have.
pub(super) fn asks(mut block: &[u8]) -> bool {
    loop {
        let index = match block.first().copied() {
            Some(0x20..0x40) => {
                if integer(&mut block, 5).is_none() {
                    return false;
                }
                continue;
            }
            Some(0x80..) => integer(&mut block, 7),
            Some(first) => integer(&mut block, if first & 0x40 != 0 { 6 } else { 4 }),
            None => None,
        };
        return matches!(index, Some(1..=7));
    }
}

/// An integer (RFC 7541, 5.1) whose first byte has so many bits of it.
fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        for shift in [0, 7, 14, 21] {
            let (byte, more) = rest.split_first()?;
            rest = more;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None; // 256 MiB are more than any text
    }
    *block = rest;
    Some(value)
}

/// A text (RFC 7541, 5.2).
fn text<'a>(block: &mut &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let is_coded = block.first()? & 0x80 != 0;
    let len = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(len)?;
    *block = rest;
    if is_coded { huffman::decode(text).map(Cow::Owned) } else { Some(Cow::Borrowed(text)) }
}

/// The headers that every table begins with (RFC 7541, appendix A).
#[rustfmt::skip]
const FIXED: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &mut Table, block: &[u8]) -> Option<String> {
        let mut seen = String::new();
        table.read(block, |name, value| {
            seen.push_str(&format!("{name:?} {}, ", String::from_utf8_lossy(value)));
        })?;
        Some(seen)
    }

    /// RFC 7541, C.4: three requests of one connection.
    #[test]
    fn the_requests_of_the_standard_are_read() {
        let mut table = Table::new();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let wanted = "Method GET, Pseudo http, Path /, Authority www.example.com, ";
        assert_eq!(read(&mut table, first).as_deref(), Some(wanted));
        assert_eq!(table.size, 57);
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        let wanted = "Method GET, Pseudo http, Path /, Authority www.example.com, Other no-cache, ";
        assert_eq!(read(&mut table, second).as_deref(), Some(wanted));
        assert_eq!(table.size, 110);
        let third = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        let wanted =
            "Method GET, Pseudo https, Path /index.html, Authority www.example.com, Other custom-value, ";
        assert_eq!(read(&mut table, third).as_deref(), Some(wanted));
        assert_eq!(table.size, 164);
        assert!(table.entries.iter().all(|entry| entry.value.is_empty() || entry.name == Name::Authority));
    }

    /// RFC 7541, C.6: three responses and a table of 256 bytes, from which headers have to go.
    #[test]
    fn what_has_no_room_goes() {
        let mut table = Table::new();
        let blocks: [(&[u8], usize); 3] = [
            (b"\x3f\xe1\x01\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3", 222),
            (b"\x48\x83\x64\x0e\xff\xc1\xc0\xbf", 222),
            (b"\x88\xc1\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x84\xa6\x2d\x1b\xff\xc0\x5a\x83\x9b\xd9\xab\x77\xad\x94\xe7\x82\x1d\xd7\xf2\xe6\xc7\xb3\x35\xdf\xdf\xcd\x5b\x39\x60\xd5\xaf\x27\x08\x7f\x36\x72\xc1\xab\x27\x0f\xb5\x29\x1f\x95\x87\x31\x60\x65\xc0\x03\xed\x4e\xe5\xb1\x06\x3d\x50\x07", 215),
        ];
        let seen: Vec<String> = blocks
            .iter()
            .map(|(block, size)| {
                let seen = read(&mut table, block).unwrap();
                assert_eq!(table.size, *size, "{seen}");
                seen.split(", ").next().unwrap().to_owned()
            })
            .collect();
        assert_eq!(seen, ["Status 302", "Status 307", "Status 200"]);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let huge = [0x3f, 0xff, 0xff, 0xff, 0x7f];
        let cases: [&[u8]; 8] = [
            b"\x80",                     // index 0
            b"\xbe",                     // nothing is kept yet
            b"\xff\xff\xff\xff\xff\x01", // an integer without an end
            b"\xff",
            b"\x41\x05ab",
            b"\x40",
            b"\x41\x81\x00", // no padding
            &huge,
        ];
        for block in cases {
            assert_eq!(read(&mut Table::new(), block), None, "{block:x?}");
        }
        assert_eq!(read(&mut Table::new(), &[0x20; RESIZES + 1]), None);
        // A header that is larger than its table empties it.
        let mut table = Table::new();
        assert!(read(&mut table, b"\x41\x01a\x3f\x0f\x41\x10aaaaaaaaaaaaaaaa").is_some());
        assert_eq!((table.size, table.entries.len()), (0, 0));
    }

    #[test]
    fn who_asks_is_told_from_who_answers() {
        for asking in
            [&b"\x82"[..], b"\x3f\xe1\x1f\x83", b"\x20\x3f\x01\x44\x01/", b"\x04\x01/", b"\x41\x01h"]
        {
            assert!(asks(asking), "{asking:x?}");
        }
        for other in [&b"\x88"[..], b"\x48\x82", b"", b"\x3f", b"\x40\x01a\x01b", b"\xbe", b"\x00"] {
            assert!(!asks(other), "{other:x?}");
        }
    }
}
