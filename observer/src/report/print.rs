//! Reports as text: lines for people, or one JSON object per line for programs.

use std::fmt;
use std::io;
use std::io::Write;

use serde::Serialize;
use serde::Serializer;

use crate::identity::Instance;
use crate::identity::event::Event;
use crate::meter::Meter;
use crate::report::Report;
use crate::trace::Reference;
use crate::trace::Segment;
use crate::trace::Span;
use crate::trace::SpanKind;
use crate::trace::SpanLayer;

/// How reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines to read.
    Text {
        /// Whether with the colours of a terminal.
        colour: bool,
    },
    /// One JSON object per line; names and types of its members are stable.
    Json,
}

/// Writes reports to `W`.
pub struct Printer<W> {
    out: W,
    format: Format,
}

impl<W: Write> Printer<W> {
    /// Nothing is written yet.
    pub fn new(out: W, format: Format) -> Self {
        Self { out, format }
    }

    /// Writes one report.
    ///
    /// # Errors
    /// Those of `W`; a reader that went away is [`io::ErrorKind::BrokenPipe`].
    pub fn print(&mut self, report: &Report) -> io::Result<()> {
        match self.format {
            Format::Text { colour } => self.line(&lines(report, Paint { colour })),
            Format::Json => self.json(&json(report)),
        }
    }

    /// Says that probes are attached and everything that runs was found; `variants` are probe and variant.
    ///
    /// # Errors
    /// As for [`Printer::print`].
    pub fn ready(&mut self, variants: &[(&str, &str)]) -> io::Result<()> {
        match self.format {
            Format::Text { .. } => Ok(()), // the log says it
            Format::Json => self.json(&Json::Ready { variants }),
        }
    }

    /// Says what was lost, by reason.
    ///
    /// # Errors
    /// As for [`Printer::print`].
    pub fn stats(&mut self, drops: &[(&str, u64)]) -> io::Result<()> {
        match self.format {
            Format::Text { .. } if drops.is_empty() => Ok(()),
            Format::Text { .. } => {
                let said: Vec<_> = drops.iter().map(|(reason, n)| format!("{reason}={n}")).collect();
                self.line(&format!("lost: {}", said.join(" ")))
            }
            Format::Json => self.json(&Json::Stats { drops }),
        }
    }

    /// Writes what `W` has buffered.
    ///
    /// # Errors
    /// As for [`Printer::print`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn json(&mut self, json: &Json<'_>) -> io::Result<()> {
        self.line(&serde_json::to_string(json)?)
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    /// `text` in an ANSI colour.
    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// One line per report, one per span.
fn lines(report: &Report, paint: Paint) -> String {
    match report {
        Report::Hello(instance) => {
            let properties: Vec<_> =
                instance.properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
            line(&paint.paint("32", "+"), instance, &visible(&properties.join(", ")).to_string())
        }
        Report::Bye(instance) => line(&paint.paint("33", "-"), instance, ""),
        Report::Event(event) => event_line(event, paint),
        Report::Role(casting) => match casting.role {
            Some(role) => format!("  pid {} is {}", casting.process.pid, role.name()),
            None => format!("  pid {} is no longer gunicorn's", casting.process.pid),
        },
        Report::Segment(segment) => {
            let spans = segment.spans.iter().rev();
            spans.map(|span| span_line(segment, span, paint)).collect::<Vec<_>>().join("\n")
        }
        Report::Meters(batch) => {
            let value = |meter: &Meter| {
                let name = meter.name.strip_prefix("instance_pvm_").unwrap_or(meter.name);
                format!("{name}={}", (meter.value * 100.0).round() / 100.0)
            };
            let values: Vec<_> = batch.meters.iter().map(value).collect();
            let (at, who) = (time(batch.at_ms), who(&batch.service, &batch.instance));
            format!("{at} {} {who} {}", paint.paint("36", "meters"), values.join(" "))
        }
    }
}

fn line(sign: &str, instance: &Instance, rest: &str) -> String {
    let role = instance.role.name();
    let who = who(&instance.service, &instance.name);
    format!("{sign} {who} {role} pid {} {rest}", instance.process.pid).trim_end().to_owned()
}

fn span_line(segment: &Segment, span: &Span, paint: Paint) -> String {
    let tag = |name: &str| span.tags.iter().find(|(key, _)| *key == name).map_or("-", |(_, value)| value);
    let status = visible(tag("http.status_code")).to_string();
    let status = paint.paint(if span.is_error { "31" } else { "32" }, format_args!("{status:>3}"));
    let queued = match span.queue_wait_ns {
        Some(ns) => format!(" (queued {} µs)", ns / 1000),
        None => String::new(),
    };
    format!(
        "{} {:<6} {status} {:<6} {:<32} {:>6} ms{queued}  {} {}",
        time(span.start_ms),
        kind(span.kind),
        visible(tag("http.method")).to_string(),
        visible(&span.operation).to_string(),
        span.end_ms.saturating_sub(span.start_ms),
        who(&segment.service, &segment.instance),
        paint.paint("2", format_args!("trace {}", visible(&segment.trace_id))),
    )
}

fn event_line(event: &Event, paint: Paint) -> String {
    let name = paint.paint(if event.error { "31" } else { "36" }, event.name.as_str());
    format!(
        "{} event  {name} {}  {}",
        time(event.end_ms.unwrap_or(event.start_ms)),
        visible(&event.message),
        who(&event.service, &event.instance)
    )
}

fn who(service: &str, instance: &str) -> String {
    format!("{}/{}", visible(service), visible(instance))
}

/// Time of day in UTC.
fn time(at_ms: i64) -> String {
    let ms = at_ms.rem_euclid(86_400_000);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1000)
}

/// Text of others without what could steer a terminal.
fn visible(text: &str) -> impl fmt::Display + '_ {
    struct Visible<'a>(&'a str);
    impl fmt::Display for Visible<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for c in self.0.chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            Ok(())
        }
    }
    Visible(text)
}

fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Entry => "entry",
        SpanKind::Exit => "exit",
        SpanKind::Local => "local",
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Json<'a> {
    Ready {
        #[serde(serialize_with = "map")]
        variants: &'a [(&'a str, &'a str)],
    },
    Stats {
        #[serde(serialize_with = "map")]
        drops: &'a [(&'a str, u64)],
    },
    Instance {
        service: &'a str,
        instance: &'a str,
        role: &'a str,
        pid: u32,
        #[serde(serialize_with = "map")]
        properties: &'a [(String, String)],
    },
    Gone {
        service: &'a str,
        instance: &'a str,
        pid: u32,
    },
    Segment {
        service: &'a str,
        instance: &'a str,
        trace_id: &'a str,
        segment_id: &'a str,
        spans: Vec<JsonSpan<'a>>,
    },
    Event {
        service: &'a str,
        instance: &'a str,
        name: &'a str,
        #[serde(rename = "type")]
        type_: &'a str,
        uuid: &'a str,
        start_ms: i64,
        end_ms: Option<i64>,
        message: &'a str,
        #[serde(serialize_with = "map")]
        parameters: &'a [(&'static str, String)],
    },
    Process {
        pid: u32,
        role: Option<&'a str>,
        parent: Option<u32>,
    },
    Meters {
        service: &'a str,
        instance: &'a str,
        at_ms: i64,
        #[serde(serialize_with = "meter_map")]
        meters: &'a [Meter],
    },
}

#[derive(Serialize)]
struct JsonSpan<'a> {
    id: i32,
    parent: i32,
    start_ms: i64,
    end_ms: i64,
    operation: &'a str,
    peer: &'a str,
    kind: &'a str,
    layer: &'a str,
    component: i32,
    is_error: bool,
    tags: &'a [(&'static str, String)],
    refs: Vec<JsonReference<'a>>,
    queue_wait_us: Option<u64>,
}

#[derive(Serialize)]
struct JsonReference<'a> {
    trace_id: &'a str,
    parent_segment_id: &'a str,
    parent_span_id: i32,
    parent_service: &'a str,
    parent_instance: &'a str,
    parent_endpoint: &'a str,
    address: &'a str,
}

fn json(report: &Report) -> Json<'_> {
    match report {
        Report::Hello(instance) => Json::Instance {
            service: &instance.service,
            instance: &instance.name,
            role: instance.role.name(),
            pid: instance.process.pid,
            properties: &instance.properties,
        },
        Report::Bye(instance) => {
            Json::Gone { service: &instance.service, instance: &instance.name, pid: instance.process.pid }
        }
        Report::Segment(segment) => Json::Segment {
            service: &segment.service,
            instance: &segment.instance,
            trace_id: &segment.trace_id,
            segment_id: &segment.segment_id,
            spans: segment.spans.iter().map(json_span).collect(),
        },
        Report::Event(event) => Json::Event {
            service: &event.service,
            instance: &event.instance,
            name: event.name.as_str(),
            type_: if event.error { "Error" } else { "Normal" },
            uuid: &event.uuid,
            start_ms: event.start_ms,
            end_ms: event.end_ms,
            message: &event.message,
            parameters: &event.parameters,
        },
        Report::Role(casting) => Json::Process {
            pid: casting.process.pid,
            role: casting.role.map(|role| role.name()),
            parent: casting.parent,
        },
        Report::Meters(batch) => Json::Meters {
            service: &batch.service,
            instance: &batch.instance,
            at_ms: batch.at_ms,
            meters: &batch.meters,
        },
    }
}

fn json_span(span: &Span) -> JsonSpan<'_> {
    JsonSpan {
        id: span.id,
        parent: span.parent,
        start_ms: span.start_ms,
        end_ms: span.end_ms,
        operation: &span.operation,
        peer: &span.peer,
        kind: kind(span.kind),
        layer: match span.layer {
            SpanLayer::Http => "Http",
        },
        component: span.component,
        is_error: span.is_error,
        tags: &span.tags,
        refs: span.refs.iter().map(json_reference).collect(),
        queue_wait_us: span.queue_wait_ns.map(|ns| ns / 1000),
    }
}

fn json_reference(reference: &Reference) -> JsonReference<'_> {
    JsonReference {
        trace_id: &reference.trace_id,
        parent_segment_id: &reference.parent_segment_id,
        parent_span_id: reference.parent_span_id,
        parent_service: &reference.parent_service,
        parent_instance: &reference.parent_instance,
        parent_endpoint: &reference.parent_endpoint,
        address: &reference.address,
    }
}

/// A list of pairs as an object, in the list's order.
fn map<K: Serialize, V: Serialize, S: Serializer>(pairs: &&[(K, V)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

fn meter_map<S: Serializer>(meters: &&[Meter], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(meters.iter().map(|meter| (meter.name, meter.value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ProcessKey;
    use crate::identity::Role;
    use crate::meter::MeterBatch;

    fn worker() -> Instance {
        Instance {
            process: ProcessKey { pid: 9, start: 1 },
            role: Role::Worker,
            service: "demo".into(),
            name: "base-master(7)-child(9)".into(),
            properties: vec![
                ("language".to_owned(), "python".to_owned()),
                ("OS Name".to_owned(), "posix".to_owned()),
            ],
        }
    }

    fn segment(operation: &str) -> Segment {
        let caller = Reference {
            trace_id: "t1".to_owned(),
            parent_segment_id: "s0".to_owned(),
            parent_span_id: 3,
            parent_service: "front".to_owned(),
            parent_instance: "f1".to_owned(),
            parent_endpoint: "/out".to_owned(),
            address: "demo:8000".to_owned(),
        };
        Segment {
            trace_id: "t1".to_owned(),
            segment_id: "s1".to_owned(),
            service: "demo".into(),
            instance: "base-master(7)-child(9)".into(),
            spans: vec![Span {
                id: 0,
                parent: -1,
                start_ms: 86_400_000 + 3_661_004,
                end_ms: 86_400_000 + 3_661_024,
                refs: vec![caller],
                operation: operation.to_owned(),
                peer: "127.0.0.1:5".to_owned(),
                kind: SpanKind::Entry,
                layer: SpanLayer::Http,
                component: 7001,
                is_error: false,
                tags: vec![("http.method", "GET".to_owned()), ("http.status_code", "200".to_owned())],
                queue_wait_ns: Some(12_345),
            }],
        }
    }

    fn numbers() -> MeterBatch {
        let meter = |name, value| Meter { name, value };
        MeterBatch {
            service: "demo".into(),
            instance: "i".into(),
            at_ms: 1500,
            meters: vec![
                meter("instance_pvm_total_cpu_utilization", 12.3456),
                meter("instance_pvm_gc_g0", 7.0),
            ],
        }
    }

    fn printed(format: Format, report: &Report) -> String {
        let mut printer = Printer::new(Vec::new(), format);
        printer.print(report).expect("a vector takes all");
        String::from_utf8(printer.out).expect("text")
    }

    #[test]
    fn json_lines_have_the_promised_members_in_the_promised_order() {
        let lines = [
            Report::Hello(worker()),
            Report::Bye(worker()),
            Report::Segment(segment("/a")),
            Report::Meters(numbers()),
        ]
        .map(|report| printed(Format::Json, &report));
        assert_eq!(
            lines,
            [
                "{\"kind\":\"instance\",\"service\":\"demo\",\"instance\":\"base-master(7)-child(9)\",\"role\":\"worker\",\
             \"pid\":9,\"properties\":{\"language\":\"python\",\"OS Name\":\"posix\"}}\n",
                "{\"kind\":\"gone\",\"service\":\"demo\",\"instance\":\"base-master(7)-child(9)\",\"pid\":9}\n",
                "{\"kind\":\"segment\",\"service\":\"demo\",\"instance\":\"base-master(7)-child(9)\",\"trace_id\":\"t1\",\
             \"segment_id\":\"s1\",\"spans\":[{\"id\":0,\"parent\":-1,\"start_ms\":90061004,\"end_ms\":90061024,\
             \"operation\":\"/a\",\"peer\":\"127.0.0.1:5\",\"kind\":\"entry\",\"layer\":\"Http\",\"component\":7001,\
             \"is_error\":false,\"tags\":[[\"http.method\",\"GET\"],[\"http.status_code\",\"200\"]],\
             \"refs\":[{\"trace_id\":\"t1\",\"parent_segment_id\":\"s0\",\"parent_span_id\":3,\"parent_service\":\"front\",\
             \"parent_instance\":\"f1\",\"parent_endpoint\":\"/out\",\"address\":\"demo:8000\"}],\"queue_wait_us\":12}]}\n",
                "{\"kind\":\"meters\",\"service\":\"demo\",\"instance\":\"i\",\"at_ms\":1500,\
             \"meters\":{\"instance_pvm_total_cpu_utilization\":12.3456,\"instance_pvm_gc_g0\":7.0}}\n",
            ]
        );
    }

    #[test]
    fn text_is_a_line_each() {
        let text = Format::Text { colour: false };
        assert_eq!(
            printed(text, &Report::Hello(worker())),
            "+ demo/base-master(7)-child(9) worker pid 9 language=python, OS Name=posix\n"
        );
        assert_eq!(printed(text, &Report::Bye(worker())), "- demo/base-master(7)-child(9) worker pid 9\n");
        assert_eq!(
            printed(text, &Report::Segment(segment("/a"))),
            "01:01:01.004Z entry  200 GET    /a                                   20 ms (queued 12 µs)  \
             demo/base-master(7)-child(9) trace t1\n"
        );
        assert_eq!(
            printed(text, &Report::Meters(numbers())),
            "00:00:01.500Z meters demo/i total_cpu_utilization=12.35 gc_g0=7\n"
        );
    }

    #[test]
    fn colours_only_when_asked_for_and_errors_in_red() {
        let mut failed = segment("/a");
        failed.spans[0].is_error = true;
        let failed = Report::Segment(failed);
        assert!(printed(Format::Text { colour: true }, &failed).contains("\x1b[31m200\x1b[0m"));
        assert!(!printed(Format::Text { colour: false }, &failed).contains('\x1b'));
    }

    #[test]
    fn a_request_cannot_steer_the_terminal() {
        let text = printed(Format::Text { colour: false }, &Report::Segment(segment("/\x1b[2J\n")));
        assert!(text.contains("/\\u{1b}[2J\\n") && text.matches('\n').count() == 1);
    }

    #[test]
    fn a_reader_that_went_away_is_an_error_not_a_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in [Format::Json, Format::Text { colour: false }] {
            let error = Printer::new(Closed, format).print(&Report::Bye(worker())).expect_err("closed");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
