//! How a connection turns into another one: into HTTP/2, or into one that is not ours.
use super::Connection;
use crate::exchange::turn::Counted;
use crate::exchange::verdict::Verdict;
use crate::exchange::waiting::Began;
use crate::exchange::waiting::Waiting;
use crate::protocol::http1::is_request;
use crate::protocol::http2;
use crate::protocol::http2::PREFACE;
use crate::stats::Drops;
use crate::stats::Reason;

/// Reads and writes after which a connection that was not accepted is taken for somebody else's protocol. Large
/// enough for a late start in the middle of an upload.
const UNKNOWN_LIMIT: u32 = 1_024;

impl Connection {
    /// What a read says of a connection that was not accepted and on which nothing is recognised.
    pub(super) fn unknown_read(&mut self, bytes: &[u8], drops: &mut Drops) -> Verdict {
        if bytes.starts_with(PREFACE) {
            return Verdict::Http2 { rest: bytes.len() as u64, preface: PREFACE };
        }
        if http2::is_request(bytes) {
            drops.count(Reason::Http2); // what its headers build upon was not seen
            return Verdict::GiveUp;
        }
        self.or_unknown()
    }

    /// What a write does: a request that is written makes it a connection of a client.
    pub(super) fn unknown_write(&mut self, bytes: &[u8]) -> Verdict {
        let asks = is_request(bytes) || http2::is_request(bytes);
        if asks { Verdict::GiveUp } else { self.or_unknown() }
    }

    /// Gives up a connection that was not accepted and on which nothing is recognised: a database's, say.
    fn or_unknown(&mut self) -> Verdict {
        self.unknown += 1;
        if self.unknown > UNKNOWN_LIMIT { Verdict::GiveUp } else { Verdict::Follow }
    }

    /// Nothing more can come of a connection whose requests have stopped once the last one is answered. One
    /// that its server is about to close is not worth the trouble of asking.
    pub(super) fn or_drained(&self, verdict: Verdict) -> Verdict {
        let drained = self.requests.is_stopped() && self.waiting.is_empty() && !self.last;
        if drained && verdict == Verdict::Follow { Verdict::GiveUp } else { verdict }
    }

    /// A server that knows what is spoken may speak first: so much is then to come of what its client says first.
    pub(super) fn greets(&self, bytes: &[u8]) -> Option<&'static [u8]> {
        if self.read > 0 || !http2::is_server(bytes) {
            return None;
        }
        PREFACE.strip_prefix(self.requests.head())
    }

    /// The request that asked for HTTP/2, if the server has agreed.
    pub(in crate::exchange) fn upgraded(&mut self) -> Option<Waiting> {
        let has_agreed = self.waiting.front().is_some_and(|front| front.exchange.status == Some(101));
        if has_agreed { self.waiting.pop_front() } else { None }
    }

    /// What was said of requests that wait, the read of the last one, and how many there were.
    pub(in crate::exchange) fn turns(&mut self) -> (Counted, Began, u64) {
        (std::mem::take(&mut self.counted), self.began, self.read)
    }
}
