//! How many requests of a connection wait for the end of their response, said whenever that changes.
use crate::clock::KernelTime;

/// The requests of one connection that a process has read and not answered are more or fewer than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The process (pid of the initial namespace).
    pub pid: u32,
    /// When.
    pub at: KernelTime,
    /// How many there were.
    pub from: u32,
    /// How many there are.
    pub to: u32,
    /// How long the last one had waited to be read, in nanoseconds, if it was read now and that is known.
    pub waited: Option<u64>,
}

/// The last request that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    pub(super) pid: u32,
    /// How many were read so far, with it.
    pub(super) number: u64,
    pub(super) waited: Option<u64>,
}

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pid: u32,
    waiting: u32,
    number: u64,
}

impl Counted {
    /// So many wait now. All of them are counted where the first one is, so that what is added is taken away again.
    pub(super) fn turn(&mut self, at: KernelTime, newest: Newest, waiting: usize) -> Option<Turn> {
        let (from, to) = (self.waiting, u32::try_from(waiting).unwrap_or(u32::MAX));
        let begun = newest.number != self.number;
        if from == to && !begun {
            return None;
        }
        if from == 0 {
            self.pid = newest.pid;
        }
        (self.waiting, self.number) = (to, newest.number);
        Some(Turn { pid: self.pid, at, from, to, waited: newest.waited.filter(|_| begun) })
    }
}
