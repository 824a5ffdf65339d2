//! A connection that speaks HTTP/2: its streams paired to exchanges.
//!
//! A stream has a number, so nothing shifts the pairs. But once bytes are missing that are not a body's, no headers can be
//! read any more: the connection is given up.
use super::Ends;
use super::Exchange;
use super::Findings;
use super::Outcome;
use super::Phrase;
use super::pair::Connection;
use super::turn::Counted;
use super::turn::Newest;
use super::verdict::Verdict;
use super::waiting::Began;
use super::waiting::Waiting;
use super::waiting::bytes;
use super::waiting::grown;
use super::waiting::texts;
use super::waiting::tidy;
use crate::clock::KernelTime;
use crate::protocol::Piece;
use crate::protocol::http1::RequestHead;
use crate::protocol::http2::Event;
use crate::protocol::http2::Fault;
use crate::protocol::http2::Fields;
use crate::protocol::http2::Parser;
use crate::stats::Drops;
use crate::stats::Reason;
use crate::stream::Chunk;
use crate::stream::Stream;
use observer_ebpf::record::Moved;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Streams of one connection that may be open: gunicorn allows a hundred unless told otherwise.
const STREAMS: usize = 1_024;
/// Longest method, in bytes.
const METHOD_LIMIT: usize = 32;

#[derive(Debug)]
pub(super) struct Http2 {
    ends: Ends,
    /// What counts are the bytes of its TLS session.
    pub(super) decrypted: bool,
    client: Option<SocketAddr>,
    accepted: Option<KernelTime>,
    received: Stream,
    sent: Stream,
    requests: Parser,
    responses: Parser,
    /// The read of the first byte of what is being read, and the time of the write of what is being written.
    began: Began,
    writing: KernelTime,
    /// The last stream that the client began.
    last: u32,
    /// Requests so far, and the read of the last one.
    read: u64,
    newest: Began,
    /// By their streams.
    waiting: VecDeque<Waiting>,
    counted: Counted,
    /// Bytes that it may hold of what is not over, and those that it held after the last read or write.
    pub(super) room: usize,
    pub(super) held: usize,
}

impl Http2 {
    /// What a connection becomes whose client has so much of its preface still to say. A request that has asked for it is its
    /// first stream (RFC 7540, 3.2).
    pub(super) fn after(connection: &mut Connection, preface: &'static [u8]) -> Http2 {
        let mut waiting = VecDeque::new();
        if let Some(mut first) = connection.upgraded() {
            first.number = 1;
            let Exchange { status, phrase, first_byte, .. } = &mut first.exchange;
            (*status, *phrase, *first_byte) = (None, Phrase::default(), None);
            waiting.push_back(first);
        }
        let (counted, newest, read) = connection.turns();
        let Connection { received, sent, decrypted, client, accepted, .. } = *connection;
        Http2 {
            ends: connection.ends.clone(),
            decrypted,
            client,
            accepted,
            received,
            sent,
            requests: Parser::client(preface),
            responses: Parser::server(),
            began: Began::default(),
            writing: KernelTime::default(),
            last: u32::from(!waiting.is_empty()),
            read,
            newest,
            waiting,
            counted,
            room: 0,
            held: 0,
        }
    }

    /// Takes the ends when they were not known.
    pub(super) fn learn_ends(&mut self, ends: Ends) {
        if self.ends == Ends::Unknown {
            self.ends = ends;
        }
    }

    /// Says how many requests wait, if that changed or another one was read.
    pub(super) fn turn(&mut self, at: KernelTime, findings: &mut Findings) {
        self.count(at, self.waiting.iter().filter(|waiting| !waiting.told).count(), findings);
    }

    /// Nothing of this connection is followed any more.
    pub(super) fn idle(&mut self, at: KernelTime, findings: &mut Findings) {
        self.count(at, 0, findings);
    }

    fn count(&mut self, at: KernelTime, waiting: usize, findings: &mut Findings) {
        let Began { pid, at: read, ready, .. } = self.newest;
        let newest = Newest { pid, number: self.read, waited: ready.map(|ready| read.since(ready)) };
        findings.turns.extend(self.counted.turn(at, newest, waiting));
    }

    /// The last `rest` of the bytes that were copied of a read or write are the first of HTTP/2.
    pub(super) fn begin(
        &mut self,
        moved: &Moved,
        bytes: &[u8],
        rest: u64,
        receives: bool,
        findings: &mut Findings,
    ) -> Verdict {
        let Some(chunk) = Stream::from_middle().place(moved, bytes) else { return Verdict::GiveUp };
        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
        let from = chunk.bytes.len().saturating_sub(rest);
        let bytes = chunk.bytes.get(from..).unwrap_or_default();
        self.follow(&Chunk { bytes, ..chunk }, receives, findings)
    }

    /// A process read or wrote.
    pub(super) fn moved(
        &mut self,
        moved: &Moved,
        bytes: &[u8],
        receives: bool,
        findings: &mut Findings,
    ) -> Verdict {
        let stream = if receives { &mut self.received } else { &mut self.sent };
        match stream.place(moved, bytes) {
            Some(chunk) => self.follow(&chunk, receives, findings),
            None => {
                findings.drops.count(Reason::Gap);
                Verdict::Follow
            }
        }
    }

    /// A read or write is placed, or the rest of one.
    fn follow(&mut self, chunk: &Chunk<'_>, receives: bool, findings: &mut Findings) -> Verdict {
        for piece in [Piece::Hole(chunk.lost), Piece::Bytes(chunk.bytes), Piece::Hole(chunk.hole)] {
            let fault = match receives {
                true => self.read(piece, chunk, findings),
                false => self.write(piece, chunk, findings),
            };
            if let Err(fault) = fault {
                self.give_up(fault, &mut findings.drops);
                return Verdict::GiveUp;
            }
        }
        if self.holds() > self.room {
            self.give_up(Fault::HeadTooLarge, &mut findings.drops);
            return Verdict::GiveUp;
        }
        Verdict::Follow
    }

    /// Counts what can no longer be paired, at least one: more may come that nobody sees.
    fn give_up(&self, fault: Fault, drops: &mut Drops) {
        let untold = self.waiting.iter().filter(|waiting| !waiting.told).count() as u64;
        let (reason, open) = match fault {
            Fault::Gap => (Reason::Gap, untold.saturating_sub(1)),
            Fault::HeadTooLarge => (Reason::HeadTooLarge, untold),
            Fault::Malformed => (Reason::Http2, untold),
        };
        drops.count(reason);
        drops.add(Reason::Gap, open);
    }

    pub(super) fn closed(&mut self, at: KernelTime, findings: &mut Findings) {
        for waiting in std::mem::take(&mut self.waiting) {
            finish(waiting, at, Outcome::Cut, findings);
        }
    }

    /// A process ended: so do the exchanges that it had open.
    pub(super) fn exited(&mut self, pid: u32, at: KernelTime, findings: &mut Findings) {
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.exchange.pid == pid {
                true => finish(waiting, at, Outcome::Cut, findings),
                false => self.waiting.push_back(waiting),
            }
        }
    }

    /// Bytes that it holds of what is not over.
    pub(super) fn holds(&self) -> usize {
        self.requests.holds() + self.responses.holds() + bytes(&self.waiting, self.waiting.capacity())
    }

    fn read(
        &mut self,
        mut piece: Piece<'_>,
        chunk: &Chunk<'_>,
        findings: &mut Findings,
    ) -> Result<(), Fault> {
        loop {
            let event = self.requests.step(&mut piece);
            if self.requests.has_begun() {
                let Chunk { at, ready, pid, tid, .. } = *chunk;
                self.began = Began { pid, tid, at, ready, bytes: 0 };
            }
            match event {
                None => return Ok(()),
                Some(Event::Head { stream, bytes, fields, .. }) if stream > self.last => {
                    self.last = stream;
                    self.began.bytes = bytes;
                    self.asked(stream, *fields, &mut findings.drops);
                }
                Some(Event::Head { stream, bytes, .. } | Event::Data { stream, bytes, .. }) => {
                    if let Some((_, waiting)) = self.open(stream) {
                        waiting.exchange.request_bytes += bytes;
                    }
                }
                Some(Event::Reset(stream)) => self.end(stream, chunk.at, Outcome::Cut, findings),
                Some(Event::Away(_)) => {} // streams of the server's own
                Some(Event::Failed(fault)) => return Err(fault),
            }
        }
    }

    fn write(
        &mut self,
        mut piece: Piece<'_>,
        chunk: &Chunk<'_>,
        findings: &mut Findings,
    ) -> Result<(), Fault> {
        loop {
            let event = self.responses.step(&mut piece);
            if self.responses.has_begun() {
                self.writing = chunk.at;
            }
            let (stream, ends) = match event {
                None => return Ok(()),
                Some(Event::Head { stream, fields, bytes, ends }) => {
                    let at = self.writing;
                    if let Some((_, waiting)) = self.open(stream) {
                        let exchange = &mut waiting.exchange;
                        exchange.response_bytes += bytes;
                        if let Some(status) = fields.status.filter(|status| *status >= 200) {
                            (exchange.status, exchange.first_byte) = (Some(status), Some(at));
                        }
                    } else if stream > self.last {
                        findings.drops.count(Reason::ResponseWithoutRequest);
                    }
                    (stream, ends)
                }
                Some(Event::Data { stream, bytes, ends }) => {
                    if let Some((_, waiting)) = self.open(stream) {
                        waiting.exchange.response_bytes += bytes;
                    }
                    (stream, ends)
                }
                Some(Event::Reset(stream)) => {
                    self.end(stream, chunk.at, Outcome::Cut, findings);
                    continue;
                }
                Some(Event::Away(last)) => {
                    self.unserved(last, &mut findings.drops);
                    continue;
                }
                Some(Event::Failed(fault)) => return Err(fault),
            };
            if ends {
                self.end(stream, chunk.at, Outcome::Complete, findings);
            }
        }
    }

    /// A stream that waits, and its place.
    fn open(&mut self, stream: u32) -> Option<(usize, &mut Waiting)> {
        let place = self.waiting.binary_search_by_key(&u64::from(stream), |waiting| waiting.number).ok()?;
        Some((place, self.waiting.get_mut(place)?))
    }

    /// A stream is over.
    fn end(&mut self, stream: u32, at: KernelTime, outcome: Outcome, findings: &mut Findings) {
        let Some((place, _)) = self.open(stream) else { return };
        if let Some(waiting) = self.waiting.remove(place) {
            finish(waiting, at, outcome, findings);
        }
        tidy(&mut self.waiting);
    }

    /// The server answers no stream beyond `last`.
    fn unserved(&mut self, last: u32, drops: &mut Drops) {
        while self.waiting.back().is_some_and(|waiting| waiting.number > last.into()) {
            self.waiting.pop_back();
            drops.count(Reason::Cut);
        }
    }

    /// A request's headers were read.
    fn asked(&mut self, stream: u32, fields: Fields, drops: &mut Drops) {
        let Fields { method, path, authority, host, sw8, correlation, traceparent, .. } = fields;
        // CONNECT has no path (RFC 9113, 8.5).
        let target = path.or_else(|| authority.clone());
        let method = method.filter(|method| method.len() <= METHOD_LIMIT);
        let (Some(method), Some(target)) = (method, target) else { return drops.count(Reason::NotHttp) };
        let host = authority.or(host);
        let head = RequestHead { method, target, host, sw8, correlation, traceparent };
        let texts = texts(&head);
        if self.waiting.len() >= STREAMS || bytes(&self.waiting, grown(&self.waiting)) + texts > self.room {
            return drops.count(Reason::PipelineTooDeep);
        }
        self.read += 1;
        self.newest = self.began;
        let mut waiting = Waiting::new(stream.into(), self.began, head, texts, self.ends.clone());
        let exchange = &mut waiting.exchange;
        (exchange.encrypted, exchange.client) = (self.decrypted, self.client);
        exchange.accepted = self.accepted.take();
        self.waiting.push_back(waiting);
    }
}

/// Tells an exchange, unless that was done.
fn finish(waiting: Waiting, end: KernelTime, outcome: Outcome, findings: &mut Findings) {
    if !waiting.told {
        findings.exchanges.push(Exchange { end, outcome, ..waiting.exchange });
    }
}
