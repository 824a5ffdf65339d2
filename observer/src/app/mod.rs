//! Composition root: builds the parts, owns the tasks, drains on a signal.
mod check;
mod recording;
mod replay;
mod sessions;
mod sinks;
mod timing;

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use observer_ebpf::key::watch;
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::config::Config;
use crate::expose::ListenError;
use crate::expose::Listener;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::kernel::KernelError;
use crate::kernel::Probes;
use crate::pipeline::Pipeline;
use crate::pipeline::input::Bytes;
use crate::pipeline::input::Input;
use crate::pipeline::input::Origin;
use crate::pipeline::output::Output;
use crate::pipeline::tape;
use crate::process::facts;
use crate::process::imports;
use crate::process::programs::Programs;
use crate::process::queues;
use crate::process::sample::Sampler;
use crate::process::scan;
use crate::python::image::Images;
use crate::report::grpc::SettingsError;
use crate::stats::Reason;
use crate::stats::SharedDrops;
pub use check::check;
use recording::Recording;
pub use replay::replay;
use sessions::Sessions;
use sinks::Sinks;
use timing::Timing;

/// How long queued reports may take to leave on a stop.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// How long a stop may take in all: to leave the files of fifty interpreters takes the kernel six seconds.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Output could not be written (`sysexits.h`).
const IO_ERROR: u8 = 74;
/// Records between two looks at signals and the clock.
const DRAIN_LIMIT: usize = 4_096;
/// Between two warnings about losses, in ticks.
const LOSS_TICKS: u32 = 20;
/// Short against the shortest time after which gunicorn aborts a worker, two seconds.
const TICK: Duration = Duration::from_millis(500);

/// Why a run ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The probes could not be loaded or attached.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The OAP's address cannot be used.
    #[error(transparent)]
    Oap(#[from] SettingsError),
    /// Numbers cannot be served where they are asked for.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A tape could not be written.
    #[error("cannot write the tape {path}: {source}: choose a file that can be written")]
    Tape {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A tape could not be replayed.
    #[error(transparent)]
    Replay(#[from] tape::TapeError),
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Signals could not be waited for.
    #[error("cannot wait for signals: {0}: this is a bug")]
    Signals(io::Error),
}

impl AppError {
    /// The exit code that says which kind of error this is (`sysexits.h`).
    pub fn exit_code(&self) -> u8 {
        match self {
            AppError::Kernel(KernelError::Permission { .. }) => 77,
            AppError::Kernel(_) => 69,
            AppError::Oap(_) | AppError::Listen(_) | AppError::Replay(_) | AppError::Tape { .. } => 64,
            AppError::Output(_) => IO_ERROR,
            AppError::Signals(_) => 70,
        }
    }
}

/// Watches and reports until TERM or INT; `tape` also records every input. What waits for others than the kernel, such as
/// OAP, does so on the threads of `reports`.
pub async fn run(config: Config, tape: Option<&Path>, reports: &Handle) -> Result<(), AppError> {
    let (mut terminate, mut interrupt) = signals()?;
    reports.spawn(stop_in_time(signals()?));
    let mut observer = Observer::start(config, tape, reports)?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut more = false;
    // Signals and the clock have their turn between two portions, however full the ring is.
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tick.tick() => observer.tick(),
            () = observer.probes.ring.due(), if !more => more = observer.drain(),
            () = tokio::task::yield_now(), if more => more = observer.drain(),
        }
        if observer.sinks.reader_is_gone() {
            break;
        }
    }
    observer.stop().await
}

fn signals() -> Result<(Signal, Signal), AppError> {
    let on = |kind| signal(kind).map_err(AppError::Signals);
    Ok((on(SignalKind::terminate())?, on(SignalKind::interrupt())?))
}

/// Ends the process when a stop takes too long: standard output may be a pipe that nobody reads. The kernel
/// detaches the probes.
async fn stop_in_time((mut terminate, mut interrupt): (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // A thread, since it has to outlive the tasks.
    std::thread::spawn(|| {
        std::thread::sleep(STOP_LIMIT);
        std::process::exit(i32::from(IO_ERROR));
    });
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Looks for processes that were there before the probes.
fn found(programs: &Programs, images: &mut Images) -> Input {
    let holders = scan::holders(programs, images);
    Input::Found { at: clock::kernel_now(), holders }
}

struct Observer {
    probes: Probes,
    pipeline: Pipeline,
    sinks: Sinks,
    tape: Option<Recording<BufWriter<File>>>,
    programs: Programs,
    queues: queues::Reader,
    sampler: Sampler,
    timing: Timing,
    sessions: Sessions,
    outputs: Vec<Output>,
    ticks: u32,
    /// Entries of the ring that were read.
    records: u64,
}

impl Observer {
    fn start(config: Config, tape: Option<&Path>, reports: &Handle) -> Result<Observer, AppError> {
        // First what can be wrong without the kernel's help.
        let (listener, mut sinks) = {
            let _tasks_are_there = reports.enter();
            let listener = config.metrics_listen.map(Listener::bind).transpose()?;
            (listener, Sinks::start(&config, Arc::new(SharedDrops::default()))?)
        };
        tracing::info!("loading probes");
        let probes = Probes::start(config.kernel)?;
        for attachment in &probes.attachments {
            let probe = attachment.probe.name;
            for refusal in &attachment.refusals {
                tracing::debug!(
                    probe,
                    variant = refusal.variant.name(),
                    why = refusal.why,
                    "variant refused"
                );
            }
            if attachment.variant.is_none() {
                tracing::warn!(
                    probe,
                    lost = attachment.probe.why,
                    "probe not attached: see `sw-observe check`"
                );
            }
        }
        let origin = Origin {
            tape: tape::FORMAT,
            seed: fastrand::u64(..),
            wall: clock::wall_offset(),
            given: config.given.clone(),
            chosen: config.chosen.clone(),
            stuck_after_ns: nanoseconds(config.stuck_after),
            meter_period_ns: config.meter_period.map(nanoseconds),
            connections: config.kernel.connections as usize,
        };
        let tape = tape.map(|path| Recording::create(path, &origin)).transpose()?;
        let pipeline = Pipeline::new(&origin);
        if let Some(listener) = listener {
            let _tasks_are_there = reports.enter();
            sinks.expose(listener, config.kernel.ring_bytes, &probes);
        }
        let mut observer = Observer {
            probes,
            pipeline,
            sinks,
            tape,
            programs: Programs::default(),
            queues: queues::Reader::default(),
            sampler: Sampler::start(),
            timing: Timing::new(config.collector, config.lock),
            sessions: Sessions::new(config.sessions),
            outputs: Vec::new(),
            ticks: 0,
            records: 0,
        };
        // After attaching, so that no fork falls between the two.
        let found = found(&Programs::default(), observer.sampler.images());
        observer.sinks.ready(&observer.probes.attachments);
        while observer.read() {} // what the probes saw meanwhile is surer than what the scan makes of it
        observer.step(&found);
        observer.sinks.flush(); // who reads that line may rely on everything being watched
        Ok(observer)
    }

    /// Reads a portion of the ring and writes what follows; whether there is more.
    fn drain(&mut self) -> bool {
        let more = self.read();
        self.sinks.flush();
        more
    }

    /// Reads a portion of the ring; whether there is more.
    fn read(&mut self) -> bool {
        let Observer { probes, pipeline, tape, programs, sampler, outputs, records, .. } = self;
        let more = probes.ring.drain(DRAIN_LIMIT, |record| {
            *records += 1;
            if Programs::is_one(record) {
                programs.take(record, sampler.images()); // facts are made with it; its variables are on no tape
                return ControlFlow::Continue(());
            }
            if let Some(tape) = tape {
                tape.add(&Input::Record(Bytes(Pipeline::written(record).to_vec())));
            }
            let before = outputs.len();
            pipeline.step_record(record, outputs);
            // A master's facts come before what its workers do, and their framework before their requests, however far
            // behind the reader is.
            let asks = |output: &Output| matches!(output, Output::AskFacts(_) | Output::AskImports(..));
            let asks = outputs.iter().skip(before).any(asks);
            if asks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.perform();
        more
    }

    fn tick(&mut self) {
        let now = clock::kernel_now();
        // Who has not been heard of is silent only as far as the ring was read.
        let behind = self.read();
        let at = if behind { self.pipeline.read_to() } else { now };
        self.step(&Input::Tick { at, wall: clock::wall_offset() });
        self.ticks = self.ticks.wrapping_add(1);
        self.probes.flush_log();
        self.sinks.lost(self.probes.counters.losses());
        self.sinks.publish(&self.pipeline, self.records);
        if self.ticks.is_multiple_of(LOSS_TICKS) {
            self.sinks.warn_of_losses(self.pipeline.drops());
            self.sessions.explain(self.pipeline.drops().get(Reason::Tls));
            self.sessions.forget_unused(&mut self.probes);
        }
        self.sinks.flush();
    }

    fn step(&mut self, input: &Input) {
        if let Some(tape) = &mut self.tape {
            tape.add(input);
        }
        self.pipeline.step(input, &mut self.outputs);
        self.perform();
    }

    /// Does what the pipeline asked for; an answer is the next input.
    fn perform(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::AskFacts(pid) => {
                    let facts = self.programs.facts(pid, self.sampler.images()).map(Box::new);
                    let answer = facts.map_or(Input::Gone(pid), Input::Facts);
                    self.step(&answer);
                }
                Output::AskHolders => {
                    let found = found(&self.programs, self.sampler.images());
                    self.step(&found);
                }
                Output::AskSamples(processes) => {
                    processes.iter().for_each(|key| self.sessions.look(*key, &mut self.probes));
                    let mut samples = self.sampler.read(&processes);
                    self.timing.read(&mut self.probes, &mut self.sampler, &mut samples);
                    samples.queues = self.queues.read(samples.at, &processes, true);
                    self.step(&Input::Samples(samples));
                }
                Output::AskImports(process, application) => {
                    let imports = imports::read(process, application.as_ref(), self.sampler.images());
                    self.step(&Input::Imports { process, imports });
                }
                Output::AskQueues(processes) => {
                    let at = clock::kernel_now();
                    let queues = self.queues.read(at, &processes, false);
                    self.step(&Input::Queues { at, queues });
                }
                Output::Watch(process, role) => self.watch(process, role),
                Output::Disregard(process, agent) => {
                    if let Some((sign, service)) = agent {
                        let pid = process.pid;
                        tracing::warn!(
                            pid,
                            %service,
                            "standing aside: the SkyWalking agent is inside ({sign}); --beside-agent overrides"
                        );
                    }
                    self.disregard(process);
                }
                Output::Ignore(conn) => self.probes.maps.ignore(conn),
                Output::Count(conn) => self.probes.maps.count(conn),
                Output::Hello(ref instance) => {
                    self.sessions.look(instance.process, &mut self.probes);
                    self.sinks.take(output);
                }
                Output::Bye(ref instance) => {
                    self.ended(instance.process);
                    self.sinks.take(output);
                }
                Output::Segment(_) | Output::Event(_) | Output::Role(_) | Output::Meters(_) => {
                    self.sinks.take(output)
                }
            }
        }
        self.outputs = outputs; // for its room: answers left nothing in the other one
    }

    /// Watches a process that was found in `/proc`, unless it ended meanwhile.
    fn watch(&mut self, process: ProcessKey, role: Role) {
        let flags = match role {
            Role::Master | Role::UpgradeMaster | Role::DirtyArbiter => watch::LIFE,
            Role::Worker | Role::DirtyWorker | Role::AppChild | Role::Orphan => watch::LIFE | watch::TRAFFIC,
        };
        let ProcessKey { pid, start } = process;
        if let Err(error) = self.probes.maps.watch(pid, flags) {
            tracing::warn!(pid, %error, "cannot watch a process");
        } else if facts::start(pid) != Some(start) {
            self.probes.maps.unwatch(pid);
            self.step(&Input::Gone(pid)); // its end went by unseen
        }
    }

    /// A process ended, or is reported no longer.
    fn ended(&mut self, process: ProcessKey) {
        self.sessions.ended(process);
        self.timing.ended(process, &mut self.probes);
        self.sampler.ended(process);
    }

    /// Copies nothing of a process that is not a target, nor of those it forks.
    fn disregard(&mut self, process: ProcessKey) {
        self.ended(process);
        let pid = process.pid;
        if let Err(error) = self.probes.maps.watch(pid, watch::LIFE | watch::DISREGARDED) {
            tracing::warn!(pid, %error, "cannot disregard a process");
        }
    }

    async fn stop(mut self) -> Result<(), AppError> {
        self.probes.detach(); // first, so that what is left has an end
        while self.drain() {}
        self.sinks.lost(self.probes.counters.losses());
        self.sinks.publish(&self.pipeline, self.records);
        let taped = self.tape.map_or(Ok(()), Recording::finish);
        self.sinks.stop(&self.pipeline, FLUSH_LIMIT).await.and(taped)
    }
}
