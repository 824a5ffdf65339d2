//! Finds processes that hold worker slots and were there before the probes.
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use procfs::process::Process;

use super::facts;
use crate::identity::Holder;
use crate::identity::SlotFile;

const SIGHUP: u64 = 1;
const SIGUSR2: u64 = 12;

/// Every process that holds a worker slot. Processes that end while they are looked at are left out.
pub fn holders() -> Vec<Holder> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(holder).collect()
}

fn holder(pid: u32) -> Option<Holder> {
    let slots = slots(pid);
    if slots.is_empty() {
        return None;
    }
    let caught = Process::new(i32::try_from(pid).ok()?).ok()?.status().ok()?.sigcgt;
    let catches = |signal: u64| caught >> (signal - 1) & 1 == 1;
    let catches_reload = catches(SIGHUP) && catches(SIGUSR2);
    let facts = if catches_reload { facts::read(pid, None) } else { facts::brief(pid, None) };
    Some(Holder { facts: facts.ok()?, slots, catches_reload })
}

/// Worker slots among a process's open files: unlinked files called `wgunicorn-…`.
fn slots(pid: u32) -> Vec<SlotFile> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| slot(entry.path())).collect()
}

/// A descriptor may be closed while it is looked at: that is not an error.
fn slot(descriptor: PathBuf) -> Option<SlotFile> {
    let target = fs::read_link(&descriptor).ok()?;
    let name = target.file_name()?.to_str()?;
    if !name.starts_with("wgunicorn-") || !name.ends_with(" (deleted)") {
        return None;
    }
    let file = fs::metadata(&descriptor).ok()?;
    Some((file.dev(), file.ino()))
}
