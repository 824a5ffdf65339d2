//! Request and response paired, with their times and the process that served them.
use crate::clock::KernelTime;

/// The ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// TCP over IPv4 or IPv6.
    Tcp {
        /// The worker's end.
        local: std::net::SocketAddr,
        /// The client's end.
        peer: std::net::SocketAddr,
    },
    /// A Unix socket; it has no address worth showing.
    Unix,
    /// The connection was there before it could be seen being opened and its ends are not known.
    Unknown,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response was seen.
    Complete,
    /// The connection or the process ended before the response did.
    Cut,
}

/// One request that a worker served, and its response.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The process that read the request's first byte (pid of the initial namespace).
    pub pid: u32,
    /// The thread that did.
    pub tid: u32,
    /// Between whom.
    pub ends: Ends,
    /// Upper-case method as sent.
    pub method: String,
    /// Request target as sent: path and query, or an absolute URL.
    pub target: String,
    /// `Host` header.
    pub host: Option<String>,
    /// `sw8` header.
    pub sw8: Option<String>,
    /// Status; `None` when no response head was seen.
    pub status: Option<u16>,
    /// When the request's first byte was ready to be read; `None` when not known.
    pub ready: Option<KernelTime>,
    /// When the worker read its first byte.
    pub start: KernelTime,
    /// When the worker wrote the response's first byte.
    pub first_byte: Option<KernelTime>,
    /// When the worker wrote its last byte, or the connection ended.
    pub end: KernelTime,
    /// Bytes of the request on the wire.
    pub request_bytes: u64,
    /// Bytes of the response on the wire.
    pub response_bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
}
