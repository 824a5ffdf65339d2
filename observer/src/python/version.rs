//! Which Python a process runs.
use procfs::process::Process;

use super::image::Images;
use super::memory::Memory;

/// `3.11.7`, or `3.8` where only the file's name tells, or `None` for a process that runs no Python.
pub fn of(process: &Process, images: &mut Images) -> Option<String> {
    let placed = images.find(process)?;
    let memory = u32::try_from(process.pid()).ok().and_then(Memory::open);
    Some(placed.version(memory.as_ref()))
}
