//! Processor time, memory, threads and what the interpreter says, for the meters.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use procfs::Current as _;
use procfs::CurrentSI as _;
use procfs::FromRead as _;
use procfs::KernelStats;
use procfs::Meminfo;
use procfs::process::Stat;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

use crate::clock;
use crate::identity::ProcessKey;
use crate::identity::load::Queues;
use crate::meter::sample::Generation;
use crate::meter::sample::HostSample;
use crate::meter::sample::ProcessSample;
use crate::meter::sample::PythonSample;
use crate::meter::sample::Samples;
use crate::python::collector::Passage;
use crate::python::image::FileKey;
use crate::python::image::Images;
use crate::python::runtime::Anchors;
use crate::python::runtime::Cause;
use crate::python::runtime::Counters;
use crate::python::runtime::Numbers;
use crate::python::runtime::Runtime;
use crate::python::runtime::Unreadable;

/// Reads numbers; what was found out about an interpreter is kept until its process ended.
#[derive(Debug)]
pub struct Sampler {
    images: Images,
    interpreters: BTreeMap<ProcessKey, Interpreter>,
    /// What was said of versions that cannot be read.
    said: BTreeSet<(String, Cause)>,
}

/// What is known of the interpreter of a process.
#[derive(Debug)]
enum Interpreter {
    Readable(Box<Runtime>),
    /// There is none, or it is of a build that is not known.
    None,
}

impl Sampler {
    /// Knows nothing yet. Each interpreter keeps a file open, so the limit of open files is raised as far as it goes.
    pub fn start() -> Sampler {
        let limit = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
            tracing::warn!(%error, "cannot raise the limit of open files: interpreters beyond it have no numbers");
        }
        Sampler { images: Images::default(), interpreters: BTreeMap::new(), said: BTreeSet::new() }
    }

    /// Reads the numbers of these processes and of the host; processes that ended are left out.
    pub fn read(&mut self, processes: &[ProcessKey]) -> Samples {
        Samples {
            at: clock::kernel_now(),
            host: host(),
            processes: processes.iter().filter_map(|key| self.process(*key)).collect(),
            queues: Queues::default(),
        }
    }

    /// A process ended.
    pub fn ended(&mut self, key: ProcessKey) {
        self.interpreters.remove(&key);
    }

    /// Interpreters' files, of each of which what was found out is kept.
    pub fn images(&mut self) -> &mut Images {
        &mut self.images
    }

    /// What the probes need to know of an interpreter that was read.
    pub fn anchors(&self, key: ProcessKey) -> Option<Anchors> {
        self.runtime(key)?.anchors()
    }

    /// Where the collector of an interpreter that was read passes, if that is certain, with its file and a path that opens
    /// that.
    pub fn passage(&mut self, key: ProcessKey) -> Option<(FileKey, PathBuf, Option<Passage>)> {
        let placed = self.runtime(key)?.placed().clone();
        let passage = self.images.passage(&placed);
        Some((placed.file, placed.path, passage))
    }

    fn runtime(&self, key: ProcessKey) -> Option<&Runtime> {
        match self.interpreters.get(&key)? {
            Interpreter::Readable(runtime) => Some(runtime),
            Interpreter::None => None,
        }
    }

    fn process(&mut self, key: ProcessKey) -> Option<ProcessSample> {
        let stat = Stat::from_file(format!("/proc/{}/stat", key.pid)).ok()?; // no more than this one file
        if stat.starttime != key.start {
            return None; // another process with its pid
        }
        Some(ProcessSample {
            key,
            cpu_ticks: stat.utime + stat.stime,
            resident_bytes: stat.rss * procfs::page_size(),
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            python: self.python(key),
        })
    }

    /// What the interpreter says. It is the memory of the program that it was found in: of another one with the same pid
    /// nothing is read.
    fn python(&mut self, key: ProcessKey) -> Option<PythonSample> {
        let Sampler { images, interpreters, said } = self;
        let found = interpreters.entry(key).or_insert_with(|| find(key.pid, images, said));
        let Interpreter::Readable(runtime) = found else { return None };
        let numbers = runtime.read();
        if numbers.is_none() {
            self.interpreters.remove(&key); // it may have replaced its program: it is looked for again
        }
        numbers.map(sample)
    }
}

fn find(pid: u32, images: &mut Images, said: &mut BTreeSet<(String, Cause)>) -> Interpreter {
    match Runtime::find(pid, images) {
        Some(Ok(runtime)) => Interpreter::Readable(Box::new(runtime)),
        Some(Err(Unreadable { version, why })) => {
            if said.insert((version.clone(), why)) {
                let why = why.as_str();
                tracing::warn!(pid, version, why, "no garbage collection, threads and lock of this CPython");
            }
            Interpreter::None
        }
        None => Interpreter::None,
    }
}

fn sample(numbers: Numbers) -> PythonSample {
    let Numbers { generations, threads, gil_locked, gil_main, gc_ns } = numbers;
    let generation = |[collections, collected, uncollectable]: Counters| Generation {
        collections,
        collected,
        uncollectable,
    };
    PythonSample {
        generations: generations.map(generation),
        threads,
        gil_locked,
        gil_main,
        gc_paused_ns: gc_ns,
        ..PythonSample::default()
    }
}

fn host() -> HostSample {
    let (mut busy_ticks, mut total_ticks) = (0, 0);
    if let Ok(KernelStats { total, .. }) = KernelStats::current() {
        // Guest time is part of user time (proc(5)).
        let idle = total.idle + total.iowait.unwrap_or(0);
        let parts = [Some(total.irq.unwrap_or(0)), total.softirq, total.steal];
        busy_ticks = total.user + total.nice + total.system + parts.into_iter().flatten().sum::<u64>();
        total_ticks = busy_ticks + idle;
    }
    let memory = Meminfo::current().ok();
    HostSample {
        busy_ticks,
        total_ticks,
        memory_bytes: memory.as_ref().map_or(0, |memory| memory.mem_total),
        available_bytes: memory.and_then(|memory| memory.mem_available).unwrap_or(0),
    }
}
