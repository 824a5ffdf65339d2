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
}

impl Waiting {
    /// A request whose head was read.
    pub(super) fn new(number: u64, began: Began, head: RequestHead, ends: Ends) -> Waiting {
        let Began { pid, tid, at, ready, bytes } = began;
        Waiting {
            number,
            told: false,
            doubtful: false,
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

    /// Bytes of its texts that do not lie in itself.
    pub(super) fn holds(&self) -> usize {
        let Exchange { method, target, host, sw8, correlation, traceparent, .. } = &self.exchange;
        let named = [host, sw8, correlation, traceparent].map(Option::as_ref);
        let texts = [Some(method), Some(target)].into_iter().chain(named);
        let on_heap = texts.flatten().filter(|text| text.is_heap_allocated());
        on_heap.map(CompactString::capacity).sum()
    }

    /// It is paired and no more: there is no room for what it says.
    pub(super) fn forget(&mut self) {
        let Exchange { target, host, sw8, correlation, traceparent, .. } = &mut self.exchange;
        self.told = true;
        *target = CompactString::default();
        (*host, *sw8, *correlation, *traceparent) = (None, None, None, None);
    }
}

/// Bytes that a queue takes with room for so many.
pub(super) fn bytes(queue: &VecDeque<Waiting>, room: usize) -> usize {
    room * size_of::<Waiting>() + queue.iter().map(Waiting::holds).sum::<usize>()
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
