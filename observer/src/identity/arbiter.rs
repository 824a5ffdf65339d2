//! What an arbiter is about: asked to reload, to shrink, to end, or losing workers as fast as it forks them.
use super::Facts;
use super::cause::Cause;
use super::cause::Signal;
use super::cause::is_stop;
use super::cause::signal;
use super::chronicle::Open;
use super::load::Class;
use super::naming::arguments;
use super::pressure::Pressure;
use crate::clock::KernelTime;

const SECOND: u64 = 1_000_000_000;
/// How long after TTOU or WINCH a worker that is asked to end is meant by it, and after HUP one that is younger than it.
const NEARBY: u64 = 10 * SECOND;
/// How long after WINCH that is so: a daemon asks all of its workers at once, and in the foreground it means nothing (a
/// terminal's size).
const AT_ONCE: u64 = SECOND;
/// Deaths in a row that make a crash loop: more than gunicorn needs to notice a worker that says it cannot boot.
const LOOP: u32 = 5;
/// A worker that dies this soon after it was ready counts as one that did not boot, in nanoseconds.
const EARLY: u64 = 10 * SECOND;
/// A loop is over when a worker serves and none died for so long, in nanoseconds.
const CALM: u64 = 30 * SECOND;

/// What is known of one arbiter beside what is known of every process.
#[derive(Clone, Debug, Default)]
pub struct Arbiter {
    reloaded: Option<KernelTime>,
    shrunk: Option<KernelTime>,
    winched: Option<KernelTime>,
    /// Why it ends, if it does.
    pub ending: Option<Cause>,
    /// Whether a worker of it ever was ready.
    pub served: bool,
    /// The worker it forked last for a slot: none since the last slot was made.
    pub newest: Option<u32>,
    /// A reload under way.
    pub reload: Option<Open>,
    /// An upgrade under way.
    pub upgrade: Option<Upgrade>,
    /// Workers that die.
    pub deaths: Deaths,
    /// Workers that ended so that it forks others, though nobody had asked for that.
    pub respawns: u64,
    /// How its workers serve.
    pub class: Class,
    /// How long a worker may be without a beat before it kills it, in nanoseconds, where it was told; 0 is for ever.
    pub timeout: Option<u64>,
    /// Whether they keep up.
    pub pressure: Pressure,
}

/// An upgrade under way.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Its event.
    pub event: Open,
    /// The new master, once it was forked.
    pub child: Option<u32>,
}

/// Workers that die before they are of use.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    /// In a row.
    pub count: u32,
    first: KernelTime,
    last: KernelTime,
    /// Why the last one died.
    pub cause: Option<Cause>,
    /// The event, once it is a loop.
    pub event: Option<Open>,
    /// When that was last said.
    pub said: KernelTime,
}

impl Arbiter {
    /// What it was told of its workers: read once, since every tick asks for it.
    pub fn told(&mut self, facts: &Facts) {
        self.class = arguments::class(facts);
        self.timeout = arguments::timeout(facts).map(|seconds| seconds.saturating_mul(SECOND));
    }

    /// A signal reached it.
    pub fn sent(&mut self, sent: &Signal) {
        match sent.number {
            signal::HUP => self.reloaded = Some(sent.at),
            signal::TTOU => self.shrunk = Some(sent.at),
            signal::WINCH => self.winched = Some(sent.at),
            number if is_stop(number) => {
                self.ending.get_or_insert(Cause::Shutdown);
            }
            _ => {}
        }
    }

    /// When it was told to reload last.
    pub fn reloaded(&self) -> Option<KernelTime> {
        self.reloaded
    }

    /// Why it asks a worker to end that was forked at `forked`, if that was seen; unknown where the arbiter may have been
    /// asked before it was watched.
    pub fn why(&self, now: KernelTime, forked: Option<KernelTime>, blind: bool) -> Cause {
        let older =
            |than: &Option<KernelTime>| than.is_some_and(|at| forked.is_none_or(|forked| forked <= at));
        let within = |at: &Option<KernelTime>, limit| at.is_some_and(|at| now.since(at) < limit);
        let nearby = |at: &Option<KernelTime>| within(at, NEARBY);
        let winched = self.winched > self.shrunk;
        if let Some(cause) = self.ending {
            cause
        } else if older(&self.reloaded) {
            Cause::Reload
        } else if within(&self.winched, AT_ONCE) && winched {
            Cause::Upgrade
        } else if nearby(&self.shrunk) {
            Cause::ScaleDown
        } else if nearby(&self.reloaded) {
            Cause::Reload // a dirty arbiter forks two more and ends these
        } else if blind {
            Cause::Unknown
        } else {
            Cause::Asked
        }
    }

    /// Whether a worker that was forked then is to go because of the reload under way.
    pub fn replaces(&self, forked: Option<KernelTime>) -> bool {
        self.reloaded.is_some_and(|at| forked.is_none_or(|forked| forked <= at))
    }
}

impl Deaths {
    /// A worker died; `served` is how long after it was ready, in nanoseconds. Whether this is to be told as one.
    pub fn note(&mut self, at: KernelTime, served: Option<u64>, cause: Cause) -> bool {
        if served.is_some_and(|served| served > EARLY) || !cause.is_trouble() || cause == Cause::Killed {
            return true;
        }
        if self.count == 0 {
            self.first = at;
        }
        self.count = self.count.saturating_add(1);
        (self.last, self.cause) = (at, Some(cause));
        self.event.is_none() || served.is_some()
    }

    /// Whether it has become a loop and nobody said so yet.
    pub fn is_new_loop(&self) -> bool {
        self.count >= LOOP && self.event.is_none()
    }

    /// When the first of them died.
    pub fn first(&self) -> KernelTime {
        self.first
    }

    /// How many per minute, of those in a row.
    pub fn per_minute(&self) -> u64 {
        let took = self.last.since(self.first).max(SECOND / 10);
        u64::from(self.count.saturating_sub(1)).saturating_mul(60 * SECOND) / took
    }

    /// Whether none died for a while.
    pub fn is_calm(&self, now: KernelTime) -> bool {
        self.count > 0 && now.since(self.last) >= CALM
    }
}
