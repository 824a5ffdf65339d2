//! The pure machine: inputs in, outputs out; no I/O and no clock, so that a tape replays to the same bytes.
pub mod input;
pub mod output;
pub mod tape;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use observer_ebpf::record::Closed;
use observer_ebpf::record::Execed;
use observer_ebpf::record::Exited;
use observer_ebpf::record::Forked;
use observer_ebpf::record::Header;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Moved;
use observer_ebpf::record::Opened;
use observer_ebpf::record::Signalled;
use observer_ebpf::record::Slot;
use observer_ebpf::record::exited;
use observer_ebpf::record::forked;
use observer_ebpf::wire;

use crate::clock::KernelTime;
use crate::clock::WallOffset;
use crate::exchange::Carried;
use crate::exchange::Exchange;
use crate::exchange::Exchanges;
use crate::exchange::Findings;
use crate::exchange::Turn;
use crate::identity::ProcessKey;
use crate::identity::cause::Signal;
use crate::identity::cause::Status;
use crate::identity::gunicorn::Change;
use crate::identity::gunicorn::Fork;
use crate::identity::gunicorn::Model;
use crate::identity::load::Queues;
use crate::meter;
use crate::meter::Meters;
use crate::meter::sample::Samples;
use crate::stats::Drops;
use crate::stats::Omissions;
use crate::stats::Reason;
use crate::trace::Segment;
use crate::trace::segment::Segments;
use crate::trace::segment::Server;
use input::Input;
use input::Origin;
use output::Output;

/// `TRACE_SIGNAL_IGNORED` of `<trace/events/signal.h>`: the target is dying already, or does not want it.
const IGNORED: u32 = 1;
/// Between two looks for processes whose start went by unseen, in nanoseconds.
const LOOK_INTERVAL_NS: u64 = 10_000_000_000;
/// Between two looks at the queues of workers that may not keep up, in nanoseconds.
const QUEUE_INTERVAL_NS: u64 = 2_000_000_000;
/// Nanoseconds in a tick of `/proc/<pid>/stat`.
const NS_PER_TICK: u64 = 10_000_000;

/// Everything between the ring and the reporter.
#[derive(Debug)]
pub struct Pipeline {
    model: Model,
    exchanges: Exchanges,
    findings: Findings,
    changes: Vec<Change>,
    segments: Segments,
    meters: Meters,
    /// Whose samples were asked for last.
    asked: BTreeSet<ProcessKey>,
    wall: WallOffset,
    /// When the last record was made.
    read_to: KernelTime,
    /// Every record up to this time was read.
    all_read: KernelTime,
    /// Whether a process served that is not known, and when to look for such processes at the earliest.
    stranger: bool,
    next_look: KernelTime,
    /// When to look at queues at the earliest.
    next_queues: KernelTime,
}

impl Pipeline {
    /// A pipeline that has seen nothing.
    pub fn new(origin: &Origin) -> Pipeline {
        Pipeline {
            model: Model::new(origin.given.clone(), origin.stuck_after_ns, origin.seed, origin.wall),
            exchanges: Exchanges::new(origin.connections),
            findings: Findings::default(),
            changes: Vec::new(),
            segments: Segments::new(origin.seed, origin.chosen.clone()),
            meters: Meters::new(origin.meter_period_ns),
            asked: BTreeSet::new(),
            wall: origin.wall,
            read_to: KernelTime::default(),
            all_read: KernelTime::default(),
            stranger: false,
            next_look: KernelTime::default(),
            next_queues: KernelTime::default(),
        }
    }

    /// Takes one input; what follows from it is appended to `outputs`.
    pub fn step(&mut self, input: &Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Record(bytes) => self.record(&bytes.0, outputs),
            Input::Facts(facts) => self.model.learned(facts.as_ref().clone(), &mut self.changes),
            Input::Gone(pid) => {
                self.findings.drops.count(Reason::FactsGone);
                // An arbiter that lives on is asked for again when it makes its next slot.
                self.model.gone(*pid, &mut self.changes);
            }
            Input::Found { at, holders } => self.model.found(*at, holders, &mut self.changes),
            Input::Samples(samples) => {
                self.sampled(samples, outputs);
                self.looked(samples.at, &samples.queues);
                let living = samples.processes.iter().map(|sample| sample.key).collect();
                let asked = std::mem::take(&mut self.asked);
                self.model.alive(samples.at, &asked, &living, self.all_read, &mut self.changes);
            }
            Input::Queues { at, queues } => self.looked(*at, queues),
            Input::Imports { process, imports } => self.model.recognised(*process, imports.as_ref()),
            Input::Tick { at, wall } => {
                self.wall = *wall;
                if *at > self.read_to {
                    self.all_read = *at; // else the reader is behind
                }
                self.model.tick(*at, *wall, &mut self.changes);
                if std::mem::take(&mut self.stranger) && *at >= self.next_look {
                    self.next_look = KernelTime(at.0.saturating_add(LOOK_INTERVAL_NS));
                    outputs.push(Output::AskHolders);
                }
                if let Some(due) = self.meters.due(*at, self.model.instances()) {
                    self.asked = due.iter().copied().collect();
                    outputs.push(Output::AskSamples(due));
                } else if *at >= self.next_queues {
                    let crowded = self.model.crowded();
                    if !crowded.is_empty() {
                        self.next_queues = KernelTime(at.0.saturating_add(QUEUE_INTERVAL_NS));
                        outputs.push(Output::AskQueues(crowded));
                    }
                }
            }
        }
        self.flush(outputs);
    }

    /// The meters of every instance that was sampled.
    fn sampled(&mut self, samples: &Samples, outputs: &mut Vec<Output>) {
        let turnover = self.model.turnover(samples.at, samples.processes.iter().map(|sample| sample.key));
        let mut queues = meter::load::queues(&samples.queues, |process| turnover.contains_key(&process));
        let model = &self.model;
        let instances = model.instances().map(|instance| {
            let process = instance.process;
            let pulse = model.heartbeat_age(process, samples.at).map(meter::heartbeat_age);
            let mut own: Vec<_> = pulse.into_iter().collect();
            own.extend(turnover.get(&process).into_iter().flat_map(meter::load::worker));
            own.extend(model.respawns(process).map(meter::load::arbiter));
            own.extend(queues.remove(&process).unwrap_or_default());
            (instance, own)
        });
        let batches = self.meters.sampled(samples, self.wall, instances);
        let masters: BTreeMap<_, _> = model
            .instances()
            .filter_map(|instance| {
                Some(((&instance.service, &instance.name), model.master(instance.process.pid)?))
            })
            .collect();
        for mut batch in batches {
            if let Some(master) = masters.get(&(&batch.service, &batch.instance)) {
                batch.meters.retain(|meter| meter::is_on(master, meter.name));
            }
            outputs.extend((!batch.meters.is_empty()).then_some(Output::Meters(batch)));
        }
    }

    fn looked(&mut self, at: KernelTime, queues: &Queues) {
        self.next_queues = KernelTime(at.0.saturating_add(QUEUE_INTERVAL_NS));
        self.model.looked(at, queues, &mut self.changes);
    }

    /// Takes one entry of the ring without copying it; the same as a step with [`Input::Record`].
    pub fn step_record(&mut self, bytes: &[u8], outputs: &mut Vec<Output>) {
        self.record(bytes, outputs);
        self.flush(outputs);
    }

    /// The part of a ring entry that a probe wrote: entries have a few sizes, and behind the bytes that were
    /// copied lies what an earlier record left there.
    pub fn written(entry: &[u8]) -> &[u8] {
        let header = wire::read::<Header>(entry);
        let kind = header.and_then(|header| Kind::from_wire(header.kind));
        let len = match (kind, header) {
            (Some(Kind::Received | Kind::Sent), Some(header)) => size_of::<Moved>() + header.len as usize,
            _ => entry.len(),
        };
        entry.get(..len).unwrap_or(entry)
    }

    /// When the last record was made.
    pub fn read_to(&self) -> KernelTime {
        self.read_to
    }

    /// What was lost so far.
    pub fn drops(&self) -> &Drops {
        &self.findings.drops
    }

    /// What was left out on purpose so far.
    pub fn omissions(&self) -> &Omissions {
        self.segments.omissions()
    }

    fn record(&mut self, bytes: &[u8], outputs: &mut Vec<Output>) {
        let Some(header) = wire::read::<Header>(bytes) else {
            return self.findings.drops.count(Reason::ShortRecord);
        };
        let Some(kind) = Kind::from_wire(header.kind) else {
            return self.findings.drops.count(Reason::UnknownRecord);
        };
        if self.decoded(kind, bytes, outputs).is_none() {
            self.findings.drops.count(Reason::ShortRecord);
        }
    }

    /// `None` when the record is shorter than its kind.
    fn decoded(&mut self, kind: Kind, bytes: &[u8], outputs: &mut Vec<Output>) -> Option<()> {
        let at = KernelTime(wire::read::<Header>(bytes)?.at);
        self.read_to = at;
        match kind {
            Kind::Forked => {
                let record: Forked = wire::read(bytes)?;
                if record.flags & forked::SHARES_MEMORY == 0 {
                    let parent = key(record.header.tgid, record.parent_start);
                    let child = key(record.child, record.child_start);
                    let slot = record.flags & forked::WORKER != 0;
                    let disregarded = record.flags & forked::DISREGARDED != 0;
                    let fork = Fork { parent, child, inner: record.child_inner, slot, disregarded };
                    self.model.forked(at, fork, &mut self.changes);
                }
            }
            Kind::Execed => {
                let record: Execed = wire::read(bytes)?;
                self.model.execed(at, record.header.tgid, &mut self.changes);
            }
            Kind::Exited => {
                let record: Exited = wire::read(bytes)?;
                let pid = record.header.tgid;
                self.exchanges.exited(pid, at, &mut self.findings);
                self.settle(outputs); // while its instance is still known
                let (status, oom) = (Status(record.status), record.flags & exited::OOM != 0);
                self.model.exited(at, pid, status, oom, &mut self.changes);
            }
            Kind::Slotted => {
                let record: Slot = wire::read(bytes)?;
                self.model.slotted(at, key(record.header.tgid, record.start), &mut self.changes);
            }
            Kind::Beat => {
                let record: Slot = wire::read(bytes)?;
                self.stranger |= !self.model.beat(at, record.header.tgid, &mut self.changes);
            }
            Kind::Signalled => {
                let record: Signalled = wire::read(bytes)?;
                if record.result != IGNORED {
                    let target = key(record.target, record.target_start);
                    self.model.signalled(target, sent(&record), &mut self.changes);
                }
            }
            Kind::Program => {} // facts take from it what they need
            Kind::Opened => {
                let record: Opened = wire::read(bytes)?;
                if record.accepted == 1 {
                    self.model.accepted(record.header.tgid);
                }
                self.exchanges.opened(&record, &mut self.findings);
            }
            Kind::Received => {
                let (record, payload) = moved(bytes)?;
                self.exchanges.received(&record, payload, &mut self.findings);
            }
            Kind::Sent => {
                let (record, payload) = moved(bytes)?;
                self.exchanges.sent(&record, payload, &mut self.findings);
            }
            Kind::Closed => {
                let record: Closed = wire::read(bytes)?;
                self.exchanges.closed(&record, &mut self.findings);
            }
        }
        Some(())
    }

    fn flush(&mut self, outputs: &mut Vec<Output>) {
        self.settle(outputs);
        self.announce(outputs);
    }

    /// Exchanges that ended become segments.
    fn settle(&mut self, outputs: &mut Vec<Output>) {
        for turn in self.findings.turns.drain(..) {
            let Turn { pid, at, from, to, waited } = turn;
            self.model.turned(pid, at, from, to, waited);
            if to > from {
                self.model.wonder(at, pid, &mut self.changes); // it may serve before it beats
            }
        }
        outputs.extend(self.findings.ignored.drain(..).map(Output::Ignore));
        if !self.findings.carried.is_empty() {
            self.carried(outputs);
        }
        if self.findings.exchanges.is_empty() {
            return;
        }
        let mut exchanges = std::mem::take(&mut self.findings.exchanges);
        for exchange in exchanges.drain(..) {
            let segment = self.segment(&exchange);
            self.announce(outputs); // an instance before its first segment
            outputs.extend(segment.map(Output::Segment));
        }
        self.findings.exchanges = exchanges; // for its room
    }

    /// Bytes of WebSockets, those that were written with a handshake among them.
    fn carried(&mut self, outputs: &mut Vec<Output>) {
        outputs.extend(self.findings.counted.drain(..).map(Output::Count));
        for Carried { pid, received, sent } in self.findings.carried.drain(..) {
            self.model.carried(pid, received, sent);
        }
    }

    fn segment(&mut self, exchange: &Exchange) -> Option<Segment> {
        let (framework, master) = self.model.background(exchange.pid);
        let Some(instance) = self.model.instance(exchange.start, exchange.pid, &mut self.changes) else {
            if self.model.is_quiet(exchange.pid) {
                return None; // on its way when the process was found not to be a target
            }
            self.findings.drops.count(Reason::UnknownProcess);
            self.stranger = true;
            return None;
        };
        let server = Server { instance, framework, master };
        self.segments.segment(exchange, &server, self.wall, &mut self.findings.drops)
    }

    fn announce(&mut self, outputs: &mut Vec<Output>) {
        if self.changes.is_empty() {
            return; // as after nearly every record
        }
        for change in &self.changes {
            if let Change::Bye(instance) = change {
                self.segments.forget(instance.process);
                self.meters.forget(instance.process);
            }
        }
        outputs.extend(self.changes.drain(..).map(|change| match change {
            Change::Ask(pid) => Output::AskFacts(pid),
            Change::AskImports(process, application) => Output::AskImports(process, application),
            Change::Hello(instance) => Output::Hello(instance),
            Change::Bye(instance) => Output::Bye(instance),
            Change::Watch(process, role) => Output::Watch(process, role),
            Change::Disregard(process, agent) => Output::Disregard(process, agent),
            Change::Role(casting) => Output::Role(casting),
            Change::Event(event) => Output::Event(event),
        }));
    }
}

/// A record of moved bytes and what was copied of them.
fn moved(bytes: &[u8]) -> Option<(Moved, &[u8])> {
    let record: Moved = wire::read(bytes)?;
    let (_, payload) = bytes.split_at_checked(size_of::<Moved>())?;
    Some((record, payload.get(..record.header.len as usize)?))
}

/// A signal as the process model wants it.
fn sent(record: &Signalled) -> Signal {
    let name = record.sender.split(|byte| *byte == 0).next().unwrap_or_default();
    Signal {
        at: KernelTime(record.header.at),
        number: record.signal,
        code: record.code,
        sender: record.header.tgid,
        comm: String::from_utf8_lossy(name).into_owned(),
    }
}

fn key(pid: u32, start_ns: u64) -> ProcessKey {
    ProcessKey { pid, start: start_ns / NS_PER_TICK }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Facts;
    use crate::identity::naming::Given;
    use crate::trace::rules::Chosen;

    fn origin() -> Origin {
        Origin {
            tape: tape::FORMAT,
            seed: 1,
            wall: WallOffset(0),
            given: Given::default(),
            chosen: Chosen::default(),
            stuck_after_ns: 0,
            meter_period_ns: Some(0),
            connections: 16,
        }
    }

    fn tick(pipeline: &mut Pipeline, at_s: u64) -> Vec<Output> {
        let mut outputs = Vec::new();
        let at = KernelTime(at_s * 1_000_000_000);
        pipeline.step(&Input::Tick { at, wall: WallOffset(0) }, &mut outputs);
        outputs
    }

    #[test]
    fn a_process_that_serves_unknown_is_looked_for_now_and_then() {
        let mut pipeline = Pipeline::new(&origin());
        assert_eq!(tick(&mut pipeline, 1), []);
        pipeline.stranger = true;
        assert_eq!(tick(&mut pipeline, 2), [Output::AskHolders]);
        pipeline.stranger = true;
        assert_eq!((tick(&mut pipeline, 3), tick(&mut pipeline, 13)), (vec![], vec![]));
        pipeline.stranger = true;
        assert_eq!(tick(&mut pipeline, 14), [Output::AskHolders]);
    }

    #[test]
    fn records_that_are_not_ones_are_counted() {
        let mut pipeline = Pipeline::new(&origin());
        let mut outputs = Vec::new();
        pipeline.step_record(&[0; 8], &mut outputs);
        pipeline.step_record(&[0xff; 64], &mut outputs);
        let mut short = [0; 24];
        short[16] = 1; // a fork's header, and no more
        pipeline.step_record(&short, &mut outputs);
        let named: Vec<_> = pipeline.drops().named().collect();
        assert_eq!((outputs, named), (vec![], vec![("unknown_record", 1), ("short_record", 2)]));
    }

    #[test]
    fn queues_are_looked_at_while_every_worker_serves() {
        let mut pipeline = Pipeline::new(&origin());
        let (master, worker) = (ProcessKey { pid: 10, start: 1 }, ProcessKey { pid: 11, start: 1 });
        let (at, changes) = (KernelTime(1_000_000_000), &mut Vec::new());
        pipeline.model.slotted(at, master, changes);
        pipeline.model.learned(Facts { key: master, ..Facts::default() }, changes);
        pipeline.model.forked(
            at,
            Fork { parent: master, child: worker, inner: 11, slot: true, disregarded: false },
            changes,
        );
        pipeline.model.beat(at, 11, changes);
        assert_eq!(tick(&mut pipeline, 2), []);
        pipeline.model.turned(11, at, 0, 1, None);
        let ask = [Output::AskQueues(vec![master, worker])];
        assert_eq!(tick(&mut pipeline, 3), ask);
        assert_eq!(tick(&mut pipeline, 4), []);
        assert_eq!(tick(&mut pipeline, 5), ask);
        pipeline.model.turned(11, at, 1, 0, None);
        assert_eq!(tick(&mut pipeline, 9), []);
    }
}
