//! Which interpreters the probes time, and what their clocks say.
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::identity::ProcessKey;
use crate::kernel::Probes;
use crate::kernel::clocks::Collector;
use crate::kernel::clocks::FileKey;
use crate::meter::sample::Samples;
use crate::process::facts;
use crate::process::sample::Sampler;
use crate::python::collector::Passage;

/// Interpreters that are timed.
#[derive(Debug)]
pub struct Timing {
    /// How long the collector takes is timed.
    collector: bool,
    /// How long threads wait for the lock is timed.
    lock: bool,
    /// The lock's probe is there.
    lock_probe: bool,
    timed: BTreeMap<ProcessKey, Timed>,
    /// Files that could not have the probe, of which that was said.
    refused: BTreeSet<FileKey>,
}

#[derive(Debug)]
struct Timed {
    clock: u32,
    /// The file with the collector's probe, where that is timed.
    file: Option<FileKey>,
    /// Whether waits for its lock can be told from others.
    lock: bool,
}

impl Timing {
    /// Times nothing yet.
    pub fn new(collector: bool, lock: bool) -> Timing {
        Timing { collector, lock, lock_probe: false, timed: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// Times the interpreters that were sampled, and adds what their clocks say.
    pub fn read(&mut self, probes: &mut Probes, sampler: &mut Sampler, samples: &mut Samples) {
        // A thread alone never waits, and other programs of the host need not pay for it.
        let mut pythons = samples.processes.iter().filter_map(|process| process.python.as_ref());
        if self.lock && pythons.any(|python| python.threads > 1) {
            self.lock_probe = probes.time_lock();
        }
        for process in &mut samples.processes {
            let key = process.key;
            let Some(python) = process.python.as_mut() else {
                self.ended(key, probes); // it may have replaced its program
                continue;
            };
            if !self.timed.contains_key(&key) {
                let started = self.start(key, probes, sampler);
                self.timed.extend(started.map(|timed| (key, timed)));
            }
            let Some(timed) = self.timed.get(&key) else { continue };
            let times = probes.clocks.read(timed.clock);
            if timed.file.is_some() {
                python.gc_paused_ns = Some(times.paused);
                python.gc_longest_ns = Some(times.longest);
            }
            python.gil_waited_ns = (self.lock_probe && timed.lock).then_some(times.waited);
        }
        let used = self.timed.values().filter_map(|timed| timed.file).collect();
        probes.keep_collectors(&used);
    }

    /// A process is timed no longer.
    pub fn ended(&mut self, key: ProcessKey, probes: &mut Probes) {
        if let Some(timed) = self.timed.remove(&key) {
            probes.clocks.end(timed.clock);
        }
    }

    fn start(&mut self, key: ProcessKey, probes: &mut Probes, sampler: &mut Sampler) -> Option<Timed> {
        let anchors = sampler.anchors(key)?;
        let waiters = anchors.waiters.filter(|_| self.lock);
        let counters = anchors.counters.filter(|_| self.collector);
        let passage = counters.and_then(|_| self.time_collector(key, probes, sampler));
        if passage.is_none() && waiters.is_none() {
            return None;
        }
        let collector = counters
            .zip(passage)
            .map(|(counters, (_, Passage { begins, ends, .. }))| Collector { counters, begins, ends });
        let clock = probes.clocks.start(key.pid, collector, waiters)?;
        Some(Timed { clock, file: passage.map(|(file, _)| file), lock: waiters.is_some() })
    }

    /// Has the collector's probe in the file of an interpreter; which file, and where, if it is there.
    fn time_collector(
        &mut self,
        key: ProcessKey,
        probes: &mut Probes,
        sampler: &mut Sampler,
    ) -> Option<(FileKey, Passage)> {
        let (file, path, passage) = sampler.passage(key)?;
        let unknown = || "its build is not known".to_owned();
        let attached = passage
            .ok_or_else(unknown)
            .and_then(|passage| probes.time_collector(file, &path, passage.offset).map(|()| (file, passage)));
        match attached {
            Ok(found) => Some(found),
            Err(why) => {
                let is_alive = facts::start(key.pid) == Some(key.start);
                if is_alive && self.refused.insert(file) {
                    tracing::warn!(key.pid, why, "no time in the collector of this CPython");
                }
                None
            }
        }
    }
}
