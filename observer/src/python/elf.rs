//! Files of other people's processes as ELF files: whatever they claim to have, only so much of one is read.
use std::cell::Cell;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use object::read::ReadCache;
use object::read::ReadRef;

/// Bytes that are read of one file at most; an interpreter's code, constants and names have some 20 MiB.
const LIMIT: u64 = 256 << 20;
/// What a piece that was read takes beside its bytes.
const PIECE: u64 = 128;

/// A file that is read piece by piece.
pub(super) struct Source {
    cache: ReadCache<File>,
    left: Cell<u64>,
}

/// What [`object`] reads a [`Source`] by.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a>(&'a Source);

impl Source {
    /// Nothing when it cannot be opened.
    pub(super) fn open(path: &Path) -> Option<Source> {
        Some(Source { cache: ReadCache::new(File::open(path).ok()?), left: Cell::new(LIMIT) })
    }

    /// Nothing when it is no ELF file.
    pub(super) fn elf(&self) -> Option<object::File<'_, Pieces<'_>>> {
        object::File::parse(Pieces(self)).ok()
    }

    fn spend(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes.saturating_add(PIECE)).ok_or(())?);
        Ok(())
    }
}

impl<'a> ReadRef<'a> for Pieces<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.0.spend(size)?;
        self.0.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let bytes = self.0.cache.read_bytes_at_until(range, delimiter)?;
        self.0.spend(bytes.len() as u64)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::Object as _;

    #[test]
    fn a_file_has_what_it_has_up_to_a_limit() {
        let source = Source::open(Path::new("/proc/self/exe")).unwrap();
        assert!(source.elf().unwrap().section_by_name(".text").is_some());
        source.left.set(100 << 10);
        let pieces = Pieces(&source);
        assert!(pieces.read_bytes_at(0, 64 << 10).is_ok());
        assert!(pieces.read_bytes_at(0, 64 << 10).is_err(), "more than the limit");
        assert!(pieces.read_bytes_at(0, u64::MAX).is_err());
        assert!(pieces.read_bytes_at_until(0..64, b'E').is_ok());
        source.left.set(PIECE);
        assert!(pieces.read_bytes_at_until(0..64, b'E').is_err(), "names count, too");
    }
}
