//! HTTP/1 heads: what a request line, a status line and the headers we need say.
use std::net::SocketAddr;

use compact_str::CompactString;

use super::Fault;
use super::body::Body;
use super::phrase::Phrase;
use super::proxy;

/// Most headers of a head that is read at once; those of one with more are read line by line.
const HEADERS: usize = 256;
/// Headers of nearly every head: room for more takes longer to make ready than the head to read.
const FEW_HEADERS: usize = 24;
/// Longest method.
const METHOD_LIMIT: usize = 32;
/// How much of a target or header is kept, in bytes: the most that gunicorn takes unless told otherwise. Thousands
/// of requests wait for an OAP that is away, and a client may make each as long as the head's limit.
const TEXT_LIMIT: usize = 8_190;

/// A request's head. Text is lossy: what is no UTF-8, and control characters, show as U+FFFD,
/// and of a text longer than 8190 bytes only the beginning is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// As sent.
    pub method: CompactString,
    /// As sent: path and query, an absolute URL, `*`, or host and port.
    pub target: CompactString,
    /// `Host` header.
    pub host: Option<CompactString>,
    /// `sw8` header.
    pub sw8: Option<CompactString>,
    /// `sw8-correlation` header.
    pub correlation: Option<CompactString>,
    /// `traceparent` header.
    pub traceparent: Option<CompactString>,
}

/// A response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// What the status line says behind the status.
    pub phrase: Phrase,
    /// The server says that it closes the connection after this response.
    pub last: bool,
}

/// What a response needs to know of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// `HEAD`: no body whatever the headers say.
    Head,
    /// `CONNECT`: success ends HTTP on this connection.
    Connect,
    /// Anything else.
    #[default]
    Other,
}

impl Asked {
    /// By the request's method.
    pub fn by(method: &str) -> Asked {
        match method {
            "HEAD" => Asked::Head,
            "CONNECT" => Asked::Connect,
            _ => Asked::Other,
        }
    }
}

/// What follows a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the message is over.
    End,
    /// A body.
    Body(Body),
    /// An interim response is over; the response itself is still to come.
    Again,
    /// The message is over, and what follows is no HTTP unless the response says so.
    Tunnel,
    /// Nothing that can be read.
    Fault(Fault),
}

/// What a first line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<F> {
    /// The line that it should be, with what it says.
    Good(F),
    /// A line of a proxy in front, with its client; the head begins after it.
    Proxied(Option<SocketAddr>),
    /// Another protocol, or nothing known.
    Bad(Fault),
}

/// One of the two sides of a connection: the heads it sends.
pub trait Side {
    /// Its head.
    type Head;
    /// What its first line says.
    type First<'a>: Copy;
    /// What the parser has to be told when a head is complete.
    type Context: Copy;
    /// Whether empty lines may come before a message.
    const BLANK_LINES: bool;
    /// Whether a proxy in front may come before the first message.
    const PROXIED: bool;
    /// What a byte means that is not this side's; `first` of the connection.
    fn garbage(byte: u8, first: bool) -> Fault;
    /// Whether a message can begin with this byte.
    fn opens(byte: u8) -> bool;
    /// Judges a first line, without its line end; `first` of the connection.
    fn line(line: &[u8], first: bool) -> Line<Self::First<'_>>;
    /// Whether `bytes` begin with a first line that is there as far as it matters.
    fn resumes(bytes: &[u8]) -> bool;
    /// What a first line that is [`Line::Good`] says without its headers, where that is worth telling.
    fn without_headers(line: &[u8]) -> Option<Self::Head>;
    /// What a first line says with the headers after it.
    fn head(first: Self::First<'_>, fields: &Fields<'_>, context: Self::Context) -> (Self::Head, Then);
}

/// The side that asks.
#[derive(Clone, Copy, Debug)]
pub struct Request;

/// The side that answers.
#[derive(Clone, Copy, Debug)]
pub struct Response;

impl Side for Request {
    type Head = RequestHead;
    /// Method and target.
    type First<'a> = (&'a [u8], &'a [u8]);
    type Context = ();
    const BLANK_LINES: bool = true;
    const PROXIED: bool = true;

    /// TLS begins with the type of a handshake's record (RFC 8446, 5.1), uwsgi with the modifier of an application's request.
    /// More than the first byte may not be there yet.
    fn garbage(byte: u8, first: bool) -> Fault {
        match byte {
            0x16 if first => Fault::Tls,
            0 if first => Fault::Uwsgi,
            _ => Fault::NotHttp,
        }
    }

    fn opens(byte: u8) -> bool {
        is_token(byte)
    }

    fn line(line: &[u8], first: bool) -> Line<(&[u8], &[u8])> {
        if first && proxy::is_line(line) {
            return Line::Proxied(proxy::client(line));
        }
        match request_line(line) {
            Some((b"PRI", b"*", b"HTTP/2.0")) => Line::Bad(Fault::Http2),
            Some((method, target, version)) if is_http1(version) || is_taken_for_http1(version) => {
                Line::Good((method, target))
            }
            _ => without_version(line).map_or(Line::Bad(Fault::NotHttp), Line::Good),
        }
    }

    fn resumes(bytes: &[u8]) -> bool {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let (Some(line), Some(_)) = (lines.next(), lines.next()) else { return false };
        request_line(line.trim_ascii_end()).is_some_and(|(_, _, version)| is_http1(version))
    }

    fn without_headers(_: &[u8]) -> Option<RequestHead> {
        None // a missing header could have been the caller's trace
    }

    fn head((method, target): (&[u8], &[u8]), fields: &Fields<'_>, _: ()) -> (RequestHead, Then) {
        let then = match fields {
            _ if method == b"CONNECT" => Then::Tunnel,
            Fields { unclear: true, .. } | Fields { coding: Coding::Other, .. } => Then::Fault(Fault::Gap),
            Fields { coding: Coding::Chunked, .. } => Then::Body(Body::chunked()),
            Fields { length: Length::Bad, .. } => Then::Fault(Fault::Gap),
            Fields { length: Length::Bytes(0) | Length::None, .. } => Then::End,
            Fields { length: Length::Bytes(len), .. } => Then::Body(Body::Length(*len)),
        };
        let head = RequestHead {
            method: text(method),
            target: text(target),
            host: fields.host.map(text),
            sw8: fields.sw8.map(text),
            correlation: fields.correlation.map(text),
            traceparent: fields.traceparent.map(text),
        };
        (head, then)
    }
}

impl Side for Response {
    type Head = ResponseHead;
    /// Minor version (a digit), status, and what is said of it.
    type First<'a> = (u8, u16, &'a [u8]);
    type Context = Asked;
    const BLANK_LINES: bool = false;
    const PROXIED: bool = false;

    fn garbage(_: u8, _: bool) -> Fault {
        Fault::Gap
    }

    fn opens(byte: u8) -> bool {
        byte == b'H'
    }

    fn line(line: &[u8], _: bool) -> Line<(u8, u16, &[u8])> {
        status_line(line).map_or(Line::Bad(Fault::Gap), Line::Good)
    }

    fn resumes(bytes: &[u8]) -> bool {
        // Without a byte after the status it could be cut short.
        bytes.len() > STATUS_LINE && status_line(bytes).is_some()
    }

    fn without_headers(line: &[u8]) -> Option<ResponseHead> {
        let (_, status, said) = status_line(line).filter(|(_, status, _)| *status >= 200)?;
        Some(ResponseHead { status, phrase: Phrase::of(said), last: false })
    }

    fn head(
        (minor, status, said): (u8, u16, &[u8]),
        fields: &Fields<'_>,
        asked: Asked,
    ) -> (ResponseHead, Then) {
        let then = match (status, asked, fields) {
            (101, _, Fields { upgrade: Upgrade::WebSocket, .. }) => Then::Fault(Fault::WebSocket),
            (101, _, Fields { upgrade: Upgrade::Http2, .. }) => Then::Fault(Fault::Http2),
            (101, _, _) | (200..300, Asked::Connect, _) => Then::Fault(Fault::Upgraded),
            (100..200, _, _) => Then::Again,
            (204 | 304, _, _) | (_, Asked::Head, _) => Then::End,
            (_, _, Fields { unclear: true, .. }) => Then::Fault(Fault::Gap),
            (_, _, Fields { coding: Coding::Chunked, .. }) => Then::Body(Body::chunked()),
            (_, _, Fields { coding: Coding::Other, .. }) => Then::Body(Body::UntilClose),
            (_, _, Fields { length: Length::Bytes(0), .. }) => Then::End,
            (_, _, Fields { length: Length::Bytes(len), .. }) => Then::Body(Body::Length(*len)),
            (_, _, Fields { length: Length::None | Length::Bad, .. }) => Then::Body(Body::UntilClose),
        };
        let last = fields.close || (minor == b'0' && !fields.keep_alive);
        (ResponseHead { status, phrase: Phrase::of(said), last }, then)
    }
}

#[derive(Default)]
enum Length {
    #[default]
    None,
    Bytes(u64),
    Bad,
}

#[derive(Default)]
enum Coding {
    #[default]
    None,
    Chunked,
    Other,
}

/// What `Upgrade` names.
#[derive(Default)]
enum Upgrade {
    #[default]
    Other,
    /// The WebSocket alone (RFC 6455, 4.2.2).
    WebSocket,
    /// HTTP/2 without TLS (RFC 7540, 3.2).
    Http2,
}

impl Upgrade {
    fn to(name: &[u8]) -> Upgrade {
        if name.eq_ignore_ascii_case(b"websocket") {
            Upgrade::WebSocket
        } else if name.eq_ignore_ascii_case(b"h2c") {
            Upgrade::Http2
        } else {
            Upgrade::Other
        }
    }
}

/// Headers that say how long a body is.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// The headers we need.
#[derive(Default)]
pub struct Fields<'a> {
    length: Length,
    coding: Coding,
    host: Option<&'a [u8]>,
    sw8: Option<&'a [u8]>,
    correlation: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    upgrade: Upgrade,
    /// Servers differ in how they read what says how long the body is.
    unclear: bool,
}

impl<'a> Fields<'a> {
    /// Reads headers with the blank line after them, as lenient as any server is.
    pub fn read(bytes: &'a [u8]) -> Fields<'a> {
        Fields::at_front(bytes).map_or_else(|| Fields::leniently(bytes), |(fields, _)| fields)
    }

    /// Reads headers at the front of `bytes`, and says how many bytes they take with the blank line after them; nothing where
    /// there are too many, or one that not every server takes.
    pub fn at_front(bytes: &'a [u8]) -> Option<(Fields<'a>, usize)> {
        let mut room = [httparse::EMPTY_HEADER; FEW_HEADERS];
        match httparse::parse_headers(bytes, &mut room) {
            Err(httparse::Error::TooManyHeaders) => {
                let mut room = [httparse::EMPTY_HEADER; HEADERS];
                Fields::of(httparse::parse_headers(bytes, &mut room))
            }
            parsed => Fields::of(parsed),
        }
    }

    fn of(parsed: httparse::Result<(usize, &[httparse::Header<'a>])>) -> Option<(Fields<'a>, usize)> {
        let Ok(httparse::Status::Complete((len, headers))) = parsed else { return None };
        let mut fields = Fields::default();
        for header in headers {
            fields.take(header.name, header.value);
        }
        Some((fields, len))
    }

    /// Reads them line by line. h11 joins lines that begin with a blank to the one before, as gunicorn does when it is told to,
    /// and takes control characters; what is no header at all is refused or passed over.
    fn leniently(bytes: &'a [u8]) -> Fields<'a> {
        let mut fields = Fields::default();
        let mut frames = false;
        for line in bytes.split(|byte| *byte == b'\n') {
            if let [b' ' | b'\t', ..] = line {
                fields.unclear |= frames;
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let (name, value) = line.split_at(colon);
            let bare = name.trim_ascii();
            frames = FRAMING.iter().any(|known| bare.eq_ignore_ascii_case(known.as_bytes()));
            fields.unclear |= frames && bare != name;
            let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
            fields.take(std::str::from_utf8(bare).unwrap_or_default(), value);
        }
        fields
    }

    fn take(&mut self, name: &str, value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Most are none of these, and their length says so at once.
        match name.len() {
            3 if is("sw8") => _ = self.sw8.get_or_insert(value),
            4 if is("host") => _ = self.host.get_or_insert(value),
            7 if is("upgrade") => self.upgrade = Upgrade::to(value.trim_ascii()),
            10 if is("connection") => {
                for item in items(value) {
                    self.close |= item.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= item.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            11 if is("traceparent") => _ = self.traceparent.get_or_insert(value),
            14 if is("content-length") => {
                for item in items(value) {
                    self.length = match (&self.length, decimal(item)) {
                        (Length::None, Some(len)) => Length::Bytes(len),
                        (Length::Bytes(before), Some(len)) if *before == len => Length::Bytes(len),
                        _ => Length::Bad,
                    };
                }
            }
            15 if is("sw8-correlation") => _ = self.correlation.get_or_insert(value),
            17 if is("transfer-encoding") => {
                // `identity` is no coding; gunicorn and Tornado take it.
                for item in items(value).filter(|item| !item.eq_ignore_ascii_case(b"identity")) {
                    let chunked = item.eq_ignore_ascii_case(b"chunked");
                    self.coding = if chunked { Coding::Chunked } else { Coding::Other };
                }
            }
            _ => {}
        }
    }
}

fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None; // `parse` would take a sign
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Method, target and version; what is between the first and the last blank is the target.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = line.iter().position(|byte| *byte == b' ')?;
    let last = line.iter().rposition(|byte| *byte == b' ')?;
    let method = line.get(..first)?;
    let target = line.get(first..last)?.trim_ascii();
    let version = line.get(last + 1..)?;
    let good = !target.is_empty() && method.len() <= METHOD_LIMIT && method.iter().all(|b| is_token(*b));
    (good && !method.is_empty()).then_some((method, target, version))
}

/// Whether `bytes` begin with a whole HTTP/1 request line.
pub fn is_request(bytes: &[u8]) -> bool {
    Request::resumes(bytes)
}

fn is_http1(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'])
}

/// httptools serves these and a line without a version like 1.0 (`llhttp`); whoever else refuses them answers all the same.
fn is_taken_for_http1(version: &[u8]) -> bool {
    matches!(version, b"HTTP/0.9" | b"HTTP/2.0")
}

/// Method and target of a line without a version.
fn without_version(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    let (method, target) = (line.get(..at)?, line.get(at..)?.trim_ascii());
    let is_method = (1..=METHOD_LIMIT).contains(&at) && method.iter().all(u8::is_ascii_uppercase);
    let is_target = target.starts_with(b"/") || target.starts_with(b"http://");
    (is_method && is_target && !target.contains(&b' ')).then_some((method, target))
}

/// Bytes of a status line up to its status.
const STATUS_LINE: usize = "HTTP/1.1 200".len();

/// Minor version (a digit), status, and what is behind it.
fn status_line(line: &[u8]) -> Option<(u8, u16, &[u8])> {
    let (version, rest) = line.split_at_checked("HTTP/1.1".len())?;
    let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', end @ ..] = rest else { return None };
    let ends = matches!(end.first(), None | Some(b' ' | b'\r' | b'\n'));
    let status = [a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(**digit - b'0'));
    (ends && is_http1(version)).then_some((*version.last()?, status, end.trim_ascii()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(in crate::protocol) fn text(bytes: &[u8]) -> CompactString {
    let bytes = bytes.get(..TEXT_LIMIT).unwrap_or(bytes);
    if bytes.iter().all(|byte| (b' '..=b'~').contains(byte))
        && let Ok(text) = str::from_utf8(bytes)
    {
        return text.into(); // as nearly all are
    }
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}
