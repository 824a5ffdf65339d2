//! Reports as lines to read.

use std::fmt;

use crate::identity::Instance;
use crate::identity::event::Event;
use crate::meter::Meter;
use crate::report::Report;
use crate::report::print::kind;
use crate::trace::Segment;
use crate::trace::Span;

/// With or without the colours of a terminal.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) colour: bool,
}

impl Paint {
    /// `text` in an ANSI colour.
    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// One line per report, one per span.
pub(super) fn lines(report: &Report, paint: Paint) -> String {
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
                let key = meter.key();
                let name = key.strip_prefix("instance_pvm_").unwrap_or(&key);
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

/// What was lost or left out, by reason.
pub(super) fn counts(what: &str, counts: &[(&str, u64)]) -> String {
    let said: Vec<_> = counts.iter().map(|(reason, n)| format!("{reason}={n}")).collect();
    format!("{what}: {}", said.join(" "))
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

#[cfg(test)]
mod tests {
    use crate::identity::Role;
    use crate::report::Report;
    use crate::report::print::Format;
    use crate::report::print::tests::casting;
    use crate::report::print::tests::exit;
    use crate::report::print::tests::numbers;
    use crate::report::print::tests::printed;
    use crate::report::print::tests::segment;
    use crate::report::print::tests::worker;

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
    fn an_event_is_at_the_time_of_what_it_says() {
        let text = Format::Text { colour: false };
        assert_eq!(
            [false, true].map(|over| printed(text, &Report::Event(exit(over)))),
            [
                "00:00:01.500Z event  Exit killed by signal 9  demo/base-master(7)-child(9)\n",
                "00:00:02.000Z event  Exit killed by signal 9  demo/base-master(7)-child(9)\n",
            ]
        );
        let colour = Format::Text { colour: true };
        assert!(printed(colour, &Report::Event(exit(true))).contains("\x1b[31mExit\x1b[0m"));
        assert!(printed(colour, &Report::Event(exit(false))).contains("\x1b[36mExit\x1b[0m"));
    }

    #[test]
    fn a_role_is_a_line_and_so_is_its_end() {
        let text = Format::Text { colour: false };
        let role = Report::Role(casting(Some(Role::DirtyArbiter), Some(7)));
        assert_eq!(printed(text, &role), "  pid 9 is dirty-arbiter\n");
        assert_eq!(printed(text, &Report::Role(casting(None, None))), "  pid 9 is no longer gunicorn's\n");
    }

    #[test]
    fn an_event_cannot_steer_the_terminal() {
        let mut event = exit(true);
        event.message = "sent by \x1b[2J\n".to_owned();
        let line = printed(Format::Text { colour: false }, &Report::Event(event));
        assert!(line.contains("sent by \\u{1b}[2J\\n") && line.matches('\n').count() == 1);
    }
}
