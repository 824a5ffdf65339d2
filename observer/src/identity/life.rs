//! One process's life: its state, what was sent to it, and its heartbeat.
use super::cause::Cause;
use super::cause::Signal;
use super::cause::signal;
use super::load::Load;
use crate::clock::KernelTime;

/// Signals that are kept of one process: more than any orderly end takes.
const SIGNALS: usize = 16;
const MS: u64 = 1_000_000;
/// Heartbeats nearer to each other than this come from requests, not from idling, in nanoseconds.
const BUSY: u64 = 300 * MS;
/// After a process was found, how long what was sent to it before may still end it at least, in nanoseconds: gunicorn's
/// default for both of its timeouts.
pub const BLIND: u64 = 30_000 * MS;
/// Threaded and asynchronous workers beat every second (`workers/gthread.py` and others).
const SECOND: std::ops::Range<u64> = 900 * MS..1_200 * MS;
/// A worker that beats every second is in trouble after this many nanoseconds without, however long its timeout.
const LOOP_BLOCKED: u64 = 3_000 * MS;
/// Idle gaps that must agree before their length is believed.
const AGREEING: u32 = 3;

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Forked, and has not beaten yet.
    Booting,
    /// Has beaten.
    Ready,
    /// Was asked to end.
    Draining,
    /// Was aborted by its arbiter.
    TimedOut,
}

impl State {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            State::Booting => "booting",
            State::Ready => "ready",
            State::Draining => "draining",
            State::TimedOut => "timed-out",
        }
    }
}

/// What happened to one process so far.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// When it was forked, if that was seen.
    pub forked: Option<KernelTime>,
    /// When it was found, if it was there before.
    pub found: Option<KernelTime>,
    /// When it first beat or served.
    pub ready: Option<KernelTime>,
    /// When the last request began that it served.
    pub served: Option<KernelTime>,
    /// What was sent to it, in order.
    pub signals: Vec<Signal>,
    /// Why its arbiter asked it to end, if it did.
    pub asked: Option<Cause>,
    /// Its heartbeat.
    pub pulse: Pulse,
    /// What it serves.
    pub load: Load,
}

impl Life {
    /// Where it is.
    pub fn state(&self, arbiter: Option<u32>) -> State {
        let by_arbiter = |signal: &&Signal| Some(signal.sender) == arbiter;
        if self.signals.iter().filter(by_arbiter).any(|sent| sent.number == signal::ABRT) {
            State::TimedOut
        } else if self.asked.is_some() || self.signals.iter().any(|sent| super::cause::is_stop(sent.number)) {
            State::Draining
        } else if self.ready.is_some() {
            State::Ready
        } else {
            State::Booting
        }
    }

    /// Whether it may have been asked to end before it was found: not if it took up a request since, nor when the
    /// `longest` time to finish what it did is over, in nanoseconds.
    pub fn is_blind(&self, now: KernelTime, longest: u64) -> bool {
        self.found.is_some_and(|found| now.since(found) < longest && self.served.is_none_or(|at| at < found))
    }

    /// Keeps a signal, and of equal ones the first; the last one gives way when there are too many, since the first ones
    /// decide.
    pub fn sent(&mut self, signal: Signal) {
        let same = |known: &&Signal| {
            (known.number, known.sender, known.code) == (signal.number, signal.sender, signal.code)
        };
        if self.signals.iter().any(|known| same(&known)) {
            return;
        }
        self.signals.truncate(SIGNALS - 1);
        self.signals.push(signal);
    }
}

/// The heartbeat of a worker as seen from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    last: Option<KernelTime>,
    /// Length of the last idle gap, and how many before it were as long.
    gap: u64,
    agreeing: u32,
    /// It was seen to beat every second when idle.
    every_second: bool,
}

impl Pulse {
    /// A beat.
    pub fn beat(&mut self, at: KernelTime) {
        let gap = self.last.map_or(0, |last| at.since(last));
        self.last = Some(at);
        if gap >= BUSY {
            let agrees = gap.abs_diff(self.gap) <= self.gap / 8;
            self.agreeing = if agrees { self.agreeing.saturating_add(1) } else { 0 };
            self.gap = gap;
            self.every_second |= self.period().is_some_and(|period| SECOND.contains(&period));
        }
    }

    /// How much later than after a second the next beat is by now, in nanoseconds, for a worker that beats every
    /// second. What is within the tolerance of the period that was learned is not late.
    pub fn late(&self, now: KernelTime) -> Option<u64> {
        let age = self.age(now).filter(|_| self.every_second)?;
        Some(if age < SECOND.end { 0 } else { age - 1_000 * MS })
    }

    /// Nanoseconds since the last beat.
    pub fn age(&self, now: KernelTime) -> Option<u64> {
        self.last.map(|last| now.since(last))
    }

    /// The last beat.
    pub fn last(&self) -> Option<KernelTime> {
        self.last
    }

    /// Nanoseconds between two beats of the worker when it has nothing to do, once that is known.
    pub fn period(&self) -> Option<u64> {
        (self.agreeing >= AGREEING).then_some(self.gap)
    }

    /// After how many nanoseconds without a beat something is wrong; `timeout` is gunicorn's option in nanoseconds,
    /// if it is known. A worker that beats every half of its timeout is killed after two of its periods. Where neither
    /// is known, a long silence may be in order.
    pub fn limit(&self, timeout: Option<u64>) -> Option<u64> {
        let every_second = self.period().is_some_and(|period| SECOND.contains(&period));
        let learned = self.period().filter(|_| !every_second).map(|period| period.saturating_mul(2));
        let kills = timeout.or(learned).filter(|timeout| *timeout > 0).map(|timeout| timeout / 10 * 7);
        let blocked = every_second.then_some(LOOP_BLOCKED);
        kills.into_iter().chain(blocked).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(beats_ms: &[u64]) -> Pulse {
        let mut pulse = Pulse::default();
        beats_ms.iter().for_each(|ms| pulse.beat(KernelTime(ms * MS)));
        pulse
    }

    #[test]
    fn the_idle_period_is_learned_and_requests_do_not_disturb_it() {
        let idle: Vec<u64> = (0..6).map(|n| n * 15_000).collect();
        assert_eq!(pulse(&idle).period(), Some(15_000 * MS));
        assert_eq!(pulse(&[0, 15_000, 30_000, 45_000, 60_000, 60_010, 60_020]).period(), Some(15_000 * MS));
        assert_eq!(pulse(&[0, 700, 5_000, 6_000]).period(), None);
        assert_eq!(pulse(&[]).age(KernelTime(5)), None);
        assert_eq!(pulse(&[1, 2]).age(KernelTime(5 * MS)), Some(3 * MS));
    }

    #[test]
    fn lateness_is_that_of_a_worker_that_beats_every_second() {
        let mut every_second = pulse(&[0, 1_001, 2_002, 3_003, 4_004]);
        assert_eq!(every_second.late(KernelTime(5_100 * MS)), Some(0));
        assert_eq!(every_second.late(KernelTime(8_004 * MS)), Some(3_000 * MS));
        every_second.beat(KernelTime(8_004 * MS));
        assert_eq!(every_second.late(KernelTime(10_004 * MS)), Some(1_000 * MS), "it stays what it is");
        assert_eq!(pulse(&[0, 15_000, 30_000, 45_000, 60_000]).late(KernelTime(90_000 * MS)), None);
    }

    #[test]
    fn the_limit_comes_before_the_arbiters() {
        let every_second = pulse(&[0, 1_000, 2_000, 3_000, 4_000]);
        let sync = pulse(&[0, 6_000, 12_000, 18_000, 24_000]);
        assert_eq!(every_second.limit(None), Some(LOOP_BLOCKED));
        assert_eq!(every_second.limit(Some(2_000 * MS)), Some(1_400 * MS));
        assert_eq!(sync.limit(None), Some(8_400 * MS)); // a timeout of 12 s, learned
        assert_eq!(sync.limit(Some(30_000 * MS)), Some(21_000 * MS));
        assert_eq!(sync.limit(Some(0)), None);
        assert_eq!(Pulse::default().limit(Some(30_000 * MS)), Some(21_000 * MS));
        assert_eq!(Pulse::default().limit(None), None);
    }

    #[test]
    fn a_flood_of_signals_keeps_the_first() {
        let mut life = Life::default();
        for number in 1..100 {
            life.sent(Signal { at: KernelTime(0), number, code: 0, sender: 1, comm: String::new() });
        }
        assert_eq!((life.signals.len(), life.signals.first().map(|sent| sent.number)), (SIGNALS, Some(1)));
    }
}
