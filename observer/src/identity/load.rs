//! How busy one worker is: what it accepted and serves, how long requests waited, how late its loop is. Pure.
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::ProcessKey;
use crate::clock::KernelTime;

/// What the kernel says of the queues of some processes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queues {
    /// The sockets that they listen on.
    pub listeners: Vec<Listener>,
    /// Their accepted connections that nobody reads; of every process that could be looked at.
    pub unread: Vec<Unread>,
    /// Connections that found no place, for each holder of a listener.
    pub overflows: Vec<Overflow>,
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Who holds it: of a process and its child the process.
    pub holder: ProcessKey,
    /// `127.0.0.1:8000`, `[::]:8000`, `unix:/run/shop.sock`, `unix:@name`.
    pub address: String,
    /// Connections that wait to be accepted.
    pub depth: u32,
    /// Its backlog: the kernel lets one more wait, then it refuses (Linux, `sk_acceptq_is_full`).
    pub limit: u32,
}

impl Listener {
    /// Whether a connection more finds no place.
    pub fn is_full(&self) -> bool {
        self.depth > self.limit
    }
}

/// Accepted connections with bytes that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Whose.
    pub process: ProcessKey,
    /// How many.
    pub connections: u32,
    /// How long the bytes of one of them have been seen to lie there unchanged, in nanoseconds.
    pub oldest_ns: u64,
}

/// Counters of a network namespace (`TcpExt` of `proc_pid_net(5)`): all of its listeners together, SYNs that are sent
/// again included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflow {
    /// A process that listens there.
    pub process: ProcessKey,
    /// `ListenOverflows`: the accept queue was full.
    pub overflows: u64,
    /// `ListenDrops`: that, and every other reason.
    pub drops: u64,
}

/// How a worker serves: gunicorn's worker classes, as far as they differ in what saturates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// One request at a time.
    Sync,
    /// So many at a time, in threads.
    Threads(u32),
    /// As many as there are, in one loop.
    Loop,
    /// Not known.
    #[default]
    Unknown,
}

impl Class {
    /// From gunicorn's settings `worker_class` and `threads`. Sync with threads is gthread (`config.py`).
    pub fn of(name: Option<&str>, threads: Option<u32>) -> Class {
        const LOOPS: [&str; 7] = ["asgi", "async", "gevent", "eventlet", "tornado", "uvicorn", "aiohttp"];
        let name = name.unwrap_or("sync").to_ascii_lowercase();
        let last = name.rsplit(['.', ':', '#']).next().unwrap_or_default();
        if LOOPS.iter().any(|word| name.contains(word)) {
            Class::Loop
        } else if last.contains("thread") {
            Class::Threads(threads.unwrap_or(1))
        } else if ["sync", "syncworker"].contains(&last) {
            threads.filter(|threads| *threads > 1).map_or(Class::Sync, Class::Threads)
        } else {
            Class::Unknown
        }
    }

    /// How many requests a worker serves at a time, where that is limited.
    pub fn capacity(self) -> Option<u32> {
        match self {
            Class::Sync => Some(1),
            Class::Threads(threads) => Some(threads),
            Class::Loop | Class::Unknown => None,
        }
    }
}

/// What one worker does, since it is watched.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Connections that it accepted.
    pub accepts: u64,
    /// Requests that it served.
    pub requests: u64,
    /// Bytes that it read from WebSockets after their handshake.
    pub websocket_received: u64,
    /// Bytes that it wrote to them.
    pub websocket_sent: u64,
    in_flight: u32,
    most: u32,
    busy_since: Option<KernelTime>,
    busy_ns: u64,
    waits: Waits,
    /// How late its loop was at worst, in nanoseconds.
    late_ns: Option<u64>,
    taken: Option<KernelTime>,
}

/// What one worker did in a period.
#[derive(Clone, Debug, PartialEq)]
pub struct Turnover {
    /// Connections that it accepted since it is watched.
    pub accepts: u64,
    /// Requests that it served since it is watched.
    pub requests: u64,
    /// Bytes that it read from WebSockets since it is watched, after their handshake.
    pub websocket_received: u64,
    /// Bytes that it wrote to them.
    pub websocket_sent: u64,
    /// Requests that it has read and not answered.
    pub in_flight: u32,
    /// The most of them at one time of the period.
    pub most_in_flight: u32,
    /// Part of the period in which there was at least one.
    pub busy: f64,
    /// How long half, nine tenths and 99 of 100 of its requests waited at most, in nanoseconds; nothing when it read
    /// none of which that is known.
    pub waits: Option<[u64; 3]>,
    /// How late its loop was at worst, in nanoseconds.
    pub late_ns: Option<u64>,
}

impl Load {
    /// It has so many requests more, or fewer, than before.
    pub fn changed(&mut self, at: KernelTime, from: u32, to: u32) {
        let now = self.in_flight.saturating_add(to).saturating_sub(from);
        match (self.in_flight, now) {
            (0, 1..) => self.busy_since = Some(at),
            (1.., 0) => {
                let since = self.busy_since.take();
                self.busy_ns += since.map_or(0, |since| at.since(since));
            }
            _ => {}
        }
        self.in_flight = now;
        self.most = self.most.max(now);
    }

    /// It read a request that had waited so long, in nanoseconds.
    pub fn waited(&mut self, ns: u64) {
        self.waits.note(ns);
        self.late(ns);
    }

    /// Its loop was so late, in nanoseconds.
    pub fn late(&mut self, ns: u64) {
        self.late_ns = self.late_ns.max(Some(ns));
    }

    /// Requests that it has read and not answered.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Closes a period. The first one began when the worker was `ready`.
    pub fn take(&mut self, at: KernelTime, ready: Option<KernelTime>) -> Turnover {
        let from = self.taken.or(ready).unwrap_or(at);
        if let Some(since) = self.busy_since.as_mut() {
            self.busy_ns += at.since(*since);
            *since = at;
        }
        let period = at.since(from);
        let busy = std::mem::take(&mut self.busy_ns).min(period);
        self.taken = Some(at);
        Turnover {
            accepts: self.accepts,
            requests: self.requests,
            websocket_received: self.websocket_received,
            websocket_sent: self.websocket_sent,
            in_flight: self.in_flight,
            most_in_flight: std::mem::replace(&mut self.most, self.in_flight),
            busy: if period == 0 { 0.0 } else { busy as f64 / period as f64 },
            waits: std::mem::take(&mut self.waits).percentiles(),
            late_ns: self.late_ns.take(),
        }
    }
}

/// How many requests waited how long: eight classes for each doubling, so that a class is at most an eighth wide.
#[derive(Clone, Debug, Default)]
struct Waits {
    classes: BTreeMap<u32, u32>,
    count: u64,
}

impl Waits {
    fn note(&mut self, ns: u64) {
        *self.classes.entry(class(ns)).or_default() += 1;
        self.count += 1;
    }

    fn percentiles(&self) -> Option<[u64; 3]> {
        (self.count > 0).then(|| [50, 90, 99].map(|percent| self.percentile(percent)))
    }

    /// The upper end of the class in which the last of `percent` of 100 lies.
    fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut below = 0;
        for (class, count) in &self.classes {
            below += u64::from(*count);
            if below >= rank {
                return upper(*class);
            }
        }
        0
    }
}

/// Below eight each number is a class; then the three bits behind the highest one tell them apart.
fn class(ns: u64) -> u32 {
    let Some(log) = ns.checked_ilog2().filter(|log| *log >= 3) else {
        return u32::try_from(ns).unwrap_or(0);
    };
    let place = u32::try_from(ns >> (log - 3) & 7).unwrap_or(0);
    (log - 2) * 8 + place
}

fn upper(class: u32) -> u64 {
    match class / 8 {
        0 => u64::from(class),
        octave => (u64::from(class % 8 + 8) << (octave - 1)) + ((1 << (octave - 1)) - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn classes_are_gunicorns() {
        let named = |name, threads| Class::of(name, threads);
        assert_eq!((named(None, None), named(None, Some(4))), (Class::Sync, Class::Threads(4)));
        assert_eq!(named(Some("gthread"), None), Class::Threads(1));
        assert_eq!(named(Some("gunicorn.workers.gthread.ThreadWorker"), Some(8)), Class::Threads(8));
        for name in ["gevent", "uvicorn.workers.UvicornWorker", "asgi", "tornado", "egg:gunicorn#eventlet"] {
            assert_eq!(named(Some(name), Some(4)), Class::Loop, "{name}");
        }
        assert_eq!(named(Some("gunicorn.workers.sync.SyncWorker"), None), Class::Sync);
        assert_eq!(named(Some("shop.workers.Mine"), None), Class::Unknown);
        assert_eq!((Class::Sync.capacity(), Class::Loop.capacity()), (Some(1), None));
    }

    #[test]
    fn a_class_of_waits_is_an_eighth_wide() {
        for ns in
            (0..64).flat_map(|shift| [1_u64 << shift, (1 << shift) + (1 << shift) / 3, (1 << shift) - 1])
        {
            let upper = upper(class(ns));
            assert!(upper >= ns && upper - ns <= ns / 8, "{ns} is in the class up to {upper}");
            assert!(class(ns) <= class(ns.saturating_add(1)));
        }
        assert_eq!(upper(class(u64::MAX)), u64::MAX);
    }

    #[test]
    fn busy_is_the_time_with_a_request() {
        let mut load = Load::default();
        let at = |s: u64| KernelTime(s * S);
        load.changed(at(11), 0, 1);
        load.changed(at(12), 1, 2);
        load.changed(at(13), 2, 0);
        load.changed(at(18), 0, 1);
        let first = load.take(at(20), Some(at(10)));
        assert_eq!((first.in_flight, first.most_in_flight), (1, 2));
        assert!((first.busy - 0.4).abs() < 1e-9, "{first:?}");
        load.changed(at(25), 1, 0);
        let second = load.take(at(30), Some(at(10)));
        assert_eq!((second.in_flight, second.most_in_flight), (0, 1));
        assert!((second.busy - 0.5).abs() < 1e-9, "{second:?}");
        assert_eq!((second.waits, second.late_ns), (None, None));
    }

    #[test]
    fn percentiles_are_of_the_period() {
        let mut load = Load::default();
        (1..=100).for_each(|ms| load.waited(ms * 1_000_000));
        let taken = load.take(KernelTime(S), None);
        let [half, most, nearly_all] = taken.waits.unwrap().map(|ns| ns as f64 / 1e6);
        assert!((50.0..57.0).contains(&half) && (90.0..102.0).contains(&most), "{half} {most}");
        assert!((99.0..112.0).contains(&nearly_all));
        assert_eq!(taken.late_ns, Some(100_000_000));
        assert_eq!(load.take(KernelTime(2 * S), None).waits, None);
    }
}
