//! Reports as text: lines for people, or one JSON object per line for programs.

mod json; // one object per report
mod text; // lines

use std::io;
use std::io::Write;

use crate::report::Report;
use crate::report::print::json::Json;
use crate::report::print::text::Paint;
use crate::trace::SpanKind;

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
            Format::Text { colour } => self.line(&text::lines(report, Paint { colour })),
            Format::Json => self.json(&json::of(report)),
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

    /// Says what was lost, by reason, and what was left out on purpose.
    ///
    /// # Errors
    /// As for [`Printer::print`].
    pub fn stats(&mut self, drops: &[(&str, u64)], left_out: &[(&str, u64)]) -> io::Result<()> {
        match self.format {
            Format::Text { .. } => {
                let said = [("lost", drops), ("left out on purpose", left_out)];
                let mut said = said.into_iter().filter(|(_, counts)| !counts.is_empty());
                said.try_for_each(|(what, counts)| self.line(&text::counts(what, counts)))
            }
            Format::Json => self.json(&Json::Stats { drops, left_out }),
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

/// As both formats call it.
fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Entry => "entry",
        SpanKind::Exit => "exit",
        SpanKind::Local => "local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Casting;
    use crate::identity::Instance;
    use crate::identity::ProcessKey;
    use crate::identity::Role;
    use crate::identity::event::Event;
    use crate::identity::event::EventName;
    use crate::meter::Meter;
    use crate::meter::MeterBatch;
    use crate::trace::Reference;
    use crate::trace::Segment;
    use crate::trace::Span;
    use crate::trace::SpanLayer;

    pub(super) fn worker() -> Instance {
        Instance {
            process: ProcessKey { pid: 9, start: 1 },
            role: Role::Worker,
            service: "demo".into(),
            name: "base-master(7)-child(9)".into(),
            properties: vec![
                ("language".to_owned(), "python".to_owned()),
                ("OS Name".to_owned(), "posix".to_owned()),
            ],
            pace: crate::identity::Pace::default(),
        }
    }

    pub(super) fn segment(operation: &str) -> Segment {
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
            trace_id: "t1".into(),
            segment_id: "s1".into(),
            service: "demo".into(),
            instance: "base-master(7)-child(9)".into(),
            correlation: vec![("user".to_owned(), "not shown".to_owned())],
            spans: vec![Span {
                id: 0,
                parent: -1,
                start_ms: 86_400_000 + 3_661_004,
                end_ms: 86_400_000 + 3_661_024,
                refs: vec![caller],
                operation: operation.into(),
                peer: "127.0.0.1:5".into(),
                kind: SpanKind::Entry,
                layer: SpanLayer::Http,
                component: 7001,
                is_error: false,
                tags: vec![("http.method", "GET".into()), ("http.status_code", "200".into())],
                queue_wait_ns: Some(12_345),
            }],
        }
    }

    pub(super) fn numbers() -> MeterBatch {
        MeterBatch {
            service: "demo".into(),
            instance: "i".into(),
            at_ms: 1500,
            meters: vec![
                Meter::new("instance_pvm_total_cpu_utilization", 12.3456),
                Meter::new("instance_pvm_gc_g0", 7.0),
            ],
        }
    }

    /// An exit that began at 1.5 s, and is over at 2 s or is not.
    pub(super) fn exit(over: bool) -> Event {
        Event {
            uuid: "u1".to_owned(),
            service: "demo".into(),
            instance: "base-master(7)-child(9)".into(),
            name: EventName::Exit,
            error: over,
            message: "killed by signal 9".to_owned(),
            parameters: vec![("cause", "killed".to_owned()), ("pid", "9".to_owned())],
            start_ms: 1500,
            end_ms: over.then_some(2000),
        }
    }

    /// The process 9.
    pub(super) fn casting(role: Option<Role>, parent: Option<u32>) -> Casting {
        Casting { process: ProcessKey { pid: 9, start: 1 }, role, parent }
    }

    pub(super) fn printed(format: Format, report: &Report) -> String {
        let mut printer = Printer::new(Vec::new(), format);
        printer.print(report).expect("a vector takes all");
        String::from_utf8(printer.out).expect("text")
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
