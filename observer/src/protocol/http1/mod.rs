//! HTTP/1.x: incremental parsers for both sides of a connection.
//!
//! The same bytes give the same events however they are cut. Bytes that were not copied are skipped where
//! the length of what they belong to is known; elsewhere the parser says so, and goes on only at the start of
//! a later read or write that begins with a first line. It never looks for one in the middle of bytes.
mod body;
mod head;
mod phrase;
mod proxy;
#[cfg(test)]
mod tests;

pub use head::Asked;
pub use head::Request;
pub use head::RequestHead;
pub use head::Response;
pub use head::ResponseHead;
pub use head::is_request;
pub(super) use head::text;
pub use phrase::Phrase;

use std::net::SocketAddr;

use super::Piece;
use body::Body;
use body::Progress;
use head::Fields;
use head::Line;
use head::Side;
use head::Then;
use memchr::memchr;
use proxy::Header;
use proxy::SIGNATURE;

/// What a head takes as a rule, in bytes.
const USUAL_HEAD: usize = 1024;
/// Largest head, and largest trailers, in bytes.
pub const HEAD_LIMIT: usize = 64 * 1024;

/// What a parser met in its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<H> {
    /// A proxy in front said who its client is, if it knows.
    Proxied(Option<SocketAddr>),
    /// The next byte is a message's first.
    Began,
    /// A head is complete. No [`Event::Ended`] follows an interim response (1xx).
    Head(H),
    /// The message's last byte was taken.
    Ended,
    /// The message cannot be followed any further.
    Failed(Fault),
}

/// Why a message cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that matter were not copied, or framing is wrong. The parser is lost until it can go on.
    Gap,
    /// The head is larger than [`HEAD_LIMIT`]. Likewise.
    HeadTooLarge,
    /// The bytes are not HTTP/1, nor anything below. The parser has stopped.
    NotHttp,
    /// They are encrypted: TLS. Likewise.
    Tls,
    /// HTTP/2 from the first byte, or from here on. Likewise.
    Http2,
    /// uwsgi's protocol. Likewise.
    Uwsgi,
    /// The connection changes to a WebSocket. The parser has stopped.
    WebSocket,
    /// The connection changes to another protocol. Likewise.
    Upgraded,
}

/// Parser for one side of a connection, [`Request`] or [`Response`].
#[derive(Debug)]
pub struct Parser<S: Side> {
    state: State,
    /// The head so far.
    head: Vec<u8>,
    /// Where in `head` the present line begins.
    line: usize,
    /// Length of the first line, once it is complete.
    first_line: Option<usize>,
    /// No first line was seen on this connection.
    fresh: bool,
    /// Bytes of the PROXY protocol's signature that were seen.
    signature: usize,
    /// No byte of the present read or write was looked at.
    at_start: bool,
    side: std::marker::PhantomData<S>,
}

#[derive(Debug)]
enum State {
    /// Between messages.
    Idle,
    Head,
    /// In a binary header of the PROXY protocol.
    Proxied(Header),
    Body(Body),
    /// The message is over, and this is still to be said.
    Ended {
        tunnel: bool,
    },
    /// The head was told, and this is still to be said.
    Failing(Fault),
    /// Until a read or write begins with a first line.
    Lost,
    /// For ever.
    Stopped,
}

impl<S: Side> Parser<S> {
    /// A parser at the start of a connection.
    pub fn from_start() -> Parser<S> {
        Parser {
            state: State::Idle,
            head: Vec::new(),
            line: 0,
            first_line: None,
            fresh: true,
            signature: 0,
            at_start: false,
            side: std::marker::PhantomData,
        }
    }

    /// A parser somewhere in a connection.
    pub fn from_middle() -> Parser<S> {
        Parser { state: State::Lost, fresh: false, ..Parser::from_start() }
    }

    /// Says that the next byte is the first of a read or write.
    pub fn begin_op(&mut self) {
        self.at_start = true;
    }

    /// Makes the parser look for the start of a message, unless it has stopped.
    pub fn lose(&mut self) {
        if !self.is_stopped() {
            self.set_aside(State::Lost);
        }
    }

    /// Makes the parser swallow everything that comes.
    pub fn stop(&mut self) {
        self.set_aside(State::Stopped);
    }

    /// Whether it is looking for the start of a message.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Whether it has stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Whether nothing but the end of the connection can end the present message.
    pub fn is_open_ended(&self) -> bool {
        matches!(self.state, State::Lost | State::Body(Body::UntilClose))
    }

    /// What it keeps of a head that is not whole.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Bytes that it keeps of a head that is not whole.
    pub fn holds(&self) -> usize {
        self.head.capacity()
    }

    /// Takes bytes off the front of `piece` up to the next event; `None` when the piece is used up.
    /// Call it until then, with an empty piece too: an event may need no further byte.
    pub fn step(&mut self, piece: &mut Piece<'_>, context: S::Context) -> Option<Event<S::Head>> {
        loop {
            match &mut self.state {
                State::Idle => match *piece {
                    Piece::Hole(0) | Piece::Bytes([]) => return None,
                    Piece::Hole(_) => return Some(self.fail(Fault::Gap)),
                    // Its first bytes are blank lines, which may be there without it.
                    Piece::Bytes([byte, ..])
                        if self.fresh && S::PROXIED && SIGNATURE.get(self.signature) == Some(byte) =>
                    {
                        piece.skip(1);
                        self.signature += 1;
                        if self.signature == SIGNATURE.len() {
                            self.fresh = false;
                            self.state = State::Proxied(Header::default());
                        }
                    }
                    Piece::Bytes([b'\r' | b'\n', ..]) if S::BLANK_LINES => {
                        piece.skip(1);
                    }
                    Piece::Bytes([byte, ..]) if S::opens(*byte) => {
                        self.state = State::Head;
                        return Some(Event::Began);
                    }
                    Piece::Bytes([byte, ..]) => return Some(self.fail(S::garbage(*byte, self.fresh))),
                },
                State::Proxied(header) => match header.feed(piece) {
                    Some(true) => {
                        let client = header.client();
                        self.state = State::Idle;
                        return Some(Event::Proxied(client));
                    }
                    Some(false) => return None,
                    None => return Some(self.fail(Fault::NotHttp)),
                },
                State::Head => {
                    if let Some(event) =
                        self.take_whole(piece, context).or_else(|| self.take_line(piece, context))
                    {
                        return Some(event);
                    }
                    if piece.is_empty() {
                        return None;
                    }
                }
                State::Body(body) => match body.feed(piece) {
                    Progress::More => return None,
                    Progress::Done => self.state = State::Ended { tunnel: false },
                    Progress::Broken => return Some(self.fail(Fault::Gap)),
                },
                State::Ended { tunnel } => {
                    self.state = if *tunnel { State::Stopped } else { State::Idle };
                    return Some(Event::Ended);
                }
                State::Failing(fault) => {
                    let fault = *fault;
                    return Some(self.fail(fault));
                }
                State::Lost => {
                    let at_start = self.at_start && !piece.is_empty();
                    match piece {
                        Piece::Bytes(bytes) if at_start && S::resumes(bytes) => self.state = State::Idle,
                        Piece::Bytes(_) | Piece::Hole(_) => {
                            self.at_start &= !at_start;
                            piece.skip_all();
                            return None;
                        }
                    }
                }
                State::Stopped => {
                    piece.skip_all();
                    return None;
                }
            }
        }
    }

    /// Takes a head that is whole in `piece`, as nearly all are: nothing is copied of it. Everything else goes line by line.
    fn take_whole(&mut self, piece: &mut Piece<'_>, context: S::Context) -> Option<Event<S::Head>> {
        let Piece::Bytes(bytes) = *piece else { return None };
        if !self.head.is_empty() {
            return None;
        }
        let (line, rest) = bytes.split_at_checked(memchr(b'\n', bytes)? + 1)?;
        let Line::Good(first) = S::line(without_end(line), self.fresh) else { return None };
        let (fields, len) = Fields::at_front(rest).filter(|(_, len)| line.len() + len <= HEAD_LIMIT)?;
        self.fresh = false;
        piece.skip((line.len() + len) as u64);
        Some(self.tell(S::head(first, &fields, context)))
    }

    /// Adds up to the end of the present line to the head.
    fn take_line(&mut self, piece: &mut Piece<'_>, context: S::Context) -> Option<Event<S::Head>> {
        let Piece::Bytes(bytes) = *piece else {
            return (!piece.is_empty()).then(|| self.cut_head());
        };
        let room = HEAD_LIMIT.saturating_sub(self.head.len());
        let within = bytes.get(..room).unwrap_or(bytes);
        let end = memchr(b'\n', within);
        let taken = within.get(..end.map_or(within.len(), |at| at + 1)).unwrap_or_default();
        if self.head.is_empty() {
            self.head.reserve(within.len().min(USUAL_HEAD)); // once, not line by line
        }
        self.head.extend_from_slice(taken);
        piece.skip(taken.len() as u64);
        if end.is_some() {
            self.end_line(context)
        } else {
            (self.head.len() >= HEAD_LIMIT).then(|| self.fail(Fault::HeadTooLarge))
        }
    }

    /// Judges the line that is complete now.
    fn end_line(&mut self, context: S::Context) -> Option<Event<S::Head>> {
        let line = self.head.get(self.line..).unwrap_or_default();
        let line = without_end(line);
        let Some(first_line) = self.first_line else {
            return match S::line(line, std::mem::take(&mut self.fresh)) {
                Line::Good(_) => {
                    self.first_line = Some(line.len());
                    self.line = self.head.len();
                    None
                }
                Line::Proxied(client) => {
                    self.head.clear();
                    Some(Event::Proxied(client))
                }
                Line::Bad(fault) => Some(self.fail(fault)),
            };
        };
        if !line.is_empty() {
            self.line = self.head.len();
            return None;
        }
        let (first, rest) = self.head.split_at_checked(first_line)?;
        let headers = rest.strip_prefix(b"\r").unwrap_or(rest);
        let headers = headers.strip_prefix(b"\n").unwrap_or(headers);
        let Line::Good(first) = S::line(first, false) else {
            return Some(self.fail(S::garbage(b'\n', false)));
        };
        let told = S::head(first, &Fields::read(headers), context);
        Some(self.tell(told))
    }

    /// A head is complete.
    fn tell(&mut self, (head, then): (S::Head, Then)) -> Event<S::Head> {
        self.set_aside(match then {
            Then::End => State::Ended { tunnel: false },
            Then::Tunnel => State::Ended { tunnel: true },
            Then::Body(body) => State::Body(body),
            Then::Again => State::Idle,
            Then::Fault(fault) => State::Failing(fault),
        });
        Event::Head(head)
    }

    /// The rest of the head was not copied.
    fn cut_head(&mut self) -> Event<S::Head> {
        let line = self.first_line.and_then(|len| self.head.get(..len));
        match line.and_then(S::without_headers) {
            Some(head) => {
                self.set_aside(State::Failing(Fault::Gap));
                Event::Head(head)
            }
            None => self.fail(Fault::Gap),
        }
    }

    fn fail(&mut self, fault: Fault) -> Event<S::Head> {
        self.set_aside(match fault {
            Fault::Gap | Fault::HeadTooLarge => State::Lost,
            Fault::NotHttp
            | Fault::Tls
            | Fault::Http2
            | Fault::Uwsgi
            | Fault::WebSocket
            | Fault::Upgraded => State::Stopped,
        });
        self.at_start = false;
        Event::Failed(fault)
    }

    /// Leaves the head, if any, for another state.
    fn set_aside(&mut self, state: State) {
        self.state = state;
        self.head = Vec::new();
        self.line = 0;
        self.first_line = None;
    }
}

/// A line without its end.
fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
