//! Whether a master's workers keep up: what was seen of them and of their queues, and since when. Pure.
use super::ProcessKey;
use super::chronicle::Open;
use super::load::Class;
use super::load::Listener;
use crate::clock::KernelTime;

const SECOND: u64 = 1_000_000_000;
/// How long it must be so before it is said, in nanoseconds: longer than a burst.
pub const LASTS: u64 = 5 * SECOND;
/// For how long it must not be so before it is over, in nanoseconds.
const CALM: u64 = 3 * SECOND;

/// What cannot keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Every worker serves as many requests as it can.
    Pool,
    /// Connections wait to be accepted.
    AcceptQueue,
    /// A loop does not come round.
    Loop,
}

impl Cause {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Pool => "pool",
            Cause::AcceptQueue => "accept-queue",
            Cause::Loop => "loop",
        }
    }
}

/// What the kernel says of a master's queues at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The fullest of its listeners and those of its workers; with it comes the worker that alone listens there.
    pub fullest: Option<(Listener, Option<ProcessKey>)>,
    /// Accepted connections that nobody reads.
    pub unread: u32,
    /// How long one of them is known to wait, in nanoseconds.
    pub oldest_ns: u64,
}

impl Look {
    fn depth(&self) -> u32 {
        self.fullest.as_ref().map_or(0, |(listener, _)| listener.depth)
    }

    fn is_full(&self) -> bool {
        self.fullest.as_ref().is_some_and(|(listener, _)| listener.is_full())
    }

    /// Takes a listener in, if it is fuller than those before.
    pub fn add(&mut self, listener: &Listener, worker: Option<ProcessKey>) {
        let rank = |listener: &Listener| (listener.is_full(), listener.depth);
        if self.fullest.as_ref().is_none_or(|(fullest, _)| rank(listener) > rank(fullest)) {
            self.fullest = Some((listener.clone(), worker));
        }
    }
}

/// A `Saturated` event under way.
#[derive(Clone, Debug)]
pub struct Saturated {
    /// Its event.
    pub event: Open,
    /// What was said last.
    pub cause: Cause,
    /// When it was first seen not to be so any more.
    calm: Option<KernelTime>,
}

/// What is known of the pressure on one master's workers.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    /// At each tick since, every worker had as many requests as it can serve.
    busy: Option<KernelTime>,
    /// At each look since, connections waited to be accepted, and not fewer than at the one before.
    queued: Option<KernelTime>,
    /// When that was looked at last.
    looked: KernelTime,
    /// What was seen then.
    pub look: Look,
    /// The event, once it was said.
    pub event: Option<Saturated>,
}

/// What has to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It began then.
    Begins(KernelTime, Cause),
    /// It goes on for another cause.
    Turns(Cause),
    /// It was over then.
    Over(KernelTime),
}

impl Pressure {
    /// A tick: whether every worker is busy now.
    pub fn ticked(&mut self, at: KernelTime, all_busy: bool) {
        self.busy = if all_busy { self.busy.or(Some(at)) } else { None };
    }

    /// A look at the queues.
    pub fn looked(&mut self, at: KernelTime, look: Look) {
        let (before, depth) = (self.look.depth(), look.depth());
        self.queued = match self.queued {
            _ if depth == 0 => None,
            Some(since) if depth >= before || look.is_full() => Some(since),
            _ => Some(at),
        };
        (self.looked, self.look) = (at, look);
    }

    /// Whether another look is worth it.
    pub fn is_near(&self) -> bool {
        self.event.is_some() || self.look.depth() > 0 || self.look.unread > 0
    }

    /// Since when the workers do not keep up, and why.
    pub fn saturated(&self, class: Class, now: KernelTime) -> Option<(KernelTime, Cause)> {
        let busy = self.busy.filter(|since| now.since(*since) >= LASTS);
        let full = self.look.is_full();
        let queued = self.queued.filter(|since| full || self.looked.since(*since) >= LASTS);
        let oldest = self.look.oldest_ns;
        let unread = (oldest >= LASTS).then(|| KernelTime(self.looked.0.saturating_sub(oldest)));
        let cause = match class {
            Class::Loop => Cause::Loop,
            Class::Sync | Class::Threads(_) | Class::Unknown if queued.is_some() => Cause::AcceptQueue,
            Class::Sync | Class::Threads(_) | Class::Unknown => Cause::Pool,
        };
        [busy, queued, unread].into_iter().flatten().min().map(|since| (since, cause))
    }

    /// What has to be said now.
    pub fn word(&mut self, class: Class, now: KernelTime) -> Option<Word> {
        let saturated = self.saturated(class, now);
        match (&mut self.event, saturated) {
            (None, None) => None,
            (None, Some((since, cause))) => Some(Word::Begins(since, cause)),
            (Some(event), Some((_, cause))) => {
                event.calm = None;
                (cause > event.cause).then_some(Word::Turns(cause))
            }
            (Some(event), None) => {
                let calm = *event.calm.get_or_insert(now);
                (now.since(calm) >= CALM).then_some(Word::Over(calm))
            }
        }
    }

    /// It was said that it began.
    pub fn begun(&mut self, event: Open, cause: Cause) {
        self.event = Some(Saturated { event, cause, calm: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> KernelTime {
        KernelTime(ms * SECOND / 1000)
    }

    fn look(depth: u32, unread: u32, oldest_s: u64) -> Look {
        let holder = ProcessKey { pid: 10, start: 1 };
        let listener = Listener { holder, address: "127.0.0.1:8000".to_owned(), depth, limit: 8 };
        Look { fullest: Some((listener, None)), unread, oldest_ns: oldest_s * SECOND }
    }

    fn open() -> Open {
        crate::identity::chronicle::Chronicle::new(1, crate::clock::WallOffset(0)).begin(at(0))
    }

    #[test]
    fn a_full_queue_is_said_at_once() {
        let mut pressure = Pressure::default();
        pressure.looked(at(0), look(8, 0, 0));
        assert_eq!(pressure.word(Class::Sync, at(0)), None, "one more has room");
        pressure.looked(at(2_000), look(9, 0, 0));
        assert_eq!(pressure.word(Class::Sync, at(2_000)), Some(Word::Begins(at(0), Cause::AcceptQueue)));
    }

    #[test]
    fn a_queue_that_does_not_shrink_is_said_after_a_while() {
        let mut pressure = Pressure::default();
        for (ms, depth) in [(0, 3), (2_000, 2), (4_000, 2), (6_000, 3)] {
            pressure.looked(at(ms), look(depth, 0, 0));
            assert_eq!(pressure.saturated(Class::Sync, at(ms)), None, "{ms}");
        }
        pressure.looked(at(7_000), look(3, 0, 0));
        assert_eq!(pressure.saturated(Class::Sync, at(7_000)), Some((at(2_000), Cause::AcceptQueue)));
        assert_eq!(pressure.saturated(Class::Loop, at(7_000)), Some((at(2_000), Cause::Loop)));
        pressure.looked(at(8_000), look(0, 0, 0));
        assert_eq!(pressure.saturated(Class::Sync, at(8_000)), None);
        // Time alone does not make it so: the next look does.
        pressure.looked(at(9_000), look(1, 0, 0));
        assert_eq!(pressure.saturated(Class::Sync, at(60_000)), None);
    }

    #[test]
    fn busy_workers_and_unread_connections_are_a_pool() {
        let mut pressure = Pressure::default();
        (0..=8).for_each(|n| pressure.ticked(at(n * 500), n != 2));
        assert_eq!(pressure.saturated(Class::Sync, at(6_000)), None);
        assert_eq!(pressure.saturated(Class::Sync, at(6_500)), Some((at(1_500), Cause::Pool)));
        let mut pressure = Pressure::default();
        pressure.looked(at(9_000), look(0, 3, 4));
        assert_eq!(pressure.saturated(Class::Threads(4), at(9_000)), None);
        pressure.looked(at(11_000), look(0, 3, 6));
        assert_eq!(pressure.saturated(Class::Threads(4), at(11_000)), Some((at(5_000), Cause::Pool)));
    }

    #[test]
    fn it_is_over_once_it_was_calm_for_a_while() {
        let mut pressure = Pressure::default();
        pressure.looked(at(0), look(9, 0, 0));
        pressure.begun(open(), Cause::Pool);
        assert_eq!(pressure.word(Class::Sync, at(0)), Some(Word::Turns(Cause::AcceptQueue)));
        pressure.looked(at(2_000), look(0, 0, 0));
        assert_eq!(pressure.word(Class::Sync, at(2_000)), None);
        assert!(pressure.is_near());
        pressure.looked(at(4_000), look(9, 0, 0));
        pressure.word(Class::Sync, at(4_000));
        pressure.looked(at(6_000), look(0, 0, 0));
        assert_eq!(pressure.word(Class::Sync, at(6_000)), None);
        assert_eq!(pressure.word(Class::Sync, at(9_000)), Some(Word::Over(at(6_000))));
    }
}
