//! The numbers of a living interpreter.
use procfs::process::Process;

use super::image::Images;
use super::layout::Gil;
use super::layout::Layout;
use super::layout::Stats;
use super::memory::Memory;

/// Thread states that are counted; beyond, none is said.
const THREADS: u64 = 4_096;
/// More than any counter can have reached.
const COUNTER_END: u64 = 1 << 48;
/// More than the interpreter lock's structure has, in bytes (`struct _gil_runtime_state`).
const GIL_BYTES: u64 = 256;
/// Runs that the rings of 3.15 keep: of the youngest generation and of each of the others
/// (`Include/internal/pycore_interp_structs.h`).
const RINGS: [usize; 3] = [11, 3, 3];
/// Words of one run in a ring.
const RUN: usize = 8;
/// Words of all rings, the index behind each included, and the number of changes behind all.
const RINGS_WORDS: usize = (11 + 3 + 3) * RUN + 3 + 1;

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
    /// Time in the collector, in nanoseconds, where the interpreter keeps it.
    pub gc_ns: Option<u64>,
}

/// An interpreter whose numbers can be read.
#[derive(Debug)]
pub struct Runtime {
    memory: Memory,
    layout: Layout,
    runtime: u64,
    last: Numbers,
}

/// Why an interpreter's numbers cannot be read, and whether its file is new, so that this is worth saying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its version.
    pub version: String,
    /// Whether its file was looked at for the first time.
    pub is_new: bool,
}

impl Runtime {
    /// Finds the interpreter of a process; nothing for a process without one.
    ///
    /// # Errors
    /// A release or build whose layout is not known, or memory that may not be read.
    pub fn find(pid: u32, images: &mut Images) -> Option<Result<Runtime, Unreadable>> {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        let (placed, is_new) = images.find(&process)?;
        let found = Memory::open(pid).and_then(|memory| {
            let runtime = placed.runtime();
            let minor = placed.image.minor;
            let table = |memory: &Memory| Layout::table(minor, &memory.words(runtime)?);
            let layout = Layout::known(minor).or_else(|| table(&memory))?;
            let mut found = Runtime { memory, layout, runtime, last: Numbers::default() };
            found.read()?;
            Some(found)
        });
        Some(found.ok_or_else(|| Unreadable { version: placed.version(None), is_new }))
    }

    /// Reads the numbers now; nothing when they make no sense: the process ended, replaced its program, or was changing
    /// them.
    pub fn read(&mut self) -> Option<Numbers> {
        let interpreter = self.memory.word(self.runtime + self.layout.main)?;
        let (generations, gc_ns) = self.collector(interpreter)?;
        let threads = self.threads(interpreter)?;
        let [_, locked] = self.memory.words(self.gil(interpreter)? + 8)?;
        // An `int`: the upper half is padding.
        let gil_locked = match locked & 0xffff_ffff {
            0 => false,
            1 => true,
            _ => return None,
        };
        let numbers = Numbers { generations, threads, gil_locked, gc_ns };
        let counters = |numbers: &Numbers| numbers.generations.as_flattened().to_vec();
        let is_later = counters(&self.last).iter().zip(counters(&numbers)).all(|(then, now)| *then <= now);
        if !is_later || numbers.gc_ns < self.last.gc_ns {
            return None;
        }
        self.last = numbers;
        Some(numbers)
    }

    /// Address and length in bytes of the structure of the interpreter lock: who waits for the lock sleeps in there.
    pub fn gil_range(&self) -> Option<(u64, u64)> {
        let interpreter = self.memory.word(self.runtime + self.layout.main)?;
        Some((self.gil(interpreter)?, GIL_BYTES))
    }

    fn gil(&self, interpreter: u64) -> Option<u64> {
        match self.layout.gil {
            Gil::Runtime(offset) => Some(self.runtime + offset),
            Gil::Pointer(offset) => self.memory.word(interpreter + offset),
        }
    }

    fn threads(&self, interpreter: u64) -> Option<u64> {
        let mut thread = self.memory.word(interpreter + self.layout.threads)?;
        let mut count = 0;
        while thread != 0 {
            let [next, its] = self.memory.words(thread + self.layout.next)?;
            if its != interpreter || count >= THREADS {
                return None;
            }
            (thread, count) = (next, count + 1);
        }
        (count > 0).then_some(count)
    }

    fn collector(&self, interpreter: u64) -> Option<([Counters; 3], Option<u64>)> {
        let at = match self.layout.stats {
            Stats::Runtime(offset) => self.runtime + offset,
            Stats::Interpreter(offset) => interpreter + offset,
            Stats::Rings(offset) => {
                let at = self.memory.word(interpreter + offset)?;
                let words = self.memory.words::<RINGS_WORDS>(at)?;
                let changes = self.memory.words::<RINGS_WORDS>(at)?.last().copied();
                return (words.last().copied() == changes).then(|| rings(&words))?;
            }
        };
        let [a, b, c, d, e, f, g, h, i] = self.memory.words(at)?;
        let generations = [[a, b, c], [d, e, f], [g, h, i]];
        are_counters(&generations).then_some((generations, None))
    }
}

/// The last run of each generation in the rings of 3.15; each run has the sums so far.
fn rings(words: &[u64]) -> Option<([Counters; 3], Option<u64>)> {
    let mut generations = [[0; 3]; 3];
    let (mut rest, mut seconds) = (words, 0.0);
    for (generation, runs) in generations.iter_mut().zip(RINGS) {
        let (ring, after) = rest.split_at_checked(runs * RUN)?;
        let (index, after) = after.split_first()?;
        let index = usize::try_from(index & 0xff).ok().filter(|index| *index < runs)?;
        let run = ring.get(index * RUN..)?;
        let [_, _, counters @ .., _, duration, _] = *run.first_chunk::<RUN>()?;
        *generation = counters;
        seconds += f64::from_bits(duration);
        rest = after;
    }
    let is_time = seconds.is_finite() && (0.0..1e9).contains(&seconds);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    (is_time && are_counters(&generations)).then_some((generations, Some((seconds * 1e9) as u64)))
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
        assert_eq!((generations, gc_ns), ([[30, 31, 32], [3, 4, 5], [0; 3]], Some(750_000_000)));
        words[11 * RUN] = 11;
        assert_eq!(rings(&words), None);
        words[11 * RUN] = 10;
        words[young + 6] = f64::NAN.to_bits();
        assert_eq!(rings(&words), None);
    }

    #[test]
    fn a_process_without_an_interpreter_has_none() {
        assert!(Runtime::find(std::process::id(), &mut Images::default()).is_none());
    }
}
