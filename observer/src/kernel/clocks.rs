//! The clocks of interpreters: which are timed, and the probes that are attached while somebody needs them.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::HashMap;
use aya::maps::MapData;
use aya::programs::UProbe;
use aya::programs::uprobe::UProbeLinkId;
use aya::programs::uprobe::UProbeScope;
use observer_ebpf::key::CLOCKS;
use observer_ebpf::key::Clock;
use observer_ebpf::key::Interpreter;
use observer_ebpf::key::NEVER;

use super::KernelError;
use super::Probes;
use super::attach;
use super::catalog::COLLECTOR;
use super::catalog::LOCK;
use super::catalog::Point;
use super::mapped::Mapped;
use super::pod::Pod;

/// Words of one clock.
const WORDS: usize = size_of::<Clock>() / size_of::<u64>();

/// Device and inode of a file.
pub type FileKey = (u64, u64);

/// What the probe of the collector has to know of an interpreter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collector {
    /// Address of the collector's counters.
    pub counters: u64,
    /// Return addresses of its calls when a run begins; 0 for none.
    pub begins: [u64; 4],
    /// When it ends.
    pub ends: [u64; 4],
}

/// Interpreters that are timed.
pub struct Clocks {
    interpreters: HashMap<MapData, u32, Pod<Interpreter>>,
    sums: Mapped,
    /// Numbers of clocks that nobody uses.
    free: Vec<u32>,
    /// Files that have the collector's probe.
    files: BTreeMap<FileKey, UProbeLinkId>,
    /// Whether the lock's probe is attached, once that was tried.
    lock: Option<bool>,
}

impl Clocks {
    /// Takes the maps out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Clocks, KernelError> {
        let name = "INTERPRETERS";
        let map = ebpf.take_map(name).ok_or(KernelError::NoMap { name })?;
        Ok(Clocks {
            interpreters: map.try_into().map_err(|source| KernelError::Map { name, source })?,
            sums: Mapped::take(ebpf, "CLOCKS", CLOCKS as usize * WORDS)?,
            free: (0..CLOCKS).rev().collect(),
            files: BTreeMap::new(),
            lock: None,
        })
    }

    /// Times a process's interpreter from now on. The number of its clock; nothing when there are too many.
    pub fn start(&mut self, pid: u32, collector: Option<Collector>, waiters: Option<u64>) -> Option<u32> {
        let clock = self.free.pop()?;
        self.words(clock).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let Collector { counters, begins, ends } = collector.unwrap_or_default();
        let waiters = waiters.unwrap_or(0);
        let entry = Interpreter { counters, waiters, begins, ends, begun: 0, runs: NEVER, clock, zero: 0 };
        if let Err(error) = self.interpreters.insert(pid, Pod(entry), 0) {
            tracing::debug!(pid, %error, "cannot time an interpreter");
            self.free.push(clock);
            return None;
        }
        Some(clock)
    }

    /// What a clock shows; the longest runs are forgotten with that.
    pub fn read(&self, clock: u32) -> Clock {
        let [p0, p1, p2, l0, l1, l2, waited] = std::array::from_fn(|at| {
            let word = self.words(clock).get(at);
            let is_longest = (3..6).contains(&at);
            let read = |word: &AtomicU64| match is_longest {
                true => word.swap(0, Ordering::Relaxed),
                false => word.load(Ordering::Relaxed),
            };
            word.map_or(0, read)
        });
        Clock { paused: [p0, p1, p2], longest: [l0, l1, l2], waited }
    }

    /// Times a process no longer.
    pub fn end(&mut self, pid: u32, clock: u32) {
        if let Err(error) = self.interpreters.remove(&pid) {
            tracing::trace!(pid, %error, "was not timed");
        }
        self.free.push(clock);
    }

    fn words(&self, clock: u32) -> &[AtomicU64] {
        let begin = clock as usize * WORDS;
        self.sums.words().get(begin..begin + WORDS).unwrap_or_default()
    }
}

impl Probes {
    /// Has the collector's probe in a file, at an offset of it. A process that ends while it is attached is an error; the
    /// next one with this file may try again.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn time_collector(&mut self, file: FileKey, path: &Path, offset: u64) -> Result<(), String> {
        if self.clocks.files.contains_key(&file) {
            return Ok(());
        }
        let [point] = self.points(COLLECTOR) else { return Err("its probe is not loaded".to_owned()) };
        let program = self.programs.as_mut().and_then(|ebpf| ebpf.program_mut(point.program));
        let program: &mut UProbe = program.ok_or("detached")?.try_into().map_err(attach::sentence)?;
        let link = program.attach(offset, path, UProbeScope::AllProcesses).map_err(attach::sentence)?;
        self.clocks.files.insert(file, link);
        Ok(())
    }

    /// Takes the collector's probe out of files that no process uses.
    pub fn keep_collectors(&mut self, used: &BTreeSet<FileKey>) {
        let [point] = self.points(COLLECTOR) else { return };
        let program = self.programs.as_mut().and_then(|ebpf| ebpf.program_mut(point.program));
        let Some(Ok(program)) = program.map(<&mut UProbe>::try_from) else { return };
        let files = &mut self.clocks.files;
        let unused: Vec<FileKey> = files.keys().filter(|file| !used.contains(file)).copied().collect();
        for link in unused.iter().filter_map(|file| files.remove(file)) {
            if let Err(error) = program.detach(link) {
                tracing::debug!(%error, "a probe stays in a file");
            }
        }
    }

    /// Has the lock's probe from now on; whether it is there.
    pub fn time_lock(&mut self) -> bool {
        if self.clocks.lock.is_none() {
            self.clocks.lock = Some(self.attach_lock());
        }
        self.clocks.lock == Some(true)
    }

    fn attach_lock(&mut self) -> bool {
        let points = self.points(LOCK);
        let Some(ebpf) = self.programs.as_mut() else { return false };
        let mut attached = points.iter().filter_map(|point| {
            let program = ebpf.program_mut(point.program)?;
            attach::attach_point(program, point).err()
        });
        if let Some(why) = attached.next() {
            tracing::warn!(probe = LOCK, why, "probe not attached: see `sw-observe check`");
            return false;
        }
        !points.is_empty()
    }

    /// The places of a probe, if it is loaded.
    fn points(&self, probe: &str) -> &'static [Point] {
        let found = self.attachments.iter().find(|attachment| attachment.probe.name == probe);
        found.map_or(&[], |attachment| attachment.points())
    }
}
