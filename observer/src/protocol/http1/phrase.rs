//! What a status line says behind its status. It is a plain value: nearly nobody asks for it, and every response has one.
use compact_str::CompactString;

use super::head::text;

/// How much is kept, in bytes: as much as the longest phrase that is registered.
const LIMIT: usize = 31;

/// A reason phrase as sent; of one longer than 31 bytes only the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phrase {
    len: u8,
    bytes: [u8; LIMIT],
}

impl Phrase {
    /// The beginning of `bytes`.
    pub fn of(bytes: &[u8]) -> Phrase {
        let mut phrase = Phrase::default();
        for (to, from) in phrase.bytes.iter_mut().zip(bytes) {
            *to = *from;
            phrase.len += 1;
        }
        phrase
    }

    /// As text, as lossy as that of a request's head; `None` when there is none.
    pub fn text(&self) -> Option<CompactString> {
        let said = self.bytes.get(..self.len.into()).unwrap_or_default();
        (!said.is_empty()).then(|| text(said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_kept() {
        let kept = |text: &str| Phrase::of(text.as_bytes()).text();
        assert_eq!((kept(""), kept("Not Found").as_deref()), (None, Some("Not Found")));
        let longest = "Network Authentication Required";
        assert_eq!(kept(longest).as_deref(), Some(longest));
        assert_eq!(kept(&format!("{longest}, and more")).as_deref(), Some(longest));
        assert_eq!(kept("a\u{1}b").as_deref(), Some("a\u{fffd}b"));
    }
}
