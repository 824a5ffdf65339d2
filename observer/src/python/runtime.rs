//! The numbers of a living interpreter.
use std::fs::File;

use procfs::process::Process;

use super::image::Images;
use super::image::Placed;
use super::layout::Gil;
use super::layout::Layout;
use super::layout::RINGS_WORDS;
use super::layout::Stats;
use super::memory::Memory;

/// Thread states that are counted; beyond, none is said.
const THREADS: u64 = 4_096;
/// More than any counter can have reached.
const COUNTER_END: u64 = 1 << 48;
/// In the structure of the lock, what threads that wait for it sleep on: two condition variables and their mutexes, of glibc
/// (`struct _gil_runtime_state`, `Include/internal/pycore_gil.h`).
const GIL_WAITERS: u64 = 32;
/// Runs that the rings of 3.15 keep: of the youngest generation and of each of the others
/// (`Include/internal/pycore_interp_structs.h`).
const RINGS: [usize; 3] = [11, 3, 3];
/// Words of one run in a ring.
const RUN: usize = 8;
/// How often numbers are read again when they make no sense: they may have been changing.
const ATTEMPTS: usize = 3;
/// From the counters down to the pointer to the youngest generation, and from there to that generation itself, in releases
/// without a table (`struct _gc_runtime_state`).
const YOUNGEST: [u64; 2] = [32, 72];
/// More nanoseconds than a process lives.
const TIME_END: f64 = 1e18;
/// More than a switch interval has, in microseconds.
const INTERVAL_END: u64 = 1 << 40;

/// Counters of one generation: runs, objects collected, objects that could not be.
pub type Counters = [u64; 3];

/// What an interpreter says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Per generation of the collector, youngest first.
    pub generations: [Counters; 3],
    /// Thread states of the main interpreter.
    pub threads: u64,
    /// Whether a thread holds the lock.
    pub gil_locked: bool,
    /// Whether that is the main thread.
    pub gil_main: bool,
    /// Time in the collector by generation, in nanoseconds, where the interpreter keeps it.
    pub gc_ns: Option<[u64; 3]>,
}

/// An interpreter whose numbers can be read.
#[derive(Debug)]
pub struct Runtime {
    memory: Memory,
    layout: Layout,
    placed: Placed,
    last: Numbers,
}

/// What the probes need to know of an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// Address of the collector's counters; nothing where it keeps its time itself.
    pub counters: Option<u64>,
    /// Address of what waiting threads sleep on; nothing where that is elsewhere.
    pub waiters: Option<u64>,
}

/// An interpreter whose numbers cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its version.
    pub version: String,
    /// Why not.
    pub why: Cause,
}

/// Why an interpreter's numbers cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its release or build is not known.
    Build,
    /// Its memory may not be read.
    Memory,
    /// What stands where the numbers should be is something else.
    Numbers,
}

impl Cause {
    /// For a log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Build => "this release or build is not known",
            Cause::Memory => {
                "its memory cannot be read: CAP_SYS_PTRACE helps, or a higher limit of open files"
            }
            Cause::Numbers => "they are not where this release has them",
        }
    }
}

impl Runtime {
    /// Finds the interpreter of a process; nothing for a process without one.
    ///
    /// # Errors
    /// A release or build whose layout is not known, or memory that may not be read or has something else there.
    pub fn find(pid: u32, images: &mut Images) -> Option<Result<Runtime, Unreadable>> {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        let placed = images.find(&process)?;
        let found = Runtime::at(placed.clone(), Memory::open(pid));
        if found.is_err() {
            images.find(&process)?; // it may have ended meanwhile
        }
        let version = || placed.version(Memory::open(pid).as_ref());
        Some(found.map_err(|why| Unreadable { version: version(), why }))
    }

    /// An interpreter of `3.minor` whose memory is a file and whose runtime stands at an address, for tests.
    ///
    /// # Errors
    /// As [`Runtime::find`].
    pub fn in_file(minor: u8, runtime: u64, memory: File) -> Result<Runtime, Cause> {
        Runtime::at(Placed::made_up(minor, runtime), Some(Memory::of(memory)))
    }

    fn at(placed: Placed, memory: Option<Memory>) -> Result<Runtime, Cause> {
        let memory = memory.ok_or(Cause::Memory)?;
        let (minor, runtime) = (placed.image.minor, placed.runtime());
        let known = Layout::known(minor);
        let table = || Layout::table(minor, &memory.words(runtime)?);
        let layout = known.or_else(table).ok_or(Cause::Build)?;
        let mut found = Runtime { memory, layout, placed, last: Numbers::default() };
        let is_there = known.is_none() || found.has_collector().is_some();
        found.read().filter(|_| is_there).ok_or(Cause::Numbers)?;
        Ok(found)
    }

    /// Of a release without a table it has to be shown that its collector is where the layout says: the pointer to the
    /// youngest generation points at its own surroundings.
    fn has_collector(&self) -> Option<()> {
        let interpreter = self.memory.word(self.placed.runtime().wrapping_add(self.layout.main))?;
        let (Stats::Runtime(_) | Stats::Interpreter(_)) = self.layout.stats else { return None };
        let [down, further] = YOUNGEST;
        let pointer = self.stats(interpreter)?.wrapping_sub(down);
        (self.memory.word(pointer)? == pointer.wrapping_sub(further)).then_some(())
    }

    /// Reads the numbers now; nothing when they make no sense: the process ended or replaced its program.
    pub fn read(&mut self) -> Option<Numbers> {
        let numbers = (0..ATTEMPTS).find_map(|_| self.numbers())?;
        self.last = numbers;
        Some(numbers)
    }

    fn numbers(&self) -> Option<Numbers> {
        let interpreter = self.memory.word(self.placed.runtime().wrapping_add(self.layout.main))?;
        let (generations, gc_ns) = self.collector(interpreter)?;
        let (threads, main) = self.threads(interpreter)?;
        let [interval, holder, locked] = self.memory.words(self.gil(interpreter)?)?;
        // An `int`: the upper half is padding.
        let gil_locked = match locked & 0xffff_ffff {
            0 => false,
            1 => true,
            _ => return None,
        };
        let gil_main = gil_locked && holder == main;
        let numbers = Numbers { generations, threads, gil_locked, gil_main, gc_ns };
        let mut pairs = self.last.generations.as_flattened().iter().zip(generations.as_flattened());
        let times = self.last.gc_ns.unwrap_or_default().into_iter().zip(gc_ns.unwrap_or_default());
        let is_later =
            pairs.all(|(then, now)| then <= now) && times.into_iter().all(|(then, now)| then <= now);
        (is_later && (1..INTERVAL_END).contains(&interval)).then_some(numbers)
    }

    /// Nothing when the interpreter's memory is gone. musl's condition variables sleep on their callers' stacks.
    pub fn anchors(&self) -> Option<Anchors> {
        let interpreter = self.memory.word(self.placed.runtime().wrapping_add(self.layout.main))?;
        let keeps_time = matches!(self.layout.stats, Stats::Rings(_));
        let gil = self.gil(interpreter)?;
        Some(Anchors {
            counters: self.stats(interpreter).filter(|_| !keeps_time),
            waiters: (!self.placed.musl).then(|| gil.wrapping_add(GIL_WAITERS)),
        })
    }

    /// Where it was found.
    pub fn placed(&self) -> &Placed {
        &self.placed
    }

    /// The interpreter's memory, and in it the dictionary of modules.
    pub(super) fn modules(&self) -> Option<(&Memory, u64)> {
        let interpreter = self.memory.word(self.placed.runtime().wrapping_add(self.layout.main))?;
        Some((&self.memory, self.memory.word(interpreter.wrapping_add(self.layout.modules))?))
    }

    fn gil(&self, interpreter: u64) -> Option<u64> {
        match self.layout.gil {
            Gil::Runtime(offset) => Some(self.placed.runtime().wrapping_add(offset)),
            Gil::Pointer(offset) => self.memory.word(interpreter.wrapping_add(offset)),
        }
    }

    fn stats(&self, interpreter: u64) -> Option<u64> {
        match self.layout.stats {
            Stats::Runtime(offset) => Some(self.placed.runtime().wrapping_add(offset)),
            Stats::Interpreter(offset) => Some(interpreter.wrapping_add(offset)),
            Stats::Rings(offset) => self.memory.word(interpreter.wrapping_add(offset)),
        }
    }

    /// How many there are, and the main one: it was the first, and new ones come before others.
    fn threads(&self, interpreter: u64) -> Option<(u64, u64)> {
        let mut thread = self.memory.word(interpreter.wrapping_add(self.layout.threads))?;
        let (mut count, mut last) = (0, 0);
        while thread != 0 {
            let [next, its] = self.memory.words(thread.wrapping_add(self.layout.next))?;
            if its != interpreter || count >= THREADS {
                return None;
            }
            (last, thread, count) = (thread, next, count + 1);
        }
        (count > 0).then_some((count, last))
    }

    fn collector(&self, interpreter: u64) -> Option<([Counters; 3], Option<[u64; 3]>)> {
        let at = self.stats(interpreter)?;
        if let Stats::Rings(_) = self.layout.stats {
            let words = self.memory.words::<RINGS_WORDS>(at)?;
            let after = self.memory.words::<RINGS_WORDS>(at)?;
            return (words.last() == after.last()).then(|| rings(&words))?;
        }
        let [a, b, c, d, e, f, g, h, i] = self.memory.words(at)?;
        let generations = [[a, b, c], [d, e, f], [g, h, i]];
        are_counters(&generations).then_some((generations, None))
    }
}

/// The last run of each generation in the rings of 3.15; each run has the sums so far.
fn rings(words: &[u64]) -> Option<([Counters; 3], Option<[u64; 3]>)> {
    let (mut generations, mut gc_ns) = ([[0; 3]; 3], [0; 3]);
    let mut rest = words;
    for ((generation, time), runs) in generations.iter_mut().zip(&mut gc_ns).zip(RINGS) {
        let (ring, after) = rest.split_at_checked(runs * RUN)?;
        let (index, after) = after.split_first()?;
        let index = usize::try_from(index & 0xff).ok().filter(|index| *index < runs)?;
        let run = ring.get(index * RUN..)?;
        let [_, _, counters @ .., _, duration, _] = *run.first_chunk::<RUN>()?;
        let ns = f64::from_bits(duration) * 1e9;
        let is_time = (0.0..TIME_END).contains(&ns); // and a number
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
        let ns = is_time.then_some(ns as u64)?;
        (*generation, *time) = (counters, ns);
        rest = after;
    }
    are_counters(&generations).then_some((generations, Some(gc_ns)))
}

fn are_counters(generations: &[Counters; 3]) -> bool {
    generations.as_flattened().iter().all(|counter| *counter < COUNTER_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_of_each_ring_counts() {
        let mut words = [0u64; RINGS_WORDS];
        let young = 10 * RUN;
        words[young + 2..young + 5].copy_from_slice(&[30, 31, 32]);
        words[young + 6] = 0.5f64.to_bits();
        words[11 * RUN] = 10;
        let old = 11 * RUN + 1;
        words[old + 2..old + 5].copy_from_slice(&[3, 4, 5]);
        words[old + 6] = 0.25f64.to_bits();
        let (generations, gc_ns) = rings(&words).unwrap();
        assert_eq!(
            (generations, gc_ns),
            ([[30, 31, 32], [3, 4, 5], [0; 3]], Some([500_000_000, 250_000_000, 0]))
        );
        words[11 * RUN] = 11;
        assert_eq!(rings(&words), None);
        words[11 * RUN] = 10;
        words[young + 6] = f64::NAN.to_bits();
        assert_eq!(rings(&words), None);
    }

    #[test]
    fn what_is_not_known_or_not_there_is_not_read() {
        let mut words = vec![0u64; 1 << 16];
        let why = |minor, words: &[u64]| {
            let placed = Placed::made_up(minor, words.as_ptr() as u64);
            Runtime::at(placed, Memory::open(std::process::id())).err()
        };
        for minor in 8..=12 {
            assert_eq!(why(minor, &words), Some(Cause::Numbers), "3.{minor}");
        }
        for minor in [6, 7, 13, 14, 15, 16] {
            assert_eq!(why(minor, &words), Some(Cause::Build), "3.{minor}");
        }
        words.fill(u64::MAX);
        assert_eq!(why(8, &words), Some(Cause::Numbers));
        assert_eq!(Runtime::at(Placed::made_up(8, 8), None).err(), Some(Cause::Memory));
    }

    #[test]
    fn a_process_without_an_interpreter_has_none() {
        assert!(Runtime::find(std::process::id(), &mut Images::default()).is_none());
    }
}
