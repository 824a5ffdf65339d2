//! HTTP/2 (RFC 9113): an incremental parser for each side of a connection.
//!
//! The same bytes give the same events however they are cut. The data of a body may be missing, for the frame around it says
//! how long it is; so may what control frames say. Where a frame's own header or headers of a message are, nothing can be read any
//! more, since each block of headers builds upon those before it.
mod frame;
mod hpack;
mod huffman;
#[cfg(test)]
mod tests;

use super::Piece;
use super::http1::HEAD_LIMIT;
use super::http1::text;
use compact_str::CompactString;
use frame::HEADER;
use frame::Header;
use frame::Kind;
use hpack::Name;
use hpack::Table;

/// What a client says first (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a parser met in its bytes. Bytes of a stream are those of all its frames that carry the message.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Headers of a stream are complete: those of a message, or what comes behind its body.
    Head {
        /// Which stream.
        stream: u32,
        /// What they say.
        fields: Box<Fields>,
        /// Bytes that they took.
        bytes: u64,
        /// They end the message.
        ends: bool,
    },
    /// Part of a body.
    Data {
        /// Which stream.
        stream: u32,
        /// Its bytes, with those of the frame around it.
        bytes: u64,
        /// It ends the message.
        ends: bool,
    },
    /// A stream is cut off.
    Reset(u32),
    /// Streams beyond this one that the other side has begun are not served.
    Away(u32),
    /// Nothing can be read any more. The parser has stopped.
    Failed(Fault),
}

/// Why nothing can be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that matter were not copied.
    Gap,
    /// Headers are larger than the limit.
    HeadTooLarge,
    /// It is not HTTP/2.
    Malformed,
}

/// The headers that we need, as lossy as those of HTTP/1.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `:method`.
    pub method: Option<CompactString>,
    /// `:path`.
    pub path: Option<CompactString>,
    /// `:authority`.
    pub authority: Option<CompactString>,
    /// `host`.
    pub host: Option<CompactString>,
    /// `:status`.
    pub status: Option<u16>,
    /// `sw8`.
    pub sw8: Option<CompactString>,
    /// `sw8-correlation`.
    pub correlation: Option<CompactString>,
    /// `traceparent`.
    pub traceparent: Option<CompactString>,
}

impl Fields {
    fn take(&mut self, name: Name, value: &[u8]) {
        let kept = match name {
            Name::Method => &mut self.method,
            Name::Path => &mut self.path,
            Name::Authority => &mut self.authority,
            Name::Host => &mut self.host,
            Name::Sw8 => &mut self.sw8,
            Name::Correlation => &mut self.correlation,
            Name::Traceparent => &mut self.traceparent,
            Name::Status => {
                self.status = self.status.or_else(|| status(value));
                return;
            }
            Name::Pseudo | Name::Other => return,
        };
        kept.get_or_insert_with(|| text(value));
    }
}

fn status(digits: &[u8]) -> Option<u16> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = digits else { return None };
    Some([a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(**digit - b'0')))
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Parser for one side of a connection.
#[derive(Debug)]
pub struct Parser {
    side: Side,
    state: State,
    /// The block of headers so far.
    block: Vec<u8>,
    /// Whose block it is, while its end is not there.
    open: Option<Open>,
    table: Table,
    /// A frame began in the last step.
    begun: bool,
}

/// A block of headers that is not whole.
#[derive(Clone, Copy, Debug)]
struct Open {
    stream: u32,
    ends: bool,
    /// Bytes that its frames took so far.
    bytes: u64,
    /// It announces a stream of the server's own, which nobody asked for.
    promised: bool,
}

#[derive(Debug)]
enum State {
    /// So much of the preface is to come.
    Preface(&'static [u8]),
    /// In a frame's header.
    Header {
        bytes: [u8; HEADER],
        have: usize,
    },
    Data {
        stream: u32,
        left: u64,
        /// Bytes that are not told yet.
        untold: u64,
        ends: bool,
    },
    /// In a frame of headers, whose payload begins at `from` of the block.
    Headers {
        header: Header,
        left: usize,
        from: usize,
    },
    /// In the first bytes of what a GOAWAY says.
    Away {
        last: u32,
        have: u32,
        rest: u64,
    },
    Skip(u64),
    Stopped,
}

/// Before the next frame.
const BETWEEN: State = State::Header { bytes: [0; HEADER], have: 0 };

impl Parser {
    /// What a client says, of whose preface so much is to come.
    pub fn client(preface: &'static [u8]) -> Parser {
        Parser::of(Side::Client, State::Preface(preface))
    }

    /// What a server says.
    pub fn server() -> Parser {
        Parser::of(Side::Server, BETWEEN)
    }

    fn of(side: Side, state: State) -> Parser {
        Parser { side, state, block: Vec::new(), open: None, table: Table::new(), begun: false }
    }

    /// Bytes that it keeps.
    pub fn holds(&self) -> usize {
        self.block.capacity() + self.table.holds()
    }

    /// Whether what the last step ended at had its first byte in there: a frame, but none that goes on with headers.
    pub fn has_begun(&mut self) -> bool {
        std::mem::take(&mut self.begun)
    }

    /// Takes bytes off the front of `piece` up to the next event; `None` when the piece is used up.
    /// Call it until then, with an empty piece too: an event may need no further byte.
    pub fn step(&mut self, piece: &mut Piece<'_>) -> Option<Event> {
        loop {
            match &mut self.state {
                State::Preface([]) => self.state = BETWEEN,
                State::Preface([wanted, rest @ ..]) => match piece {
                    Piece::Bytes([]) | Piece::Hole(0) => return None,
                    Piece::Bytes([byte, ..]) if byte == wanted => {
                        self.state = State::Preface(rest);
                        piece.skip(1);
                    }
                    Piece::Bytes(_) => return Some(self.fail(Fault::Malformed)),
                    Piece::Hole(_) => return Some(self.fail(Fault::Gap)),
                },
                State::Header { bytes, have } => {
                    let Some(taken) = fill(piece, bytes.get_mut(*have..).unwrap_or_default()) else {
                        return Some(self.fail(Fault::Gap));
                    };
                    self.begun |= *have == 0 && taken > 0 && self.open.is_none();
                    *have += taken;
                    if *have < HEADER {
                        return None;
                    }
                    let header = Header::of(*bytes);
                    if let Err(fault) = self.begin(header) {
                        return Some(self.fail(fault));
                    }
                    if header.kind == Kind::Reset {
                        return Some(Event::Reset(header.stream));
                    }
                }
                State::Data { stream, left, untold, ends } => {
                    let taken = piece.skip(*left);
                    *left -= taken;
                    let (stream, bytes) = (*stream, *untold + taken);
                    if *left == 0 {
                        let ends = *ends;
                        self.state = BETWEEN;
                        return Some(Event::Data { stream, bytes, ends });
                    }
                    *untold = 0;
                    return (bytes > 0).then_some(Event::Data { stream, bytes, ends: false });
                }
                State::Headers { header, left, from } => {
                    match piece {
                        Piece::Bytes(bytes) => {
                            let taken = bytes.get(..*left).unwrap_or(bytes);
                            self.block.extend_from_slice(taken);
                            *left -= taken.len();
                            let taken = taken.len() as u64;
                            piece.skip(taken);
                        }
                        Piece::Hole(0) => {}
                        Piece::Hole(_) if *left > 0 => return Some(self.fail(Fault::Gap)),
                        Piece::Hole(_) => {}
                    }
                    if *left > 0 {
                        return None;
                    }
                    let (header, from) = (*header, *from);
                    self.state = BETWEEN;
                    match self.headers(header, from) {
                        Ok(None) => {}
                        Ok(event) => return event,
                        Err(fault) => return Some(self.fail(fault)),
                    }
                }
                State::Away { last, have, rest } => {
                    while *have < 4 {
                        match piece {
                            Piece::Bytes([byte, ..]) => *last = *last << 8 | u32::from(*byte),
                            Piece::Bytes([]) | Piece::Hole(0) => return None,
                            Piece::Hole(_) => *last = u32::MAX, // it may be any
                        }
                        piece.skip(1);
                        *have += 1;
                    }
                    let last = *last & frame::STREAM;
                    self.state = State::Skip(*rest);
                    return Some(Event::Away(last));
                }
                State::Skip(left) => {
                    *left -= piece.skip(*left);
                    if *left > 0 {
                        return None;
                    }
                    self.state = BETWEEN;
                }
                State::Stopped => {
                    piece.skip_all();
                    return None;
                }
            }
        }
    }

    /// A frame's header is complete.
    fn begin(&mut self, header: Header) -> Result<(), Fault> {
        let Header { kind, stream, len, .. } = header;
        let continues = kind == Kind::Continuation;
        let is_next = match self.open {
            Some(open) => continues && open.stream == stream,
            None => !continues,
        };
        if !is_next || !header.is_sound() {
            return Err(Fault::Malformed);
        }
        self.state = match kind {
            Kind::Data => State::Data {
                stream,
                left: len.into(),
                untold: HEADER as u64,
                ends: header.has(frame::END_STREAM),
            },
            Kind::Headers if self.side == Side::Client && stream.is_multiple_of(2) => {
                return Err(Fault::Malformed);
            }
            Kind::Promise if self.side == Side::Client => return Err(Fault::Malformed),
            Kind::Headers | Kind::Promise | Kind::Continuation => {
                let (left, from) = (usize::try_from(len).unwrap_or(usize::MAX), self.block.len());
                if from.saturating_add(left) > HEAD_LIMIT {
                    return Err(Fault::HeadTooLarge);
                }
                State::Headers { header, left, from }
            }
            Kind::Away => State::Away { last: 0, have: 0, rest: u64::from(len).saturating_sub(4) },
            Kind::Reset | Kind::Control | Kind::Unknown => State::Skip(len.into()),
        };
        Ok(())
    }

    /// A frame of headers is complete; its payload begins at `from` of the block.
    fn headers(&mut self, header: Header, from: usize) -> Result<Option<Event>, Fault> {
        let len = self.block.len() - from;
        let bytes = (HEADER + len) as u64;
        let mut open = match self.open {
            Some(open) => Open { bytes: open.bytes + bytes, ..open },
            None => {
                let (head, tail) = header.around(self.block.get(from..).unwrap_or_default())?;
                self.block.truncate(self.block.len() - tail);
                self.block.drain(..from + head);
                Open {
                    stream: header.stream,
                    ends: header.has(frame::END_STREAM),
                    bytes,
                    promised: header.kind == Kind::Promise,
                }
            }
        };
        if !header.has(frame::END_HEADERS) {
            self.open = Some(open);
            return Ok(None);
        }
        self.open = None;
        open.ends &= !open.promised;
        let block = std::mem::take(&mut self.block);
        let mut fields = Box::<Fields>::default();
        self.table.read(&block, |name, value| fields.take(name, value)).ok_or(Fault::Malformed)?;
        let Open { stream, ends, bytes, promised } = open;
        Ok((!promised).then_some(Event::Head { stream, fields, bytes, ends }))
    }

    fn fail(&mut self, fault: Fault) -> Event {
        self.state = State::Stopped;
        (self.block, self.open, self.table) = (Vec::new(), None, Table::new());
        Event::Failed(fault)
    }
}

/// Copies what there is of `piece` to the front of `to` and says how much that was; `None` where it was not copied.
fn fill(piece: &mut Piece<'_>, to: &mut [u8]) -> Option<usize> {
    let bytes = match piece {
        Piece::Bytes(bytes) => *bytes,
        Piece::Hole(0) => return Some(0),
        Piece::Hole(_) => return None,
    };
    let taken = bytes.len().min(to.len());
    for (to, from) in to.iter_mut().zip(bytes) {
        *to = *from;
    }
    piece.skip(taken as u64);
    Some(taken)
}

/// Whether a server that begins to write so speaks HTTP/2: with its settings (RFC 9113, 3.4).
pub fn is_server(bytes: &[u8]) -> bool {
    Header::at_front(bytes).is_some_and(|(header, _)| header.is_settings())
}

/// Whether `bytes`, somewhere in a connection, are whole frames with headers of a request.
pub fn is_request(mut bytes: &[u8]) -> bool {
    let mut asks = false;
    while let Some((header, rest)) = Header::at_front(bytes) {
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let Some((payload, rest)) = rest.split_at_checked(len) else { return false };
        if header.kind == Kind::Unknown || !header.is_sound() {
            return false;
        }
        if header.kind == Kind::Headers && !header.stream.is_multiple_of(2) {
            let block = header.around(payload).ok().and_then(|(head, tail)| payload.get(head..len - tail));
            asks |= block.is_some_and(hpack::asks);
        }
        bytes = rest;
    }
    asks && bytes.is_empty()
}
