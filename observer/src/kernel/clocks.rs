//! The clocks of interpreters: which are timed, and the probes that are attached while somebody needs them.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::mem::offset_of;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::UProbeLinkId;
use aya::programs::uprobe::UProbeScope;
use observer_ebpf::key::INTERPRETERS;
use observer_ebpf::key::Interpreter;
use observer_ebpf::key::NEVER;
use observer_ebpf::key::PLACES;

use super::KernelError;
use super::Probes;
use super::attach;
use super::catalog::COLLECTOR;
use super::catalog::LOCK;
use super::catalog::Point;
use super::mapped::Mapped;

/// Words of one entry, and which of them are what.
const WORDS: usize = size_of::<Interpreter>() / size_of::<u64>();
const PAUSED: usize = offset_of!(Interpreter, paused) / size_of::<u64>();
const LONGEST: usize = offset_of!(Interpreter, longest) / size_of::<u64>();
const WAITED: usize = offset_of!(Interpreter, waited) / size_of::<u64>();

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

/// What a clock shows, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// In the collector, by generation.
    pub paused: [u64; 3],
    /// The longest of its runs since the clock was last read, by generation.
    pub longest: [u64; 3],
    /// Waits for the lock.
    pub waited: u64,
}

/// Interpreters that are timed.
pub struct Clocks {
    interpreters: Mapped,
    /// Files that have the collector's probe.
    pub(super) files: BTreeMap<FileKey, UProbeLinkId>,
    /// Whether the lock's probe is attached, once that was tried.
    lock: Option<bool>,
}

impl Clocks {
    /// Maps the table of interpreters of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Clocks, KernelError> {
        let interpreters = Mapped::take(ebpf, "INTERPRETERS", INTERPRETERS as usize * WORDS)?;
        Ok(Clocks { interpreters, files: BTreeMap::new(), lock: None })
    }

    /// Times a process's interpreter from now on. The number of its clock; nothing when its places are taken.
    pub fn start(&mut self, pid: u32, collector: Option<Collector>, waiters: Option<u64>) -> Option<u32> {
        let places = (0..PLACES).map(|place| pid.wrapping_add(place) & (INTERPRETERS - 1));
        let clock = places
            .into_iter()
            .find(|clock| self.entry(*clock).first().is_some_and(|pid| pid.load(Ordering::Relaxed) == 0))?;
        let Collector { counters, begins, ends } = collector.unwrap_or_default();
        let known = [[counters, waiters.unwrap_or(0)].as_slice(), &begins, &ends, &[0], &NEVER].concat();
        let (owner, rest) = self.entry(clock).split_first()?;
        let values = known.into_iter().chain(std::iter::repeat(0));
        rest.iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        owner.store(pid.into(), Ordering::Release); // last: from here on the probes find it
        Some(clock)
    }

    /// What a clock shows; the longest runs are forgotten with that.
    pub fn read(&self, clock: u32) -> Times {
        let words = self.entry(clock);
        let word = |at: usize| words.get(at);
        let load = |at| word(at).map_or(0, |word| word.load(Ordering::Relaxed));
        let take = |at| word(at).map_or(0, |word| word.swap(0, Ordering::Relaxed));
        Times {
            paused: [0, 1, 2].map(|n| load(PAUSED + n)),
            longest: [0, 1, 2].map(|n| take(LONGEST + n)),
            waited: load(WAITED),
        }
    }

    /// Times a process no longer.
    pub fn end(&mut self, clock: u32) {
        if let Some(owner) = self.entry(clock).first() {
            owner.store(0, Ordering::Release);
        }
    }

    fn entry(&self, clock: u32) -> &[AtomicU64] {
        let begin = clock as usize * WORDS;
        self.interpreters.words().get(begin..begin + WORDS).unwrap_or_default()
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
    pub(super) fn points(&self, probe: &str) -> &'static [Point] {
        let found = self.attachments.iter().find(|attachment| attachment.probe.name == probe);
        found.map_or(&[], |attachment| attachment.points())
    }
}
