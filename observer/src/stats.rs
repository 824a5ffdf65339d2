//! Our own numbers: what was seen, what was lost and why.
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Why something was lost in user space. Append-only numbers; the probes' own are in `observer_ebpf::counter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Reason {
    /// A record of a kind that this release does not know.
    UnknownRecord = 100,
    /// A record shorter than its kind.
    ShortRecord = 101,
    /// Bytes that were lost or not copied hid a message. One whose head was seen is told all the same.
    Gap = 102,
    /// Bytes that are no HTTP on a connection that a worker reads.
    NotHttp = 103,
    /// A head larger than the limit, or than what is left of the one for all heads that are held.
    HeadTooLarge = 104,
    /// The connection table is full; the one that was idle longest was let go.
    ConnectionsFull = 105,
    /// A response without a request.
    ResponseWithoutRequest = 106,
    /// A request that its server had said it would not answer. One that is cut short otherwise is reported.
    Cut = 107,
    /// A request served by a process that is not known to be a worker.
    UnknownProcess = 108,
    /// An `sw8` header that is not one: like the agent, the request is not traced.
    BadSw8 = 109,
    /// The parser of a connection failed; the connection is given up.
    ParserPanic = 110,
    /// The report queue was full; the oldest was dropped.
    QueueFull = 111,
    /// OAP refused it, or it could not be sent.
    SendFailed = 112,
    /// Too many requests wait for their response on one connection, or take more than what is left for all that wait.
    PipelineTooDeep = 113,
    /// Facts about a process could not be read before it ended.
    FactsGone = 114,
    /// The connection went over to a protocol that is not parsed.
    Upgraded = 115,
    /// A connection that the worker itself encrypts.
    Tls = 116,
    /// A connection that speaks HTTP/2 and cannot be read: it was there before, or what is said on it is malformed.
    Http2 = 117,
    /// A connection that speaks uwsgi's protocol.
    Uwsgi = 118,
}

/// Every reason with its stable name.
pub const REASONS: [(Reason, &str); 19] = [
    (Reason::UnknownRecord, "unknown_record"),
    (Reason::ShortRecord, "short_record"),
    (Reason::Gap, "gap"),
    (Reason::NotHttp, "not_http"),
    (Reason::HeadTooLarge, "head_too_large"),
    (Reason::ConnectionsFull, "connections_full"),
    (Reason::ResponseWithoutRequest, "response_without_request"),
    (Reason::Cut, "cut"),
    (Reason::UnknownProcess, "unknown_process"),
    (Reason::BadSw8, "bad_sw8"),
    (Reason::ParserPanic, "parser_panic"),
    (Reason::QueueFull, "queue_full"),
    (Reason::SendFailed, "send_failed"),
    (Reason::PipelineTooDeep, "pipeline_too_deep"),
    (Reason::FactsGone, "facts_gone"),
    (Reason::Upgraded, "upgraded"),
    (Reason::Tls, "tls"),
    (Reason::Http2, "http2"),
    (Reason::Uwsgi, "uwsgi"),
];

/// Why a request was left out on purpose; that is no loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Omission {
    /// Its method is ignored.
    IgnoredMethod,
    /// Its path is like one that is ignored.
    IgnoredPath,
    /// Its path ends as one that is ignored.
    IgnoredSuffix,
    /// Its framework's plugin is disabled.
    DisabledPlugin,
    /// Its process had as many segments as it may in these three seconds.
    NotSampled,
}

/// Every omission with its stable name.
pub const OMISSIONS: [(Omission, &str); 5] = [
    (Omission::IgnoredMethod, "ignored_method"),
    (Omission::IgnoredPath, "ignored_path"),
    (Omission::IgnoredSuffix, "ignored_suffix"),
    (Omission::DisabledPlugin, "disabled_plugin"),
    (Omission::NotSampled, "not_sampled"),
];

/// Counts per [`Omission`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Omissions([u64; OMISSIONS.len()]);

impl Omissions {
    /// Counts one.
    pub fn count(&mut self, omission: Omission) {
        if let Some(slot) = self.0.get_mut(omission as usize) {
            *slot = slot.saturating_add(1);
        }
    }

    /// Every omission that counted something, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OMISSIONS.iter().zip(self.0).filter(|(_, n)| *n > 0).map(|((_, name), n)| (*name, n))
    }
}

/// Counts per [`Reason`] of a part that has a single owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; REASONS.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: Reason) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub fn add(&mut self, reason: Reason, n: u64) {
        if let Some(slot) = self.0.get_mut(index(reason)) {
            *slot = slot.saturating_add(n);
        }
    }

    /// How many of this reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0.get(index(reason)).copied().unwrap_or(0)
    }

    /// Every reason that counted something, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.iter().zip(self.0).filter(|(_, n)| *n > 0).map(|((_, name), n)| (*name, n))
    }
}

/// Counts per [`Reason`] shared between tasks.
#[derive(Debug, Default)]
pub struct SharedDrops([AtomicU64; REASONS.len()]);

impl SharedDrops {
    /// Counts several.
    pub fn add(&self, reason: Reason, n: u64) {
        if let Some(slot) = self.0.get(index(reason)) {
            slot.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// A copy of the counts.
    pub fn snapshot(&self) -> Drops {
        let mut drops = Drops::default();
        for (slot, value) in drops.0.iter_mut().zip(&self.0) {
            *slot = value.load(Ordering::Relaxed);
        }
        drops
    }
}

fn index(reason: Reason) -> usize {
    usize::from(reason as u16) - usize::from(Reason::UnknownRecord as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_numbers() {
        for (at, (reason, _)) in REASONS.iter().enumerate() {
            assert_eq!(index(*reason), at);
        }
    }

    #[test]
    fn only_what_was_counted_is_named() {
        let shared = SharedDrops::default();
        shared.add(Reason::Gap, 2);
        assert_eq!(shared.snapshot().named().collect::<Vec<_>>(), [("gap", 2)]);
    }
}
