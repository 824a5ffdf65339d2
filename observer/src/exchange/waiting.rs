//! What is known of a request before its response is over.
use super::Exchange;
use crate::clock::KernelTime;
use crate::protocol::http1::Fault;
use crate::stats::Reason;

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
