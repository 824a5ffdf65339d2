//! Finds gunicorn's processes that were there before the probes: holders of worker slots, and masters without one.
use std::collections::BTreeSet;
use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use procfs::net::TcpState;
use procfs::net::UnixState;
use procfs::process::FDTarget;
use procfs::process::Process;

use super::facts;
use super::programs::Programs;
use crate::clock;
use crate::clock::KernelTime;
use crate::identity::Holder;
use crate::identity::SlotFile;
use crate::identity::found;
use crate::identity::found::MASTER;
use crate::python::image::Images;

/// What `mkstemp` makes; gunicorn up to 21.2 changes it with its beats (`workertmp.py`).
const FRESH_MODE: u32 = 0o600;
/// A modification time below this, in seconds, is one of the monotonic clock: gunicorn from 22.0 sets it so.
const MONOTONIC_BELOW: i64 = 1_000_000_000;

/// Every process that holds a worker slot or looks like a master that has none. Processes that end while they are
/// looked at are left out. `images` are the interpreters that were looked at already.
pub fn holders(programs: &Programs, images: &mut Images) -> Vec<Holder> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| holder(pid, programs, images)).collect()
}

fn holder(pid: u32, programs: &Programs, images: &mut Images) -> Option<Holder> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let slots = slots(pid);
    let caught = process.status().ok()?.sigcgt;
    if slots.is_empty() && !(found::catches_as_master(caught) && is_python(&process) && listens(&process)) {
        return None;
    }
    // A worker keeps its own slot only. One of several cannot be told (dirty workers keep those of their siblings).
    let own = if let [(_, file)] = slots.as_slice() { Some(file) } else { None };
    let program = programs.find(pid);
    let is_master = caught & MASTER == MASTER;
    let facts =
        if is_master { facts::read(pid, program, images) } else { facts::brief(pid, program, images) };
    Some(Holder {
        facts: facts.ok()?,
        slots: slots.iter().map(|(slot, _)| *slot).collect(),
        booting: own.is_some_and(is_fresh),
        beat: own.map(beat),
    })
}

/// Worker slots among a process's open files: unlinked files called `wgunicorn-…`.
fn slots(pid: u32) -> Vec<(SlotFile, Metadata)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| slot(entry.path())).collect()
}

/// A descriptor may be closed while it is looked at: that is not an error.
fn slot(descriptor: PathBuf) -> Option<(SlotFile, Metadata)> {
    let target = fs::read_link(&descriptor).ok()?;
    let name = target.file_name()?.to_str()?;
    if !name.starts_with("wgunicorn-") || !name.ends_with(" (deleted)") {
        return None;
    }
    let file = fs::metadata(&descriptor).ok()?;
    Some(((file.dev(), file.ino()), file))
}

/// Whether nobody has beaten on this slot yet.
fn is_fresh(file: &Metadata) -> bool {
    file.mode() & 0o777 == FRESH_MODE && file.mtime() >= MONOTONIC_BELOW
}

/// When this slot was last beaten on: whatever a beat sets, the change time follows it.
fn beat(file: &Metadata) -> KernelTime {
    let wall = file.ctime().saturating_mul(1_000_000_000).saturating_add(file.ctime_nsec());
    KernelTime(u64::try_from(wall.saturating_sub(clock::wall_offset().0)).unwrap_or(0))
}

fn is_python(process: &Process) -> bool {
    let exe = process.exe().unwrap_or_default();
    exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"))
}

/// Whether a process holds a socket that listens.
fn listens(process: &Process) -> bool {
    let Ok(files) = process.fd() else { return false };
    let sockets: BTreeSet<u64> = files
        .flatten()
        .filter_map(|file| if let FDTarget::Socket(inode) = file.target { Some(inode) } else { None })
        .collect();
    let tcp = process.tcp().unwrap_or_default().into_iter().chain(process.tcp6().unwrap_or_default());
    let mut tcp = tcp.filter(|entry| entry.state == TcpState::Listen).map(|entry| entry.inode);
    let mut unix = process.unix().unwrap_or_default().into_iter();
    tcp.any(|inode| sockets.contains(&inode))
        || unix.any(|entry| entry.state == UnixState::UNCONNECTED && sockets.contains(&entry.inode))
}
