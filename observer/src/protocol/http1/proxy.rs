//! What a proxy in front says of its client, before the first request: both versions of the PROXY protocol
//! (HAProxy's `proxy-protocol.txt`).
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::protocol::Piece;

/// How a line of the first version begins.
const LINE: &[u8] = b"PROXY ";
/// How the second version begins.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes behind the signature up to the addresses: version and command, family, and how many bytes follow.
const FIXED: usize = 4;
/// Bytes of the addresses that are kept: two of IPv6 with their ports.
const ADDRESSES: usize = 36;

/// Whether it is a line of the first version.
pub fn is_line(line: &[u8]) -> bool {
    line.starts_with(LINE)
}

/// The client of `PROXY TCP4 <client> <server> <its port> <port>`; nothing when the proxy does not know it.
pub fn client(line: &[u8]) -> Option<SocketAddr> {
    let mut words = std::str::from_utf8(line.strip_prefix(LINE)?).ok()?.split(' ');
    let (_, ip, _, port) = (words.next()?, words.next()?, words.next()?, words.next()?);
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// A header of the second version, behind its signature.
#[derive(Debug, Default)]
pub struct Header {
    kept: Vec<u8>,
    /// Bytes that still follow, once that is known.
    rest: Option<u64>,
}

impl Header {
    /// Takes bytes off the front of `piece`; whether it is complete then. Nothing when it is none, or was not copied.
    pub fn feed(&mut self, piece: &mut Piece<'_>) -> Option<bool> {
        while self.kept.len() < FIXED {
            match *piece {
                Piece::Bytes([byte, ..]) => self.kept.push(*byte),
                Piece::Bytes([]) | Piece::Hole(0) => return Some(false),
                Piece::Hole(_) => return None,
            }
            piece.skip(1);
        }
        let [version, _, high, low, ..] = *self.kept.as_slice() else { return None };
        if version & 0xf0 != 0x20 {
            return None;
        }
        let mut rest = self.rest.unwrap_or_else(|| u16::from_be_bytes([high, low]).into());
        let room = (FIXED + ADDRESSES).saturating_sub(self.kept.len());
        if let Piece::Bytes(bytes) = *piece {
            let taken = room.min(usize::try_from(rest).unwrap_or(room));
            self.kept.extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
        }
        rest -= piece.skip(rest);
        self.rest = Some(rest);
        Some(rest == 0)
    }

    /// The client; nothing when the proxy speaks for itself, or of an address without a port.
    pub fn client(&self) -> Option<SocketAddr> {
        let (fixed, addresses) = self.kept.split_at_checked(FIXED)?;
        let [0x21, family, high, low] = *fixed else { return None };
        let size = u16::from_be_bytes([high, low]);
        let (ip, ports) = match (family >> 4, size) {
            (1, 12..) => (IpAddr::from(Ipv4Addr::from(*addresses.first_chunk::<4>()?)), addresses.get(8..)?),
            (2, 36..) => {
                (IpAddr::from(Ipv6Addr::from(*addresses.first_chunk::<16>()?)), addresses.get(32..)?)
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(*ports.first_chunk()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Option<(bool, Option<SocketAddr>, usize)> {
        let mut header = Header::default();
        let mut piece = Piece::Bytes(bytes);
        let done = header.feed(&mut piece)?;
        Some((done, header.client(), usize::try_from(piece.len()).unwrap()))
    }

    fn v4() -> Vec<u8> {
        [&[0x21, 0x11, 0, 15], &[10, 0, 0, 9, 127, 0, 0, 1][..], &[0x9c, 0x40, 0, 80], b"tlv"].concat()
    }

    #[test]
    fn a_line_names_the_client() {
        let of = |line: &[u8]| client(line).map(|client| client.to_string());
        assert_eq!(of(b"PROXY TCP4 10.0.0.9 127.0.0.1 40000 80").as_deref(), Some("10.0.0.9:40000"));
        assert_eq!(of(b"PROXY TCP6 ::9 ::1 40000 80").as_deref(), Some("[::9]:40000"));
        for line in [&b"PROXY UNKNOWN"[..], b"PROXY TCP4 10.0.0.9", b"PROXY TCP4 x y 1 2", b"GET / HTTP/1.1"]
        {
            assert_eq!(of(line), None);
        }
    }

    #[test]
    fn a_header_names_the_client_and_ends_where_it_says() {
        let client = Some("10.0.0.9:40000".parse().unwrap());
        assert_eq!(whole(&v4()), Some((true, client, 0)));
        assert_eq!(whole(&[v4(), b"GET".to_vec()].concat()), Some((true, client, 3)));
        let v6 = [&[0x21, 0x21, 0, 36][..], &[0; 15], &[9], &[0; 15], &[1], &[0x9c, 0x40, 0, 80]].concat();
        assert_eq!(whole(&v6), Some((true, Some("[::9]:40000".parse().unwrap()), 0)));
        assert_eq!(whole(&[0x20, 0, 0, 0]), Some((true, None, 0))); // LOCAL
        assert_eq!(whole(&[0x21, 0x11, 0, 2, 1, 2]), Some((true, None, 0)));
        assert_eq!(whole(&[0x31, 0x11, 0, 2]), None);
    }

    #[test]
    fn a_header_may_be_cut_anywhere() {
        let bytes = v4();
        for cut in 0..bytes.len() {
            let mut header = Header::default();
            for part in [bytes.get(..cut).unwrap(), bytes.get(cut..).unwrap()] {
                let mut piece = Piece::Bytes(part);
                let done = header.feed(&mut piece);
                assert_eq!(
                    (done, piece.is_empty()),
                    (Some(part.as_ptr_range().end == bytes.as_ptr_range().end), true)
                );
            }
            assert_eq!(header.client(), Some("10.0.0.9:40000".parse().unwrap()));
        }
    }

    #[test]
    fn what_was_not_copied_is_skipped_only_behind_the_addresses() {
        let mut header = Header::default();
        assert_eq!(header.feed(&mut Piece::Hole(3)), None);
        let mut header = Header::default();
        assert_eq!(header.feed(&mut Piece::Bytes(&[0x21, 0x11, 0, 20])), Some(false));
        assert_eq!(header.feed(&mut Piece::Hole(20)), Some(true));
        assert_eq!(header.client(), None);
    }
}
