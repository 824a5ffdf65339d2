//! The traffic of a tape, over and over: what the pipeline costs is measured with it.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::fs::File;
use std::io::BufReader;

use observer::identity::Facts;
use observer::identity::naming::Given;
use observer::pipeline::Pipeline;
use observer::pipeline::input::Bytes;
use observer::pipeline::input::Input;
use observer::pipeline::input::Origin;
use observer::pipeline::output::Output;
use observer::pipeline::tape;
use observer::report::encode;
use observer::trace::rules::Chosen;
use observer_ebpf::record::Closed;
use observer_ebpf::record::Conn;
use observer_ebpf::record::Header;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Moved;
use observer_ebpf::record::Opened;
use observer_ebpf::wire;

use crate::stage::must;
use crate::stage::package;

/// Between two repetitions, in nanoseconds.
const PAUSE: u64 = 1_000_000;

/// A tape: what comes before its traffic, and its traffic.
#[derive(Clone, Debug)]
pub struct Recorded {
    origin: Origin,
    before: Vec<Input>,
    traffic: Vec<Vec<u8>>,
    /// From the first to the last of the traffic, in nanoseconds.
    span: u64,
}

/// A pipeline to which the traffic goes.
#[derive(Debug)]
pub struct Playing<'a> {
    recorded: &'a Recorded,
    pipeline: Pipeline,
    outputs: Vec<Output>,
    /// The record that goes in, and the segment that came out.
    entry: Vec<u8>,
    encoded: Vec<u8>,
    repetitions: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// Requests that were reported.
    pub segments: usize,
    /// Bytes of them as OAP gets them.
    pub bytes: usize,
}

impl Recorded {
    /// A golden tape by its name.
    pub fn golden(name: &str) -> Self {
        let path = package().join(format!("golden/{name}.tape"));
        let file = must(File::open(&path), format_args!("open {}", path.display()));
        let (origin, inputs) = must(tape::read(BufReader::new(file)), "read the tape");
        let mut recorded = Self { origin, before: Vec::new(), traffic: Vec::new(), span: 0 };
        let mut times = Vec::new();
        for input in inputs {
            let input = must(input, "read the tape");
            if let Input::Record(Bytes(bytes)) = &input
                && is_traffic(bytes)
            {
                times.extend(wire::read::<Header>(bytes).map(|header| header.at));
                recorded.traffic.push(bytes.clone());
            } else if recorded.traffic.is_empty() {
                recorded.before.push(input);
            } // else heartbeats, ends, ticks: not what a request costs
        }
        let (first, last) = (times.iter().min(), times.iter().max());
        let (Some(first), Some(last)) = (first, last) else { panic!("{} has no traffic", path.display()) };
        recorded.span = last - first + PAUSE;
        recorded
    }

    /// The same traffic of masters of which other facts are told.
    pub fn told(mut self, given: Given, change: impl Fn(&mut Facts)) -> Self {
        self.origin.given = given;
        for input in &mut self.before {
            match input {
                Input::Facts(facts) => change(facts),
                Input::Found { holders, .. } => {
                    holders.iter_mut().for_each(|holder| change(&mut holder.facts));
                }
                Input::Record(_)
                | Input::Gone(_)
                | Input::Imports { .. }
                | Input::Samples(_)
                | Input::Queues { .. }
                | Input::Tick { .. } => {}
            }
        }
        self
    }

    /// What follows from that which comes before the traffic.
    pub fn outputs(&self) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.step(&self.origin, &mut outputs);
        outputs
    }

    /// A pipeline that has seen what comes before.
    pub fn play(&self) -> Playing<'_> {
        let pipeline = self.pipeline(&self.origin);
        let (outputs, entry, encoded) = (Vec::new(), Vec::new(), Vec::new());
        Playing { recorded: self, pipeline, outputs, entry, encoded, repetitions: 0 }
    }

    /// The same with other rules, and the header of the first record that comes next.
    pub fn started(&self, chosen: Chosen) -> (Pipeline, Header) {
        let first = self.traffic.first().and_then(|record| wire::read::<Header>(record));
        let Some(first) = first else { panic!("a tape without traffic") };
        (self.pipeline(&Origin { chosen, ..self.origin.clone() }), first)
    }

    fn pipeline(&self, origin: &Origin) -> Pipeline {
        self.step(origin, &mut Vec::new())
    }

    fn step(&self, origin: &Origin, outputs: &mut Vec<Output>) -> Pipeline {
        let mut pipeline = Pipeline::new(origin);
        self.before.iter().for_each(|input| pipeline.step(input, outputs));
        pipeline
    }
}

impl Playing<'_> {
    /// The traffic once more, later and on other connections: from the bytes of the ring to the bytes for OAP.
    pub fn again(&mut self) -> Came {
        let later = self.repetitions * self.recorded.span;
        self.repetitions += 1;
        let mut came = Came::default();
        for record in &self.recorded.traffic {
            move_to(&mut self.entry, record, later);
            self.pipeline.step_record(&self.entry, &mut self.outputs);
            for output in self.outputs.drain(..) {
                if let Output::Segment(segment) = output {
                    self.encoded.clear();
                    encode::segment(&segment, &mut self.encoded);
                    came.segments += 1;
                    came.bytes += self.encoded.len();
                }
            }
        }
        came
    }
}

fn is_traffic(record: &[u8]) -> bool {
    let kind = wire::read::<Header>(record).and_then(|header| Kind::from_wire(header.kind));
    matches!(kind, Some(Kind::Opened | Kind::Received | Kind::Sent | Kind::Closed))
}

/// Makes `entry` the same record so many nanoseconds later, on a connection that was made so much later.
fn move_to(entry: &mut Vec<u8>, record: &[u8], later: u64) {
    entry.clear();
    let at = |header: Header| Header { at: header.at + later, ..header };
    let conn = |conn: Conn| Conn { born: conn.born + later, ..conn };
    let ready = |ready: u64| if ready == 0 { 0 } else { ready + later };
    let kind = wire::read::<Header>(record).and_then(|header| Kind::from_wire(header.kind));
    match kind {
        Some(Kind::Opened) => {
            if let Some(it) = wire::read::<Opened>(record) {
                let it = Opened { header: at(it.header), conn: conn(it.conn), ready: ready(it.ready), ..it };
                entry.extend_from_slice(wire::bytes(&it));
            }
        }
        Some(Kind::Received | Kind::Sent) => {
            if let Some(it) = wire::read::<Moved>(record) {
                let it = Moved { header: at(it.header), conn: conn(it.conn), ready: ready(it.ready), ..it };
                entry.extend_from_slice(wire::bytes(&it));
            }
        }
        _ => {
            if let Some(it) = wire::read::<Closed>(record) {
                entry.extend_from_slice(wire::bytes(&Closed { header: at(it.header), conn: conn(it.conn) }));
            }
        }
    }
    entry.extend_from_slice(record.get(entry.len()..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repetition_reports_the_same_requests() {
        for (name, requests) in [("sync", 8), ("gthread", 7), ("uvicorn", 4)] {
            let recorded = Recorded::golden(name);
            let mut playing = recorded.play();
            let first = playing.again();
            assert_eq!(first.segments, requests, "{name}");
            for _ in 0..20 {
                assert_eq!(playing.again().segments, first.segments, "{name}");
            }
        }
    }
}
