//! What the observer reported against what the client, the workers and gunicorn's access log know.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use crate::client::Sent;
use crate::gunicorn::Gunicorn;
use crate::observer::Line;
use crate::observer::Report;
use crate::observer::Segment;
use crate::observer::Span;
use crate::observer::instances;
use crate::observer::segments;

/// SkyWalking's number of a framework that is not known.
const PYTHON: i32 = 7000;
/// How much earlier than the client's a start may seem, in ms.
const EARLY: f64 = 2.0;
/// How much later than the client's an end may seem, in ms.
const LATE: f64 = 5.0;
/// The same where clients and workers take the processors from one another: a worker that is set aside at the end of its write
/// is that late.
const BUSY: f64 = 500.0;
/// Where the time of a request went, in the order of their tags.
const TIMES: [&str; 5] =
    ["time.queue_us", "time.accept_us", "time.first_byte_us", "time.transfer_us", "time.service_us"];
/// The most faults that a failure lists.
const SHOWN: usize = 20;

/// What must have been reported.
#[derive(Debug)]
pub struct Expectation<'a> {
    gunicorn: &'a Gunicorn,
    sent: &'a [Sent],
    maybe: BTreeSet<&'a str>,
    losses: BTreeSet<&'a str>,
    /// The framework may not have been recognised.
    brief: bool,
    /// How much later than the client's an end may seem, in ms.
    late: f64,
    names: BTreeMap<u32, String>,
    faults: Vec<String>,
}

impl<'a> Expectation<'a> {
    /// One segment for each request that was sent, no other, and nothing lost.
    pub fn new(gunicorn: &'a Gunicorn, sent: &'a [Sent]) -> Self {
        Self {
            gunicorn,
            sent,
            maybe: BTreeSet::new(),
            losses: BTreeSet::new(),
            brief: false,
            late: LATE,
            names: gunicorn.ever().into_iter().map(|pid| (pid, gunicorn.worker_name(pid))).collect(),
            faults: Vec::new(),
        }
    }

    /// At most one segment for each of these as well.
    pub fn maybe(mut self, sent: &'a [Sent]) -> Self {
        self.maybe.extend(sent.iter().map(|sent| sent.path.as_str()));
        self
    }

    /// No worker lives long enough that its framework is recognised for certain.
    pub fn brief(mut self) -> Self {
        self.brief = true;
        self
    }

    /// There are more threads with work to do than processors.
    pub fn busy(mut self) -> Self {
        self.late = BUSY;
        self
    }

    /// Reasons for which something may be lost.
    pub fn losing(mut self, reasons: &[&'a str]) -> Self {
        self.losses.extend(reasons);
        self
    }

    /// Fails with everything that differs.
    pub fn check(mut self, report: &Report) {
        report.assert_code(0);
        self.requests(&report.lines);
        self.losses(report);
        self.end(report);
    }

    /// As [`Expectation::check`], and the counts of the workers and of the access log, where the class writes one, are
    /// those of the segments.
    pub fn check_counts(mut self, report: &Report) {
        report.assert_code(0);
        self.requests(&report.lines);
        self.losses(report);
        self.counts(report);
        if self.gunicorn.logs_access() {
            self.logged(report);
        }
        self.end(report);
    }

    /// As [`Expectation::check`] for an observer that was killed and so has no last word.
    pub fn check_killed(mut self, report: &Report) {
        self.requests(&report.lines);
        self.end(report);
    }

    fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    fn requests(&mut self, lines: &[Line]) {
        let mut by_path: HashMap<&str, Vec<&Segment>> = HashMap::new();
        let mut ids = BTreeSet::new();
        for segment in segments(lines, self.gunicorn.service()) {
            if !ids.insert(&segment.segment_id) {
                self.fault(format!("two segments have the id {}", segment.segment_id));
            }
            let path = segment.spans.last().map_or("", |span| span.operation.as_str());
            by_path.entry(path).or_default().push(segment);
        }
        for sent in self.sent {
            if sent.status.is_none() || sent.error.is_some() {
                self.fault(format!("the client got no whole response: {}", shown(sent)));
            }
            let mut found = by_path.remove(sent.path.as_str());
            if let Some(found) = &mut found {
                found.retain(|segment| !is_abandoned(sent, segment));
            }
            match found.as_deref() {
                None => self.fault(format!("missing: {}", shown(sent))),
                Some([segment]) => self.segment(sent, segment),
                Some(more) => self.fault(format!("{} times: {}: {more:?}", more.len(), shown(sent))),
            }
        }
        for (path, found) in by_path {
            if found.len() > 1 || !self.maybe.contains(path) {
                self.fault(format!("extra: {path:?}: {found:?}"));
            }
        }
    }

    fn segment(&mut self, sent: &Sent, segment: &Segment) {
        let mut wrong = Vec::new();
        let is_right = match sent.worker {
            Some(worker) => self.names.get(&worker) == Some(&segment.instance),
            None => self.names.values().any(|name| *name == segment.instance),
        };
        if !is_right {
            wrong.push("instance".to_owned());
        }
        match segment.spans.as_slice() {
            [span] => {
                let component = self.gunicorn.component();
                let found = if self.brief && span.component == PYTHON { PYTHON } else { component };
                wrong.extend(span_faults(sent, span, found, self.late));
            }
            spans => wrong.push(format!("{} spans", spans.len())),
        }
        for (name, id) in [("trace_id", &segment.trace_id), ("segment_id", &segment.segment_id)] {
            if id.is_empty() {
                wrong.push(format!("no {name}"));
            }
        }
        if !wrong.is_empty() {
            self.fault(format!("{} wrong: {}: {segment:?}", wrong.join(", "), shown(sent)));
        }
    }

    fn losses(&mut self, report: &Report) {
        let abandoned: usize = self.sent.iter().map(|sent| sent.abandoned.len()).sum();
        for (reason, count) in report.drops() {
            let allowed = if reason == "cut" { abandoned as u64 } else { 0 };
            if *count > allowed && !self.losses.contains(reason.as_str()) {
                self.fault(format!("lost: {reason} {count} times"));
            }
        }
    }

    fn counts(&mut self, report: &Report) {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for segment in segments(&report.lines, self.gunicorn.service()) {
            *seen.entry(&segment.instance).or_default() += 1;
        }
        for (worker, count) in self.gunicorn.counts() {
            let name = self.gunicorn.worker_name(worker);
            let reported = seen.remove(name.as_str()).unwrap_or(0);
            if reported != count {
                self.fault(format!("{name} counted {count} requests, reported are {reported}"));
            }
        }
        for (name, count) in seen {
            self.fault(format!("{name} counted no requests, reported are {count}"));
        }
    }

    fn logged(&mut self, report: &Report) {
        let logged: BTreeSet<String> = self.gunicorn.access().into_iter().map(|access| access.path).collect();
        let reported: BTreeSet<String> = segments(&report.lines, self.gunicorn.service())
            .filter_map(|segment| segment.spans.last())
            .map(|span| span.operation.clone())
            .collect();
        let difference: Vec<_> = logged.symmetric_difference(&reported).take(SHOWN).collect();
        if !difference.is_empty() {
            self.fault(format!("in the access log or reported, but not both: {difference:?}"));
        }
    }

    fn end(self, report: &Report) {
        if self.faults.is_empty() {
            return;
        }
        let shown: Vec<_> = self.faults.iter().take(SHOWN).map(String::as_str).collect();
        panic!(
            "{} faults in {} requests:\n{}\nlast line: {:?}\nlog of sw-observe:\n{}\nend of gunicorn's log:\n{}",
            self.faults.len(),
            self.sent.len(),
            shown.join("\n"),
            report.lines.last(),
            tail(&report.stderr),
            tail(&self.gunicorn.log()),
        );
    }
}

/// A try over a connection that the server closed without an answer.
fn is_abandoned(sent: &Sent, segment: &Segment) -> bool {
    let on =
        |span: &Span, port: &Option<u16>| port.is_some_and(|port| span.peer == format!("127.0.0.1:{port}"));
    let lost = |span: &Span| span.is_error && span.tag("http.status_code").is_none();
    segment.spans.last().is_some_and(|span| lost(span) && sent.abandoned.iter().any(|port| on(span, port)))
}

/// What is wrong with the span of a request.
fn span_faults(sent: &Sent, span: &Span, component: i32, late: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |is_right: bool, what: &str| {
        if !is_right {
            wrong.push(what.to_owned());
        }
    };
    let status = sent.status.map(|status| status.to_string());
    let scheme = if sent.encrypted { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", sent.host, sent.path);
    let rest = span.tag("http.url").and_then(|found| found.strip_prefix(&url));
    let names: Vec<_> = span.tags.iter().map(|(name, _)| name.as_str()).collect();
    check(
        span.kind == "entry" && span.layer == "Http" && span.component == component,
        "kind, layer or component",
    );
    check(span.tag("http.method") == Some(&sent.method), "http.method");
    check(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?')), "http.url");
    check(span.tag("http.status_code") == status.as_deref(), "http.status_code");
    let ours = names.strip_prefix(["http.method", "http.url", "http.status_code"].as_slice());
    check(ours.is_some_and(|ours| in_order(ours, &TIMES)), "order of tags");
    check(span.is_error == sent.status.is_none_or(|status| status >= 400), "is_error");
    check(sent.port.is_none_or(|port| span.peer == format!("127.0.0.1:{port}")), "peer");
    let (start, end) = (ms(span.start_ms), ms(span.end_ms));
    let margin = |ms: f64| format!("{ms:.1} ms");
    check(start >= sent.start - EARLY, &format!("start (early by {})", margin(sent.start - start)));
    check(start <= end, "start after end");
    check(
        start <= sent.end + late,
        &format!("start (after the client's end by {})", margin(start - sent.end)),
    );
    wrong_times(span, sent).into_iter().for_each(|what| check(false, what));
    if sent.framed {
        check(end <= sent.end + late, &format!("end (late by {})", margin(end - sent.end)));
    }
    wrong
}

/// Whether these are some of those, in their order.
fn in_order(some: &[&str], all: &[&str]) -> bool {
    let mut all = all.iter();
    some.iter().all(|name| all.any(|known| known == name))
}

/// What does not fit together of a span's times, and with what the client saw.
fn wrong_times(span: &Span, sent: &Sent) -> Vec<&'static str> {
    let us = |name: &str| span.tag(name).map(|text| text.parse().unwrap_or(f64::NAN));
    let [queue, accept, first, transfer, service] = TIMES.map(us);
    let (start, end) = (ms(span.start_ms), ms(span.end_ms));
    // Each is cut to whole microseconds, the span's own to milliseconds.
    let parts = first.zip(transfer).map(|(first, transfer)| first + transfer);
    let took = service.unwrap_or(f64::NAN);
    let rules = [
        (parts.is_none_or(|parts| (took - 2.0..=took).contains(&parts)), "first byte and transfer"),
        ((took / 1e3 - (end - start)).abs() <= 1.0, "service time"),
        (accept.zip(queue).is_none_or(|(accept, queue)| accept <= queue), "accepted after it was read"),
        (
            queue.is_none_or(|queue| queue / 1e3 <= start - sent.start + 1.0 + EARLY),
            "queued before it was sent",
        ),
    ];
    rules.into_iter().filter(|(is_right, _)| !is_right).map(|(_, what)| what).collect()
}

#[expect(clippy::cast_precision_loss, reason = "ms since 1970 have 41 bits")]
fn ms(value: i64) -> f64 {
    value as f64
}

/// The master and these workers are instances with properties, once each, and all of them are gone.
pub fn check_instances(report: &Report, gunicorn: &Gunicorn, workers: &[u32]) {
    let mut faults = Vec::new();
    let master = (gunicorn.master(), "master", gunicorn.master_name());
    let workers = workers.iter().map(|pid| (*pid, "worker", gunicorn.worker_name(*pid)));
    let wanted: Vec<_> = [master].into_iter().chain(workers).collect();
    for (pid, role, name) in &wanted {
        let found: Vec<_> =
            instances(&report.lines, gunicorn.service()).filter(|found| found.pid == *pid).collect();
        let [instance] = found.as_slice() else {
            faults.push(format!("{role} {name}: {} times an instance", found.len()));
            continue;
        };
        let property =
            |key: &str| instance.properties.get(key).map(|value| value.to_string().replace('"', ""));
        if (instance.role.as_str(), &instance.instance) != (role, name) {
            faults.push(format!("not {role} {name} but {instance:?}"));
        }
        for (key, value) in [("language", "python"), ("OS Name", "posix"), ("Process No.", &pid.to_string())]
        {
            if property(key).as_deref() != Some(value) {
                faults.push(format!("{name}: property {key} is {:?}", property(key)));
            }
        }
        if property("hostname").is_none_or(|host| host.is_empty()) {
            faults.push(format!("{name}: no property hostname"));
        }
        let ends =
            report.lines.iter().filter(|line| matches!(line, Line::Gone { pid: gone, .. } if gone == pid));
        if ends.count() != 1 {
            faults.push(format!("{name} is not gone once"));
        }
    }
    for instance in instances(&report.lines, gunicorn.service()) {
        if !wanted.iter().any(|(pid, ..)| *pid == instance.pid) {
            faults.push(format!("extra: {instance:?}"));
        }
    }
    assert!(faults.is_empty(), "{}\nlog of sw-observe:\n{}", faults.join("\n"), tail(&report.stderr));
}

fn shown(sent: &Sent) -> String {
    let Sent { method, path, status, worker, port, start, end, error, .. } = sent;
    format!(
        "{method} {path} {status:?} by {worker:?} from port {port:?}, {start:.1} to {end:.1}, error {error:?}"
    )
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(60)).map(|line| format!("  {line}\n")).collect()
}
