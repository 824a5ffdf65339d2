//! An HTTP/1 client over raw sockets that keeps what it sent, when, and which worker answered.

use std::fmt::Debug;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustls::ClientConnection;
use rustls::StreamOwned;

use crate::request::Request;
use crate::tls;
use crate::tls::Version;

/// The longest that one read or write waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most bytes of one response.
const LIMIT: usize = 64 << 20;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A TCP port where TLS is spoken, in this version.
    Tls(SocketAddr, Version),
    /// A Unix socket.
    Unix(PathBuf),
    /// A Unix socket where TLS is spoken.
    TlsUnix(PathBuf, Version),
}

impl Address {
    /// The same with TLS.
    pub fn encrypted(self, version: Version) -> Self {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => Self::Tls(address, version),
            Self::Unix(path) | Self::TlsUnix(path, _) => Self::TlsUnix(path, version),
        }
    }

    /// The `Host` header for it.
    pub fn host(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => address.to_string(),
            Self::Unix(_) | Self::TlsUnix(..) => "localhost".into(),
        }
    }
}

trait Socket: Read + Write + Debug + Send {
    /// Tells the server that no more comes.
    fn finish(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl<T: Socket> Socket for StreamOwned<ClientConnection, T> {
    fn finish(&self) -> io::Result<()> {
        self.sock.finish()
    }
}

impl Socket for UnixStream {
    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

fn tcp(to: &SocketAddr) -> io::Result<(TcpStream, Option<u16>)> {
    let socket = TcpStream::connect_timeout(to, PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let port = socket.local_addr()?.port();
    Ok((socket, Some(port)))
}

fn unix(path: &Path) -> io::Result<UnixStream> {
    let socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Method as sent.
    pub method: String,
    /// Path without query; names the request.
    pub path: String,
    /// `Host` header as sent.
    pub host: String,
    /// It went over TLS.
    pub encrypted: bool,
    /// Status, when a response came.
    pub status: Option<u16>,
    /// The process that `X-Worker` names.
    pub worker: Option<u32>,
    /// The client's port; `None` on a Unix socket.
    pub port: Option<u16>,
    /// Wall time before the first byte was written, in ms.
    pub start: f64,
    /// Wall time after the last byte was read, in ms.
    pub end: f64,
    /// The response said where its body ends, so its end is not the connection's.
    pub framed: bool,
    /// The response's body.
    pub body: Vec<u8>,
    /// Why there is no whole response.
    pub error: Option<String>,
    /// Ports from which it was sent before, over kept connections that the server closed without an answer; the
    /// worker may have read it there.
    pub abandoned: Vec<Option<u16>>,
}

/// The head of a response.
#[derive(Debug)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    socket: Box<dyn Socket>,
    host: String,
    encrypted: bool,
    port: Option<u16>,
    unread: Vec<u8>,
    open: bool,
}

impl Connection {
    /// Connects.
    pub fn open(address: &Address) -> io::Result<Self> {
        let (socket, port): (Box<dyn Socket>, _) = match address {
            Address::Tcp(to) => {
                let (socket, port) = tcp(to)?;
                (Box::new(socket), port)
            }
            Address::Tls(to, version) => {
                let (socket, port) = tcp(to)?;
                (Box::new(tls::over(socket, *version)), port)
            }
            Address::Unix(path) => (Box::new(unix(path)?), None),
            Address::TlsUnix(path, version) => (Box::new(tls::over(unix(path)?, *version)), None),
        };
        let encrypted = matches!(address, Address::Tls(..) | Address::TlsUnix(..));
        Ok(Self { socket, host: address.host(), encrypted, port, unread: Vec::new(), open: true })
    }

    /// Whether the server has not said that it closes.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Sends one request and reads its response.
    pub fn send(&mut self, request: &Request) -> Sent {
        let mut sent = self.begin(request);
        let result = self.write(request, &mut sent).and_then(|()| self.finish(request, &mut sent));
        self.settle(&mut sent, result);
        sent
    }

    /// Sends every request before it reads the first response.
    pub fn pipeline(&mut self, requests: &[Request]) -> Vec<Sent> {
        let wire: Vec<u8> = requests.iter().flat_map(|request| request.wire(&self.host)).collect();
        self.batch(requests, &[&wire])
    }

    /// Writes these pieces, which are the bytes of these requests, and then reads all responses.
    pub fn batch(&mut self, requests: &[Request], pieces: &[&[u8]]) -> Vec<Sent> {
        let mut all: Vec<_> = requests.iter().map(|request| self.begin(request)).collect();
        let mut written = pieces.iter().try_for_each(|piece| self.socket.write_all(piece));
        for (request, sent) in requests.iter().zip(&mut all) {
            let result = written.and_then(|()| self.finish(request, sent));
            written = result.as_ref().copied().map_err(|error| io::Error::from(error.kind()));
            self.settle(sent, result);
        }
        all
    }

    /// Writes bytes that are no request.
    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads up to a mark, and then so many bytes more.
    pub fn read_raw(&mut self, mark: &[u8], count: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        Ok((self.until(mark)?, self.bytes(count)?))
    }

    /// Closes this side for writing.
    pub fn finish_writing(&mut self) {
        self.socket.finish().ok();
    }

    /// Reads until the server closes; what an error cut off is not returned.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.unread);
        (&mut self.socket).take(LIMIT as u64).read_to_end(&mut bytes).ok();
        self.open = false;
        bytes
    }

    fn begin(&self, request: &Request) -> Sent {
        Sent {
            method: request.method.into(),
            path: request.path.clone(),
            host: request.host(&self.host),
            encrypted: self.encrypted,
            status: None,
            worker: None,
            port: self.port,
            start: now(),
            end: 0.0,
            framed: false,
            body: Vec::new(),
            error: None,
            abandoned: Vec::new(),
        }
    }

    fn settle(&mut self, sent: &mut Sent, result: io::Result<()>) {
        sent.end = now();
        if let Err(error) = result {
            self.open = false;
            sent.error = Some(error.to_string());
        }
    }

    fn write(&mut self, request: &Request, sent: &mut Sent) -> io::Result<()> {
        let head = request.head(&self.host);
        let body = request.wire_body();
        if request.expects {
            self.socket.write_all(&head)?;
            let interim = self.head()?;
            if interim.status != 100 {
                return Err(io::Error::other(format!("{} instead of 100", interim.status)));
            }
            return self.socket.write_all(&body);
        }
        let bytes = [head, body].concat();
        let mut rest = bytes.as_slice();
        let mut done = 0;
        for cut in &request.cuts {
            let Some((piece, after)) = rest.split_at_checked(cut.saturating_sub(done)) else { break };
            self.socket.write_all(piece)?;
            thread::sleep(request.pause);
            (rest, done) = (after, *cut);
        }
        let written = self.socket.write_all(rest);
        // A server may answer before it has read everything and close: its answer counts.
        if sent.method == "GET" { written } else { written.or(Ok(())) }
    }

    fn finish(&mut self, request: &Request, sent: &mut Sent) -> io::Result<()> {
        let mut head = self.head()?;
        while head.status < 200 {
            head = self.head()?;
        }
        sent.status = Some(head.status);
        sent.worker = head.get("x-worker").and_then(|worker| worker.parse().ok());
        let closes = head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let keeps = head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"));
        self.open = if request.version == "HTTP/1.0" { keeps } else { !closes };
        sent.framed = true;
        if request.method == "HEAD" || matches!(head.status, 204 | 304) {
            return Ok(());
        }
        if let Some(length) = head.get("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            sent.body = self.bytes(length)?;
        } else if head.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            sent.body = self.chunks()?;
        } else {
            sent.framed = false;
            sent.body = self.drain();
        }
        Ok(())
    }

    fn head(&mut self) -> io::Result<Head> {
        let text = self.until(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a response: {text:?}")))?;
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(Head { status, headers: lines.filter_map(pair).collect() })
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let size = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            let piece = self.bytes(size)?;
            self.until(b"\r\n")?;
            if size == 0 {
                return Ok(body);
            }
            body.extend(piece);
        }
    }

    fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let found = self.unread.windows(mark.len()).position(|window| window == mark);
            if let Some(at) = found {
                return Ok(self.unread.drain(..at + mark.len()).collect());
            }
            self.more()?;
        }
    }

    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            self.more()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 65536];
        let count = self.socket.read(&mut buffer)?;
        if count == 0 || self.unread.len() > LIMIT {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the response's end"));
        }
        self.unread.extend(buffer.iter().take(count));
        Ok(())
    }
}

/// How a client uses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The same one until the server closes it.
    KeepAlive,
    /// A new one for each request.
    New,
}

/// Sends requests one after the other.
#[derive(Debug)]
pub struct Client {
    address: Address,
    mode: Mode,
    connection: Option<Connection>,
}

impl Client {
    /// Does not connect yet.
    pub fn new(address: &Address, mode: Mode) -> Self {
        Self { address: address.clone(), mode, connection: None }
    }

    /// Sends a request. When a connection that was used before turns out to be closed, it goes over a new one
    /// once more, as clients do.
    pub fn send(&mut self, request: &Request) -> Sent {
        let kept = self.connection.take().filter(|connection| connection.open);
        let reused = kept.is_some();
        let mut connection = match kept.map_or_else(|| Connection::open(&self.address), Ok) {
            Ok(connection) => connection,
            Err(error) => return refused(request, &error),
        };
        let sent = connection.send(request);
        if reused && sent.status.is_none() {
            let mut again = self.send(request);
            again.abandoned.push(sent.port);
            return again;
        }
        if self.mode == Mode::KeepAlive {
            self.connection = Some(connection);
        }
        sent
    }

    /// Sends requests at once, in these pieces. Those that a server which closed left without an answer go over a new
    /// connection, unless that was a new one and answered none.
    pub fn batch(&mut self, requests: &[Request], pieces: &[&[u8]]) -> Vec<Sent> {
        let kept = self.connection.take().filter(|connection| connection.open);
        let reused = kept.is_some();
        let mut connection = match kept.map_or_else(|| Connection::open(&self.address), Ok) {
            Ok(connection) => connection,
            Err(error) => return requests.iter().map(|request| refused(request, &error)).collect(),
        };
        let mut all = connection.batch(requests, pieces);
        let answered = all.iter().take_while(|sent| sent.status.is_some()).count();
        if answered == all.len() {
            self.connection = Some(connection);
        } else if reused || answered > 0 {
            let left: Vec<_> = requests.iter().skip(answered).cloned().collect();
            let wire: Vec<u8> = left.iter().flat_map(|request| request.wire(&connection.host)).collect();
            let mut again = self.batch(&left, &[&wire]);
            for (again, before) in again.iter_mut().zip(all.drain(answered..)) {
                again.abandoned.push(before.port);
            }
            all.extend(again);
        }
        all
    }

    /// Closes the connection that was kept.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }
}

fn refused(request: &Request, error: &io::Error) -> Sent {
    Sent {
        method: request.method.into(),
        path: request.path.clone(),
        host: String::new(),
        encrypted: false,
        status: None,
        worker: None,
        port: None,
        start: now(),
        end: now(),
        framed: false,
        body: Vec::new(),
        error: Some(error.to_string()),
        abandoned: Vec::new(),
    }
}

/// Wall time in ms.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
