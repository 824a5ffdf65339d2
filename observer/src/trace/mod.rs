//! Exchanges to SkyWalking segments.
mod ant;
mod correlation;
mod digits;
mod params;
pub mod rules;
pub mod segment;
pub mod span;
pub mod sw8;
mod w3c;

use std::sync::Arc;

use compact_str::CompactString;

/// What one process did for one request; sent once, spans in the order in which they finished.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// 32 hexadecimal digits, or whatever an upstream agent chose.
    pub trace_id: CompactString,
    /// 32 hexadecimal digits.
    pub segment_id: CompactString,
    /// SkyWalking service name.
    pub service: Arc<str>,
    /// SkyWalking service instance name.
    pub instance: Arc<str>,
    /// What the caller's application handed on by `sw8-correlation`, name and value. It is for the calls that follow, and
    /// neither sent to OAP nor shown: it may hold anything.
    pub correlation: Vec<(String, String)>,
    /// Children first, the entry span last; one of them has id 0.
    pub spans: Vec<Span>,
}

/// Which side of a call a span describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that came in.
    Entry,
    /// A call that went out.
    Exit,
    /// Neither.
    Local,
}

/// SkyWalking's coarse kind of technology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanLayer {
    /// HTTP.
    Http,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Position in creation order, from 0.
    pub id: i32,
    /// Parent's id; −1 for the root.
    pub parent: i32,
    /// Wall time in milliseconds since 1970.
    pub start_ms: i64,
    /// Wall time in milliseconds since 1970.
    pub end_ms: i64,
    /// Callers in other processes.
    pub refs: Vec<Reference>,
    /// Raw path, without query.
    pub operation: CompactString,
    /// The other end, `ip:port`; empty on a Unix socket.
    pub peer: CompactString,
    /// Entry, exit or local.
    pub kind: SpanKind,
    /// Layer.
    pub layer: SpanLayer,
    /// Component id of OAP's `component-libraries.yml`.
    pub component: i32,
    /// Whether the operation failed.
    pub is_error: bool,
    /// Tags in SkyWalking's order.
    pub tags: Vec<(&'static str, CompactString)>,
    /// How long the request lay in the socket before the worker read it, in nanoseconds; not sent to OAP.
    pub queue_wait_ns: Option<u64>,
}

/// A caller in another process: what its `sw8` header said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The caller's trace.
    pub trace_id: String,
    /// The caller's segment.
    pub parent_segment_id: String,
    /// The caller's exit span in it.
    pub parent_span_id: i32,
    /// The caller's service.
    pub parent_service: String,
    /// The caller's instance.
    pub parent_instance: String,
    /// The caller's operation.
    pub parent_endpoint: String,
    /// The address that the caller used for us.
    pub address: String,
}
