//! One connection: its messages paired to exchanges.
//!
//! Responses answer requests in order. Where records were lost, the order is only relied on as far as it is certain: a
//! client that was never seen to pipeline waits for its response before it asks again; one that does is given up after a
//! loss that could shift the pairs. A pair made after writes were lost is told only when the next read shows that no
//! request was lost with them. What remains: a client that pipelines for the first time, in reads of their own, just when
//! the read before them is lost.
mod opening;

use super::Ends;
use super::Exchange;
use super::Findings;
use super::Outcome;
use super::turn::Counted;
use super::turn::Newest;
use super::verdict::Verdict;
use super::waiting::Began;
use super::waiting::Waiting;
use super::waiting::bytes;
use super::waiting::grown;
use super::waiting::reason;
use super::waiting::texts;
use super::waiting::tidy;
use crate::clock::KernelTime;
use crate::protocol::Piece;
use crate::protocol::http1::Asked;
use crate::protocol::http1::Event;
use crate::protocol::http1::Fault;
use crate::protocol::http1::Parser;
use crate::protocol::http1::Request;
use crate::protocol::http1::RequestHead;
use crate::protocol::http1::Response;
use crate::protocol::http1::ResponseHead;
use crate::protocol::http2::PREFACE;
use crate::stats::Drops;
use crate::stats::Reason;
use crate::stream::Chunk;
use crate::stream::Stream;
use observer_ebpf::record::Moved;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Requests of one connection that may wait for their response.
const PIPELINE: usize = 128;
/// What of the preface of HTTP/2 is a line of HTTP/1.
const PREFACE_LINE: usize = "PRI * HTTP/2.0\r\n".len();

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: Ends,
    /// Its bytes are those of a TLS session.
    pub(super) decrypted: bool,
    /// Whom a proxy in front named as its client.
    pub(super) client: Option<SocketAddr>,
    /// The worker serves here. False until that is known.
    inbound: bool,
    pub(super) received: Stream,
    pub(super) sent: Stream,
    requests: Parser<Request>,
    responses: Parser<Response>,
    /// First byte of the request whose head is being read.
    began: Began,
    /// Number of the request whose body is being read.
    reading: Option<u64>,
    /// Requests read so far.
    read: u64,
    waiting: VecDeque<Waiting>,
    /// When it was accepted, until a request was read.
    pub(super) accepted: Option<KernelTime>,
    /// The response being written answers the first of `waiting`, not nobody.
    answering: bool,
    /// The server said that it closes the connection after this response.
    last: bool,
    /// A write was seen since the last request head.
    answered: bool,
    /// The client was seen to ask again before it had an answer, and no loss explains it.
    pipelined: bool,
    last_write: KernelTime,
    /// Writes were lost, and no response was recognised since.
    shaken: bool,
    /// Ended, and told if no read turns out to be lost.
    doubtful: Vec<Exchange>,
    /// Reads and writes without anything recognisable, before the direction is known.
    unknown: u32,
    /// What was said of those that wait.
    counted: Counted,
    /// Bytes that it may hold of what is not over, and those that it held after the last read or write.
    pub(super) room: usize,
    pub(super) held: usize,
}

impl Connection {
    /// One that was accepted then, or was there before.
    pub(super) fn new(ends: Ends, accepted: Option<KernelTime>) -> Connection {
        let is_new = accepted.is_some();
        let stream = if is_new { Stream::from_start() } else { Stream::from_middle() };
        Connection {
            ends,
            decrypted: false,
            client: None,
            inbound: is_new,
            accepted,
            received: stream,
            sent: stream,
            requests: if is_new { Parser::from_start() } else { Parser::from_middle() },
            responses: if is_new { Parser::from_start() } else { Parser::from_middle() },
            began: Began::default(),
            reading: None,
            read: 0,
            waiting: VecDeque::new(),
            answering: false,
            last: false,
            answered: true,
            pipelined: false,
            last_write: KernelTime::default(),
            shaken: false,
            doubtful: Vec::new(),
            unknown: 0,
            counted: Counted::default(),
            room: 0,
            held: 0,
        }
    }

    /// As new, for another connection.
    pub(super) fn begin(&mut self, ends: Ends, accepted: Option<KernelTime>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        *self = Connection { waiting, ..Connection::new(ends, accepted) };
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
        let waited = self.began.ready.map(|ready| self.began.at.since(ready));
        let newest = Newest { pid: self.began.pid, number: self.read, waited };
        findings.turns.extend(self.counted.turn(at, newest, waiting));
    }

    /// Takes the ends when they were not known.
    pub(super) fn learn_ends(&mut self, ends: Ends) {
        if self.ends == Ends::Unknown {
            self.ends = ends;
        }
    }

    pub(super) fn received(&mut self, moved: &Moved, bytes: &[u8], findings: &mut Findings) -> Verdict {
        let Some(chunk) = self.received.place(moved, bytes) else {
            findings.drops.count(Reason::Gap);
            return Verdict::Follow;
        };
        self.judge(chunk.lost == 0, findings);
        let mut verdict = self.read(Piece::Hole(chunk.lost), &chunk, findings);
        self.requests.begin_op();
        for piece in [Piece::Bytes(chunk.bytes), Piece::Hole(chunk.hole)] {
            if verdict == Verdict::Follow {
                verdict = self.read(piece, &chunk, findings);
            }
        }
        self.fit(&mut findings.drops);
        match self.inbound {
            true => self.or_drained(verdict),
            false => self.unknown_read(chunk.bytes, &mut findings.drops),
        }
    }

    pub(super) fn sent(&mut self, moved: &Moved, bytes: &[u8], findings: &mut Findings) -> Verdict {
        let Some(chunk) = self.sent.place(moved, bytes) else {
            findings.drops.count(Reason::Gap);
            return Verdict::Follow;
        };
        if !self.inbound {
            return self.unknown_write(chunk.bytes);
        }
        if moved.size == 0 {
            return Verdict::Follow;
        }
        if let Some(preface) = self.greets(chunk.bytes) {
            return Verdict::Http2 { rest: chunk.bytes.len() as u64, preface };
        }
        self.answered = true;
        self.shaken |= chunk.lost > 0;
        self.pipelined |= chunk.lost == 0 && self.waiting.len() > 1;
        // A response that ends in what was lost ended at an unknown time after the last write that was seen.
        let mut verdict = self.write(Piece::Hole(chunk.lost), self.last_write, findings);
        self.responses.begin_op();
        for piece in [Piece::Bytes(chunk.bytes), Piece::Hole(chunk.hole)] {
            match &mut verdict {
                Verdict::Follow => verdict = self.write(piece, chunk.at, findings),
                Verdict::WebSocket(sent) => *sent += piece.len(),
                Verdict::GiveUp | Verdict::Encrypted | Verdict::Http2 { .. } => {}
            }
        }
        self.last_write = chunk.at;
        self.or_drained(verdict)
    }

    pub(super) fn closed(&mut self, at: KernelTime, findings: &mut Findings) {
        self.judge(false, findings);
        while let Some(waiting) = self.waiting.pop_front() {
            if self.last && waiting.exchange.status.is_none() {
                // The server had said that it would not answer this one.
                findings.drops.count(Reason::Cut);
            } else {
                self.end(waiting, at, findings);
            }
        }
    }

    /// Counts what can no longer be paired.
    pub(super) fn given_up(&mut self, findings: &mut Findings) {
        self.judge(false, findings);
        let untold = self.waiting.iter().filter(|waiting| !waiting.told).count();
        findings.drops.add(Reason::Gap, untold as u64);
    }

    pub(super) fn exited(&mut self, pid: u32, at: KernelTime, findings: &mut Findings) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for open in waiting.iter_mut().filter(|open| open.exchange.pid == pid && !open.told) {
            // It stays, so that a response by another process still finds its request.
            let ended = Waiting { exchange: open.exchange.clone(), ..*open };
            self.end(ended, at, findings);
            open.told = true;
        }
        self.waiting = waiting;
    }

    /// Tells what was in doubt, or gives it up.
    fn judge(&mut self, good: bool, findings: &mut Findings) {
        if good {
            findings.exchanges.append(&mut self.doubtful);
        }
        findings.drops.add(Reason::Gap, self.doubtful.len() as u64);
        self.doubtful.clear();
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.doubtful) {
            waiting.doubtful = false;
            if !good && !waiting.told {
                waiting.told = true;
                findings.drops.count(Reason::Gap);
            }
        }
    }

    /// Ends an exchange whose connection or process ended.
    fn end(&mut self, waiting: Waiting, at: KernelTime, findings: &mut Findings) {
        if waiting.exchange.status.is_some() && self.responses.is_open_ended() {
            self.finish(waiting, self.last_write, Outcome::Complete, findings);
        } else {
            self.finish(waiting, at, Outcome::Cut, findings);
        }
    }

    fn read(&mut self, mut piece: Piece<'_>, chunk: &Chunk<'_>, findings: &mut Findings) -> Verdict {
        loop {
            let was_lost = self.requests.is_lost();
            let before = piece.len();
            let event = self.requests.step(&mut piece, ());
            let taken = before - piece.len();
            match self.reading {
                _ if event == Some(Event::Began) => {} // what came before belongs to nobody
                Some(number) => {
                    if let Some(last) = self.waiting.back_mut().filter(|last| last.number == number) {
                        last.exchange.request_bytes += taken;
                    }
                }
                None => self.began.bytes += taken,
            }
            match event {
                None => return Verdict::Follow,
                Some(Event::Proxied(client)) => self.client = client,
                Some(Event::Began) => {
                    let Chunk { at, ready, pid, tid, .. } = *chunk;
                    self.began = Began { pid, tid, at, ready, bytes: 0 };
                    let with_earlier = piece.len() < chunk.bytes.len() as u64;
                    self.pipelined |= with_earlier && !self.waiting.is_empty();
                    if self.settle(was_lost, findings) == Verdict::GiveUp {
                        return Verdict::GiveUp;
                    }
                }
                Some(Event::Head(head)) => self.asked(head, &mut findings.drops),
                Some(Event::Ended) => self.reading = None,
                Some(Event::Failed(Fault::Tls)) if !self.decrypted => return Verdict::Encrypted,
                Some(Event::Failed(Fault::Http2)) => {
                    let preface = PREFACE.get(PREFACE_LINE..).unwrap_or_default();
                    return Verdict::Http2 { rest: piece.len(), preface };
                }
                Some(Event::Failed(fault)) => {
                    // A request whose head was read is told, wherever its body ends.
                    if self.reading.take().is_none() {
                        findings.drops.count(reason(fault));
                    }
                }
            }
        }
    }

    /// A request begins: what waits and can only be ended by that has ended.
    fn settle(&mut self, was_lost: bool, findings: &mut Findings) -> Verdict {
        self.inbound = true;
        if was_lost && self.pipelined && !self.waiting.is_empty() {
            return Verdict::GiveUp;
        }
        let over = if was_lost {
            !self.waiting.is_empty()
        } else {
            let known = self.waiting.front().is_some_and(|front| front.exchange.status.is_some());
            !self.pipelined && self.responses.is_open_ended() && (known || self.answered)
        };
        if over {
            self.let_go(self.waiting.len(), findings);
            self.responses.lose();
        }
        self.shaken &= self.pipelined; // what was lost was lost before this request
        Verdict::Follow
    }

    /// Lets go of the first `over` of those that wait: their responses are over.
    fn let_go(&mut self, over: usize, findings: &mut Findings) {
        self.answering = false;
        let rest = self.waiting.split_off(over.min(self.waiting.len()));
        for waiting in std::mem::replace(&mut self.waiting, rest) {
            if waiting.exchange.status.is_some() {
                self.finish(waiting, self.last_write, Outcome::Complete, findings);
            } else {
                findings.drops.count(Reason::Gap);
            }
        }
    }

    /// A request's head was read.
    fn asked(&mut self, head: RequestHead, drops: &mut Drops) {
        let texts = texts(&head);
        let is_over = bytes(&self.waiting, grown(&self.waiting)) + texts > self.room;
        if self.waiting.len() >= PIPELINE || is_over && !self.waiting.is_empty() {
            drops.count(Reason::PipelineTooDeep);
            return self.requests.stop();
        }
        self.answered = false;
        self.read += 1;
        self.reading = Some(self.read);
        if self.waiting.is_empty() {
            self.waiting.reserve_exact(1); // as nearly all do, it waits alone; four would take more than the rest of this
        }
        self.waiting.push_back(Waiting::new(self.read, self.began, head, texts, self.ends.clone()));
        let Some(waiting) = self.waiting.back_mut() else { return };
        (waiting.exchange.encrypted, waiting.exchange.client) = (self.decrypted, self.client);
        waiting.exchange.accepted = self.accepted.take();
        if is_over {
            drops.count(Reason::HeadTooLarge);
            waiting.forget();
        }
    }

    /// Bytes that it holds of what is not over.
    pub(super) fn holds(&self) -> usize {
        self.requests.holds() + bytes(&self.waiting, self.waiting.capacity())
    }

    /// Gives up a head that is not whole when there is no room for it.
    fn fit(&mut self, drops: &mut Drops) {
        if self.requests.holds() > 0 && self.holds() > self.room {
            self.requests.lose();
            drops.count(Reason::HeadTooLarge);
        }
    }

    fn write(&mut self, mut piece: Piece<'_>, at: KernelTime, findings: &mut Findings) -> Verdict {
        loop {
            let was_lost = self.responses.is_lost();
            let before = piece.len();
            let asked = self.waiting.front().map(|front| Asked::by(&front.exchange.method));
            let event = self.responses.step(&mut piece, asked.unwrap_or_default());
            let taken = before - piece.len();
            if let Some(exchange) = self.answer() {
                exchange.response_bytes += taken;
            }
            match event {
                None => return Verdict::Follow,
                Some(Event::Proxied(_)) => {} // no server says that
                Some(Event::Began) => {
                    if was_lost && self.resume(findings) == Verdict::GiveUp {
                        return Verdict::GiveUp;
                    }
                    self.answering = !self.waiting.is_empty();
                    if let Some(exchange) = self.answer() {
                        exchange.first_byte = Some(at);
                    }
                }
                Some(Event::Head(head)) => self.head(head, &mut findings.drops),
                Some(Event::Ended) => self.ended(at, findings),
                Some(Event::Failed(Fault::WebSocket)) => {
                    self.ended(at, findings);
                    return Verdict::WebSocket(piece.len());
                }
                Some(Event::Failed(Fault::Http2)) => {
                    return Verdict::Http2 { rest: piece.len(), preface: PREFACE };
                }
                Some(Event::Failed(Fault::Upgraded)) => {
                    findings.drops.count(Reason::Upgraded);
                    self.ended(at, findings);
                    return Verdict::GiveUp;
                }
                Some(Event::Failed(fault)) => {
                    // A response whose head was seen is told; it ends with its last write.
                    if self.answer().is_none_or(|exchange| exchange.status.is_none()) {
                        findings.drops.count(reason(fault));
                        if let Some(exchange) = self.answer() {
                            exchange.first_byte = None;
                            self.answering = false;
                        }
                    }
                }
            }
        }
    }

    /// The exchange whose response is being written.
    fn answer(&mut self) -> Option<&mut Exchange> {
        self.waiting.front_mut().filter(|_| self.answering).map(|front| &mut front.exchange)
    }

    /// A response begins after responses could not be followed.
    fn resume(&mut self, findings: &mut Findings) -> Verdict {
        if self.waiting.front().is_some_and(|front| front.exchange.status.is_some()) {
            self.let_go(1, findings);
        }
        if self.pipelined && self.waiting.len() > 1 {
            return Verdict::GiveUp;
        }
        let shaken = std::mem::take(&mut self.shaken);
        // A client that waits has asked no more than once since; unless that is not known either.
        let asked = usize::from(!(shaken && self.requests.is_lost()));
        self.let_go(self.waiting.len().saturating_sub(asked), findings);
        for waiting in &mut self.waiting {
            waiting.doubtful = shaken;
        }
        Verdict::Follow
    }

    /// A response's head was written.
    fn head(&mut self, head: ResponseHead, drops: &mut Drops) {
        let interim = (100..200).contains(&head.status) && head.status != 101;
        if !interim {
            self.last = head.last;
        }
        let Some(exchange) = self.answer() else {
            drops.count(Reason::ResponseWithoutRequest);
            return;
        };
        if interim {
            exchange.first_byte = None;
            return;
        }
        exchange.status = Some(head.status);
        exchange.phrase = head.phrase;
        if exchange.method == "CONNECT" && !(200..300).contains(&head.status) {
            self.requests = Parser::from_middle(); // no tunnel after all
        }
    }

    /// Tells an exchange, or keeps it until that is safe.
    fn finish(&mut self, waiting: Waiting, end: KernelTime, outcome: Outcome, findings: &mut Findings) {
        let exchange = Exchange { end, outcome, ..waiting.exchange };
        match waiting {
            Waiting { told: true, .. } => {}
            Waiting { doubtful: true, .. } => self.doubtful.push(exchange),
            Waiting { .. } => findings.exchanges.push(exchange),
        }
    }

    /// A response's last byte was written.
    fn ended(&mut self, at: KernelTime, findings: &mut Findings) {
        if !std::mem::take(&mut self.answering) {
            return;
        }
        if let Some(front) = self.waiting.pop_front() {
            self.finish(front, at, Outcome::Complete, findings);
        }
        tidy(&mut self.waiting);
        if self.last {
            // The server reads no further; what it has read already it does not serve.
            findings.drops.add(Reason::Cut, self.waiting.len() as u64);
            self.waiting.clear();
            self.requests.stop();
        }
    }
}
