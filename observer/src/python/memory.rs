//! Bounded reads of another process's memory; nothing is written and nothing waits.
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// User space ends below this on x86-64 and on ARM with 48-bit addresses (`Documentation/arch/x86/x86_64/mm.rst`).
const USER_END: u64 = 1 << 48;

/// The memory of one process.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// Opens it; the kernel asks for the right to trace the process. It stays that of this process's program: after an exec
    /// reads find nothing.
    pub fn open(pid: u32) -> Option<Memory> {
        File::open(format!("/proc/{pid}/mem")).ok().map(Memory)
    }

    /// What a file has at an offset stands at that address.
    pub fn of(file: File) -> Memory {
        Memory(file)
    }

    /// Fills `bytes` from an address; nothing when not all of them are there.
    pub fn fill(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        if address == 0 || address >= USER_END {
            return None;
        }
        self.0.read_exact_at(bytes, address).ok()
    }

    /// `N` machine words from an address that has to be aligned as theirs.
    pub fn words<const N: usize>(&self, address: u64) -> Option<[u64; N]> {
        if !address.is_multiple_of(8) {
            return None;
        }
        let mut bytes = [[0u8; 8]; N];
        self.fill(address, bytes.as_flattened_mut())?;
        Some(bytes.map(u64::from_ne_bytes))
    }

    /// One machine word.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.words::<1>(address).map(|[word]| word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_else() {
        let here = [7u64, 8, 9];
        let address = here.as_ptr() as u64;
        let memory = Memory::open(std::process::id()).unwrap();
        assert_eq!(memory.words(address), Some(here));
        assert_eq!(memory.word(address + 1), None);
        assert_eq!(memory.word(0), None);
        assert_eq!(memory.word(!7), None);
    }
}
