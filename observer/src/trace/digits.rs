//! Numbers and addresses as text: a request has half a dozen of them, and formatting takes ten times as long.
use std::net::SocketAddr;

use compact_str::CompactString;
use compact_str::ToCompactString;

/// Room for the largest number, and for the longest address.
const ROOM: usize = 24;

/// Text that grows at its front.
struct Backwards {
    room: [u8; ROOM],
    begin: usize,
}

impl Backwards {
    fn new() -> Backwards {
        Backwards { room: [0; ROOM], begin: ROOM }
    }

    fn byte(&mut self, byte: u8) {
        self.begin = self.begin.saturating_sub(1);
        if let Some(slot) = self.room.get_mut(self.begin) {
            *slot = byte;
        }
    }

    fn number(&mut self, mut number: u64) {
        loop {
            self.byte(b'0' + u8::try_from(number % 10).unwrap_or_default());
            number /= 10;
            if number == 0 {
                return;
            }
        }
    }

    fn text(&self) -> CompactString {
        let written = self.room.get(self.begin..).unwrap_or_default();
        str::from_utf8(written).unwrap_or_default().into()
    }
}

/// A number.
pub fn decimal(number: u64) -> CompactString {
    let mut text = Backwards::new();
    text.number(number);
    text.text()
}

/// `ip:port`
pub fn address(address: SocketAddr) -> CompactString {
    let SocketAddr::V4(address) = address else { return address.to_compact_string() };
    let [a, b, c, d] = address.ip().octets();
    let mut text = Backwards::new();
    text.number(address.port().into());
    for (behind, octet) in [(b':', d), (b'.', c), (b'.', b), (b'.', a)] {
        text.byte(behind);
        text.number(octet.into());
    }
    text.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_as_formatted(number in any::<u64>(), shift in 0_u32..64) {
            let number = number >> shift;
            prop_assert_eq!(decimal(number).into_string(), number.to_string());
        }

        #[test]
        fn addresses_are_as_formatted(ip in any::<std::net::IpAddr>(), port in any::<u16>()) {
            let end = SocketAddr::new(ip, port);
            prop_assert_eq!(address(end).into_string(), end.to_string());
        }
    }

    #[test]
    fn the_longest_have_room() {
        assert_eq!(decimal(u64::MAX).as_str(), u64::MAX.to_string());
        let longest = "255.255.255.255:65535";
        assert_eq!(longest.parse().map(address).as_deref(), Ok(longest));
    }
}
