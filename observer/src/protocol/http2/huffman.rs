//! Huffman's code of HPACK (RFC 7541, appendix B). It is canonical: codes of one length count upwards, in the order of their
//! symbols, so that how many there are of each length says it all.

/// How many codes there are of each length, in bits.
const COUNTS: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// The symbols in the order of their codes. The last one, which ends a text and may not be in one, is left out.
#[rustfmt::skip]
const SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95,
    98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76,
    77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59,
    88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92, 195,
    208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229,
    230, 129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189,
    190, 196, 198, 228, 232, 233, 1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157,
    158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171,
    206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240,
    242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253,
    254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    127, 220, 249, 10, 13, 22,
];

/// Decodes a text; `None` when it is none.
pub(super) fn decode(code: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(code.len() * 8 / 5);
    let mut walk = Walk::default();
    for byte in code {
        for bit in (0..8).rev() {
            if let Some(symbol) = walk.step(u32::from(byte >> bit) & 1)? {
                text.push(symbol);
            }
        }
    }
    walk.is_padding().then_some(text)
}

/// The bits since the last symbol.
#[derive(Default)]
struct Walk {
    bits: u32,
    len: usize,
    /// The first code of this length, and its place among the symbols.
    first: u32,
    place: u32,
}

impl Walk {
    /// Takes a bit: the symbol that it ends, if it ends one; `None` when that is no symbol of a text.
    fn step(&mut self, bit: u32) -> Option<Option<u8>> {
        self.bits = self.bits << 1 | bit;
        self.len += 1;
        self.first <<= 1;
        let count = *COUNTS.get(self.len)?;
        match self.bits.checked_sub(self.first) {
            Some(nth) if nth < count => {
                let symbol = SYMBOLS.get((self.place + nth) as usize)?;
                *self = Walk::default();
                Some(Some(*symbol))
            }
            _ => {
                self.first += count;
                self.place += count;
                Some(None)
            }
        }
    }

    /// What is left is the beginning of the symbol that ends a text, which is of ones, and less than a byte.
    fn is_padding(&self) -> bool {
        self.len < 8 && self.bits + 1 == 1 << self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let examples: [(&[u8], &str); 4] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", "custom-value"),
            (b"", ""),
        ];
        for (code, text) in examples {
            assert_eq!(decode(code).as_deref(), Some(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn each_symbol_has_a_code_of_its_own_and_codes_fill_the_space() {
        let mut symbols = SYMBOLS;
        symbols.sort_unstable();
        assert!(symbols.iter().copied().eq(0..=255));
        let filled: u64 = COUNTS.iter().enumerate().map(|(len, count)| u64::from(*count) << (30 - len)).sum();
        assert_eq!((filled, COUNTS.iter().sum::<u32>()), (1 << 30, 257));
    }

    #[test]
    fn wrong_padding_and_an_end_within_are_no_text() {
        for code in [&b"\xf1\xe3\xff\xff"[..], b"\x1c", b"\x18", b"\xff\xff\xff\xff", b"\xff"] {
            assert_eq!(decode(code), None, "{code:x?}");
        }
        assert_eq!(decode(b"\x1f").as_deref(), Some(&b"a"[..]));
    }
}
