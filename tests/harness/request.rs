//! What the client sends: one request and how its bytes are cut.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// The body of a request.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// With `Content-Length`.
    Length(Vec<u8>),
    /// Chunked, one chunk per piece.
    Chunked(Vec<Vec<u8>>),
}

/// One request. Its path `/<action>/<id>` is used once in a run, so that it can be found again.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method as sent.
    pub method: &'static str,
    /// Path without query.
    pub path: String,
    /// Query without its question mark.
    pub query: String,
    /// Written before the path: the absolute form of a request target.
    pub origin: &'static str,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: &'static str,
    /// Headers besides `Host` and those of the body.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Body,
    /// Sends `Expect: 100-continue` and waits for the answer before the body.
    pub expects: bool,
    /// Offsets at which the bytes of the request are cut into writes.
    pub cuts: Vec<usize>,
    /// Pause at each cut.
    pub pause: Duration,
}

impl Request {
    /// A request for an action of the test applications.
    pub fn new(method: &'static str, action: &str) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            method,
            path: format!("/{action}/r{id}"),
            query: String::new(),
            origin: "",
            version: "HTTP/1.1",
            headers: Vec::new(),
            body: Body::Empty,
            expects: false,
            cuts: Vec::new(),
            pause: Duration::from_millis(1),
        }
    }

    /// A GET.
    pub fn get(action: &str) -> Self {
        Self::new("GET", action)
    }

    /// A POST with a length.
    pub fn post(action: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Length(body.into()), ..Self::new("POST", action) }
    }

    /// A chunked POST.
    pub fn chunked(action: &str, pieces: &[&[u8]]) -> Self {
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        Self { body: Body::Chunked(pieces), ..Self::new("POST", action) }
    }

    /// With a query.
    pub fn query(mut self, query: &str) -> Self {
        self.query = query.into();
        self
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With `Expect: 100-continue`.
    pub fn expecting(mut self) -> Self {
        self.expects = true;
        self
    }

    /// In absolute form.
    pub fn absolute(mut self, origin: &'static str) -> Self {
        self.origin = origin;
        self
    }

    /// In HTTP/1.0.
    pub fn old(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// Cut at these offsets.
    pub fn cut(mut self, cuts: impl IntoIterator<Item = usize>) -> Self {
        self.cuts = cuts.into_iter().collect();
        self
    }

    /// The `Host` header to a server of this name: the absolute form has its own.
    pub fn host(&self, server: &str) -> String {
        self.origin.strip_prefix("http://").unwrap_or(server).to_owned()
    }

    /// The head for a server of this name, up to and with its empty line.
    pub fn head(&self, server: &str) -> Vec<u8> {
        let host = self.host(server);
        let mark = if self.query.is_empty() { "" } else { "?" };
        let target = format!("{}{}{mark}{}", self.origin, self.path, self.query);
        let mut head = format!("{} {target} {}\r\nHost: {host}\r\n", self.method, self.version);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            Body::Empty => {}
            Body::Length(body) => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
            Body::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        if self.expects {
            head.push_str("Expect: 100-continue\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// All of it for a server of this name, as on the wire.
    pub fn wire(&self, server: &str) -> Vec<u8> {
        [self.head(server), self.wire_body()].concat()
    }

    /// The body as on the wire.
    pub fn wire_body(&self) -> Vec<u8> {
        let Body::Chunked(pieces) = &self.body else { return self.content() };
        let mut wire = Vec::new();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            wire.extend(format!("{:x}\r\n", piece.len()).bytes());
            wire.extend(piece);
            wire.extend(b"\r\n");
        }
        wire.extend(b"0\r\n\r\n");
        wire
    }

    /// The body as the application reads it.
    pub fn content(&self) -> Vec<u8> {
        match &self.body {
            Body::Empty => Vec::new(),
            Body::Length(body) => body.clone(),
            Body::Chunked(pieces) => pieces.concat(),
        }
    }
}
