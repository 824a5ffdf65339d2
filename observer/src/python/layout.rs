//! Where CPython keeps its numbers, by version: `offsetof` against each release's own internal headers.

/// Words of the table of offsets that are read: up to the collector's.
pub const TABLE: usize = 99;
/// How the table begins (`Include/internal/pycore_debug_offsets.h`, from 3.13).
const COOKIE: [u8; 8] = *b"xdebugpy";

/// Three counters for each of three generations, in bytes.
pub const COUNTERS_BYTES: u64 = 72;
/// Words of the rings of 3.15: eleven runs of the youngest generation, three of each of the others, eight words each; an
/// index behind each ring and the number of changes behind all (`Include/internal/pycore_interp_structs.h`).
pub const RINGS_WORDS: usize = (11 + 3 + 3) * 8 + 3 + 1;

/// Offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// In the runtime: the main interpreter.
    pub main: u64,
    /// In the interpreter: its first thread state.
    pub threads: u64,
    /// In a thread state: the next one, then its interpreter, side by side in every release.
    pub next: u64,
    /// What the collector did.
    pub stats: Stats,
    /// The lock.
    pub gil: Gil,
    /// In the interpreter: a pointer to the dictionary of modules.
    pub modules: u64,
}

/// Where what the collector did is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stats {
    /// In the runtime: three counters for each of three generations.
    Runtime(u64),
    /// The same in the interpreter.
    Interpreter(u64),
    /// In the interpreter: a pointer to rings of the last runs' counters (from 3.15).
    Rings(u64),
}

/// Where the structure of the interpreter lock is. In it the last holder is at 8 and whether it is held at 16, in every
/// release (`Include/internal/pycore_gil.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gil {
    /// In the runtime.
    Runtime(u64),
    /// In the interpreter: a pointer to it.
    Pointer(u64),
}

impl Layout {
    /// Of a release that has no table of its own.
    pub fn known(minor: u8) -> Option<Layout> {
        let (main, threads, stats, gil, modules) = match minor {
            8 => (40, 8, Stats::Runtime(472), Gil::Runtime(1152), 56),
            9 | 10 => (40, 8, Stats::Interpreter(744), Gil::Runtime(352), 856),
            11 => (48, 16, Stats::Interpreter(776), Gil::Runtime(360), 888),
            12 => (48, 72, Stats::Interpreter(240), Gil::Pointer(384), 944),
            _ => return None,
        };
        Some(Layout { main, threads, next: 8, stats, gil, modules })
    }

    /// Of a release whose runtime begins with a table; `None` for one that is not known, or without a lock.
    pub fn table(minor: u8, words: &[u64; TABLE]) -> Option<Layout> {
        let [cookie, version, free_threaded, _, _, head, ..] = *words;
        let is_that = cookie.to_ne_bytes() == COOKIE && version >> 16 == 0x300 | u64::from(minor);
        if !is_that || free_threaded != 0 {
            return None;
        }
        let word = |at: usize| words.get(at).copied();
        // Where in the table are: the collector, a pointer to the lock, the thread state's link, and of the collector what
        // comes behind the counters or, from 3.15 on, what points at them.
        let (gc, gil, next, stats) = match minor {
            13 => (word(10)?, word(14)?, 21, Stats::Interpreter(word(72)?.checked_sub(COUNTERS_BYTES)?)),
            14 => (word(11)?, word(15)?, 24, Stats::Interpreter(word(82)?.checked_sub(COUNTERS_BYTES)?)),
            15 if word(97)? == RINGS_WORDS as u64 * 8 => (word(11)?, word(15)?, 24, Stats::Rings(word(98)?)),
            _ => return None,
        };
        // The dictionary of modules stands behind the collector.
        let modules = word(if minor == 13 { 11 } else { 12 })?;
        let (threads, next, interpreter) = (word(9)?, word(next)?, word(next + 1)?);
        let (Stats::Runtime(at) | Stats::Interpreter(at) | Stats::Rings(at)) = stats;
        let is_bounded = [head, threads, gc, gil, next, at, modules].iter().all(|offset| *offset < 1 << 20);
        if !is_bounded || interpreter != next + 8 {
            return None;
        }
        let stats = match stats {
            Stats::Rings(at) => Stats::Rings(gc + at),
            Stats::Runtime(at) | Stats::Interpreter(at) => Stats::Interpreter(gc + at),
        };
        Some(Layout { main: head + 8, threads, next, stats, gil: Gil::Pointer(gil), modules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Debian's 3.14.10, as far as it is read.
    fn words(minor: u64, free_threaded: u64) -> [u64; TABLE] {
        let mut words = [0; TABLE];
        words[0] = u64::from_ne_bytes(COOKIE);
        words[1] = 0x0300_0000 | minor << 16 | 0x0af0;
        words[2] = free_threaded;
        words[5] = 808;
        words[9] = 7344;
        words[11] = 7408;
        words[12] = 7672;
        words[15] = 16;
        words[24] = 8;
        words[25] = 16;
        words[82] = 192;
        words
    }

    #[test]
    fn a_table_is_believed_when_it_is_of_its_release() {
        let wanted = Layout {
            main: 816,
            threads: 7344,
            next: 8,
            stats: Stats::Interpreter(7528),
            gil: Gil::Pointer(16),
            modules: 7672,
        };
        assert_eq!(Layout::table(14, &words(14, 0)), Some(wanted));
        assert_eq!(Layout::table(13, &words(14, 0)), None);
        assert_eq!(Layout::table(14, &words(13, 0)), None);
        assert_eq!(Layout::table(14, &[0; TABLE]), None);
        assert_eq!(Layout::table(14, &[u64::MAX; TABLE]), None);
    }

    #[test]
    fn a_build_without_the_lock_and_a_release_to_come_are_not_known() {
        assert_eq!(Layout::table(14, &words(14, 1)), None);
        assert_eq!(Layout::table(16, &words(16, 0)), None);
        assert_eq!(Layout::known(7), None);
        assert_eq!(Layout::known(16), None);
    }

    #[test]
    fn rings_of_another_size_are_not_known() {
        let mut words = words(15, 0);
        (words[97], words[98]) = (1_120, 104);
        let stats = |words| Layout::table(15, &words).map(|layout| layout.stats);
        assert_eq!(stats(words), Some(Stats::Rings(7512)));
        words[97] += 64;
        assert_eq!(stats(words), None);
    }
}
