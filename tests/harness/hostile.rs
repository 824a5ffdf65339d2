//! Bytes of any kind as what a worker reads and writes, as what stands on the ring, or as a target's files and memory: for
//! `cargo fuzz`, and for its corpus in every run of the tests.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::os::unix::fs::FileExt as _;

use object::File;
use observer::identity::naming::Given;
use observer::identity::target::Targets;
use observer::pipeline::Pipeline;
use observer::pipeline::output::Output;
use observer::python::collector;
use observer::python::image::Image;
use observer::python::modules;
use observer::python::modules::Modules;
use observer::python::openssl;
use observer::python::runtime::Runtime;
use observer::report::encode;
use observer::stats::Reason;
use observer::trace::rules::Chosen;
use observer_ebpf::record::AF_INET;
use observer_ebpf::record::Closed;
use observer_ebpf::record::Conn;
use observer_ebpf::record::Header;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Moved;
use observer_ebpf::record::Opened;
use observer_ebpf::record::moved;
use observer_ebpf::wire;
use prost::Message as _;
use proto::v3;

use crate::recorded::Recorded;
use crate::stage::must;

/// The longest name of a service or an instance that OAP stores, in characters.
const NAME: usize = 70;
/// Where a runtime stands in [`memory`].
const RUNTIME: u64 = 0x1000;
/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two records, in nanoseconds.
const STEP: u64 = 1_000;
/// What is asked and answered when all is over.
const ASKED: &[u8] = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWERED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Bits of the byte that an operation of [`conversation`] begins with; the next one is how many bytes follow.
mod op {
    /// The worker writes; else it reads.
    pub(super) const WRITES: u8 = 1;
    /// The bytes are not copied, and there are 64 times as many.
    pub(super) const HOLE: u8 = 2;
    /// On a new connection.
    pub(super) const ANEW: u8 = 4;
    /// A call before went by unseen.
    pub(super) const SKIPS: u8 = 8;
    /// The bytes are those of a TLS session.
    pub(super) const PLAIN: u8 = 16;
}

/// A worker, known to a pipeline that shows all it can, and what is said on its connections.
struct Talk {
    pipeline: Pipeline,
    outputs: Vec<Output>,
    worker: Header,
    conn: Conn,
    /// Of both directions, in the connection's own bytes and in those of its session.
    offsets: [u64; 4],
}

impl Talk {
    fn begin(recorded: &Recorded) -> Self {
        let chosen =
            Chosen { params: true, w3c: true, redaction: "*secret*".to_owned(), ..Chosen::default() };
        let (pipeline, worker) = recorded.started(chosen);
        let conn = Conn { sock: 1, born: worker.at };
        Self { pipeline, outputs: Vec::new(), worker, conn, offsets: [0; 4] }
    }

    fn header(&mut self, kind: Kind, len: usize) -> Header {
        self.worker.at += STEP;
        let len = u32::try_from(len).unwrap_or_default();
        Header { kind: kind as u16, len, ..self.worker }
    }

    fn open(&mut self) {
        let header = self.header(Kind::Opened, 0);
        (self.conn.born, self.offsets) = (header.at, [0; 4]);
        let (conn, ready) = (self.conn, header.at);
        self.record(wire::bytes(&Opened {
            header,
            conn,
            ready,
            family: AF_INET,
            accepted: 1,
            local_port: 8000,
            peer_port: 40_000,
            local: [127; 16],
            peer: [127; 16],
            netns: 1,
            zero: 0,
        }));
    }

    fn close(&mut self) {
        let header = self.header(Kind::Closed, 0);
        let conn = self.conn;
        self.record(wire::bytes(&Closed { header, conn }));
    }

    /// `size` bytes move, of which these were copied.
    fn moved(&mut self, op: u8, bytes: &[u8], size: u32) {
        let kind = if op & op::WRITES != 0 { Kind::Sent } else { Kind::Received };
        let header = self.header(kind, bytes.len());
        let flags = if op & op::PLAIN != 0 { moved::PLAIN } else { 0 };
        let offset = self.skip(op, size.into());
        let moved = Moved { header, conn: self.conn, offset, ready: header.at, size, flags };
        self.record(&[wire::bytes(&moved), bytes].concat());
    }

    /// All of some bytes move, if there are any.
    fn say(&mut self, op: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.moved(op, bytes, u32::try_from(bytes.len()).unwrap_or_default());
        }
    }

    /// So many bytes later; where that was before.
    fn skip(&mut self, op: u8, size: u64) -> u64 {
        let stream = usize::from(op & op::WRITES != 0) + 2 * usize::from(op & op::PLAIN != 0);
        let Some(offset) = self.offsets.get_mut(stream) else { return 0 };
        *offset += size;
        *offset - size
    }

    fn record(&mut self, entry: &[u8]) {
        self.pipeline.step_record(entry, &mut self.outputs);
    }

    /// Segments so far, each of which can be encoded.
    fn segments(&mut self) -> Vec<String> {
        let segments = self.outputs.drain(..).filter_map(|output| {
            let Output::Segment(segment) = output else { return None };
            let mut encoded = Vec::new();
            encode::segment(&segment, &mut encoded);
            Some(must(v3::SegmentObject::decode(encoded.as_slice()), "decode a segment"))
        });
        segments.flat_map(|segment| segment.spans).map(|span| span.operation_name).collect()
    }
}

/// The operations that `data` stands for happen on connections of one worker. Whatever they are, no parser panics, and the
/// next request on a new connection is reported as ever.
pub fn conversation(recorded: &Recorded, data: &[u8]) {
    talk(recorded, data, &[]);
}

/// The same on connections whose clients have said that they speak HTTP/2.
pub fn http2(recorded: &Recorded, data: &[u8]) {
    talk(recorded, data, PREFACE);
}

fn talk(recorded: &Recorded, mut data: &[u8], first: &[u8]) {
    let mut talk = Talk::begin(recorded);
    talk.open();
    talk.say(0, first);
    while let [op, len, rest @ ..] = data {
        if op & op::ANEW != 0 {
            talk.close();
            talk.open();
            talk.say(op & op::PLAIN, first);
        }
        if op & op::SKIPS != 0 {
            talk.skip(*op, u64::from(*len));
        }
        if op & op::HOLE != 0 {
            talk.moved(*op, &[], u32::from(*len) * 64);
            data = rest;
        } else {
            let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
            talk.moved(*op, bytes, u32::try_from(bytes.len()).unwrap_or_default());
            data = rest;
        }
    }
    talk.close();
    talk.segments();
    talk.open();
    talk.say(0, ASKED);
    talk.say(op::WRITES, ANSWERED);
    assert_eq!(talk.segments(), ["/after"], "the next request is right");
    no_panic(&talk.pipeline);
}

/// `data` stands on the ring: entries, each behind a byte that says how long it is.
pub fn records(recorded: &Recorded, mut data: &[u8]) {
    let mut talk = Talk::begin(recorded);
    while let [len, rest @ ..] = data {
        let (entry, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        talk.record(entry);
        data = rest;
    }
    talk.segments();
    no_panic(&talk.pipeline);
}

/// `data` is what masters say of themselves: pieces, each behind a byte that says what it is and one that says how long.
/// Whatever it is, names fit in what OAP stores, and the traffic is taken.
pub fn masters(recorded: &Recorded, data: &[u8]) {
    let mut pieces = Vec::new();
    let mut rest = data;
    while let [field, len, more @ ..] = rest {
        let (bytes, after) = more.split_at(usize::from(*len).min(more.len()));
        pieces.push((*field, String::from_utf8_lossy(bytes).into_owned()));
        rest = after;
    }
    let of = |wanted| {
        pieces.iter().filter(move |(field, _)| field % field::COUNT == wanted).map(|(_, text)| text.clone())
    };
    let pairs = |wanted| {
        of(wanted).filter_map(|text| text.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())))
    };
    let specs: Vec<String> = of(field::TARGET).map(|text| format!("gunicorn:{text}")).collect();
    let targets = Targets::parse(&specs, &of(field::EXCLUSION).collect::<Vec<_>>()).unwrap_or_default();
    let told = recorded.clone().told(Given { targets, ..Given::default() }, |facts| {
        facts.argv.truncate(1); // gunicorn
        facts.argv.extend(of(field::ARGUMENT));
        facts.environ = pairs(field::VARIABLE).collect();
        facts.config = pairs(field::SETTING).collect();
        facts.title = of(field::TITLE).next_back();
        facts.pod = of(field::POD).next_back();
        facts.unit = of(field::UNIT).next_back();
        facts.cgroup = of(field::CGROUP).next_back().unwrap_or_default();
        facts.hostname = of(field::HOST).next_back().unwrap_or_default();
    });
    for output in told.outputs() {
        if let Output::Hello(instance) = output {
            for name in [&instance.service, &instance.name] {
                assert!(name.chars().count() <= NAME, "{name} is longer than OAP stores");
            }
        }
    }
    told.play().again();
}

/// What a piece of [`masters`] is: the rest of its byte by [`field::COUNT`].
mod field {
    pub(super) const ARGUMENT: u8 = 0;
    pub(super) const VARIABLE: u8 = 1;
    pub(super) const SETTING: u8 = 2;
    pub(super) const TITLE: u8 = 3;
    pub(super) const POD: u8 = 4;
    pub(super) const UNIT: u8 = 5;
    pub(super) const CGROUP: u8 = 6;
    pub(super) const HOST: u8 = 7;
    pub(super) const TARGET: u8 = 8;
    pub(super) const EXCLUSION: u8 = 9;
    pub(super) const COUNT: u8 = 10;
}

/// `data` is the file of an interpreter and of OpenSSL. Whatever it is, no reader panics, and what is found lies in it.
/// Returns what was found: the release, the collector, OpenSSL.
pub fn program(data: &[u8]) -> [bool; 3] {
    let Ok(elf) = File::parse(data) else { return [false; 3] };
    let image = Image::of(&elf, "python3.11");
    let passage = collector::passage(&elf);
    let places = openssl::places(&elf).and_then(Result::ok);
    [image.is_some(), passage.is_some(), places.is_some()]
}

/// `data` is the memory of an interpreter from its runtime on, behind a byte that says of which release it is. Whatever it
/// is, no reader panics. Returns the modules that were found.
pub fn memory(data: &[u8]) -> Option<Modules> {
    let (release, bytes) = data.split_first()?;
    let file = must(tempfile::tempfile(), "make a file");
    must(file.write_all_at(bytes, RUNTIME), "write a file");
    let mut runtime = Runtime::in_file(7 + release % 10, RUNTIME, file).ok()?;
    runtime.read();
    runtime.anchors();
    modules::read(&runtime, &["flask", "bottle"], Some(("app", "app")))
}

fn no_panic(pipeline: &Pipeline) {
    if pipeline.drops().get(Reason::ParserPanic) != 0 {
        panic!("a parser panicked");
    }
}
