//! What is known of a request before its response is over.
use super::Ends;
use super::Exchange;
use super::Outcome;
use super::Phrase;
use crate::clock::KernelTime;
use crate::protocol::http1::Fault;
use crate::protocol::http1::RequestHead;
use crate::stats::Reason;
use compact_str::CompactString;
use std::collections::VecDeque;

/// A queue that had no more in it keeps its room.
const FEW: usize = 4;

/// A request that waits for the end of its response.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its number on its connection.
    pub(super) number: u64,
    pub(super) exchange: Exchange,
    /// It was told already, because its process ended, or is not to be told.
    pub(super) told: bool,
    /// Its response may be that of a request whose read was lost.
    pub(super) doubtful: bool,
    /// Bytes of its texts that are not in itself.
    pub(super) texts: usize,
}

impl Waiting {
    /// A request whose head was read; `texts` as [`texts`] has it.
    pub(super) fn new(number: u64, began: Began, head: RequestHead, texts: usize, ends: Ends) -> Waiting {
        let Began { pid, tid, at, ready, bytes } = began;
        Waiting {
            number,
            told: false,
            doubtful: false,
            texts,
            exchange: Exchange {
                pid,
                tid,
                ends,
                encrypted: false,
                client: None,
                method: head.method,
                target: head.target,
                host: head.host,
                sw8: head.sw8,
                correlation: head.correlation,
                traceparent: head.traceparent,
                status: None,
                phrase: Phrase::default(),
                ready,
                accepted: None,
                start: at,
                first_byte: None,
                end: at,
                request_bytes: bytes,
                response_bytes: 0,
                outcome: Outcome::Cut,
            },
        }
    }

    /// It is paired and no more: there is no room for what it says.
    pub(super) fn forget(&mut self) {
        let Exchange { target, host, sw8, correlation, traceparent, .. } = &mut self.exchange;
        (self.told, self.texts) = (true, 0);
        *target = CompactString::default();
        (*host, *sw8, *correlation, *traceparent) = (None, None, None, None);
    }
}

/// Bytes of a head's texts beyond what lies in their structures anyway.
pub(super) fn texts(head: &RequestHead) -> usize {
    let RequestHead { method: _, target, host, sw8, correlation, traceparent } = head; // a method is short
    let long = |text: &CompactString| text.len().saturating_sub(size_of::<CompactString>());
    let others = [host, sw8, correlation, traceparent].into_iter().flatten();
    long(target) + others.map(long).sum::<usize>()
}

/// Bytes that a queue takes with room for so many.
pub(super) fn bytes(queue: &VecDeque<Waiting>, room: usize) -> usize {
    let texts = match queue.len() {
        0 => 0,
        1 => queue.front().map_or(0, |waiting| waiting.texts), // as nearly always
        _ => queue.iter().map(|waiting| waiting.texts).sum(),
    };
    room * size_of::<Waiting>() + texts
}

/// Gives back what a queue took for more than a few, once it is empty.
pub(super) fn tidy(queue: &mut VecDeque<Waiting>) {
    if queue.is_empty() && queue.capacity() > FEW {
        *queue = VecDeque::new();
    }
}

/// For how many a queue has room once another one waits. Where there is none, it is made for one.
pub(super) fn grown(queue: &VecDeque<Waiting>) -> usize {
    match (queue.len(), queue.capacity()) {
        (waiting, room) if waiting < room => room,
        (0, _) => 1,
        (_, room) => (2 * room).max(4),
    }
}

/// The read of a request's first byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Began {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) at: KernelTime,
    pub(super) ready: Option<KernelTime>,
    /// Bytes of the request so far.
    pub(super) bytes: u64,
}

/// Under which reason a message is lost that cannot be followed.
pub(super) fn reason(fault: Fault) -> Reason {
    match fault {
        Fault::Gap => Reason::Gap,
        Fault::HeadTooLarge => Reason::HeadTooLarge,
        Fault::NotHttp => Reason::NotHttp,
        Fault::WebSocket | Fault::Upgraded => Reason::Upgraded,
        Fault::Tls => Reason::Tls,
        Fault::Http2 => Reason::Http2,
        Fault::Uwsgi => Reason::Uwsgi,
    }
}
