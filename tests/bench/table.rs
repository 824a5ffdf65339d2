//! Results as text.

use std::fmt::Write as _;

use crate::files::Files;
use crate::lossless::Step;
use crate::round::Case;
use crate::round::Program;
use crate::round::Round;
use crate::round::Side;
use crate::scale::Point;

/// A figure of a case: its name, where it is, and how many digits behind the point.
type Figure = (&'static str, fn(&Round) -> f64, usize);

const FIGURES: [Figure; 8] = [
    ("gunicorn, CPU µs per request", |round| round.gunicorn_us, 0),
    ("observer, CPU µs per request", |round| round.observer_us, 1),
    ("requests per second", |round| round.throughput, 0),
    ("time of half of them, ms", |round| round.p50_ms, 2),
    ("time of 99 %, ms", |round| round.p99_ms, 2),
    ("memory of a worker, MiB", |round| round.worker_kib / 1024.0, 1),
    ("memory of the observer, MiB", |round| round.observer_kib / 1024.0, 1),
    ("most memory of the observer, MiB", |round| round.observer_peak_kib / 1024.0, 1),
];

/// Medians with least and most, and ratios to gunicorn alone.
pub fn case(case: &Case) -> String {
    let rounds = case.sides.first().map_or(0, |side| side.rounds.len());
    let mut text = format!("{}: {rounds} rounds of {} requests\n{:<34}", case.name, case.requests, "");
    for side in &case.sides {
        _ = write!(text, "{:<34}", side.side.name());
    }
    for (name, figure, digits) in FIGURES {
        _ = write!(text, "\n{name:<34}");
        for side in &case.sides {
            let (median, least, most) = side.of(figure);
            let ratio = case.ratio(side.side, figure).filter(|_| side.side != Side::Alone);
            let ratio = ratio.map_or_else(String::new, |ratio| format!(" ×{ratio:.2}"));
            let cell = format!("{median:.digits$}{ratio} ({least:.digits$} to {most:.digits$})");
            _ = write!(text, "{:<34}", if most == 0.0 { "–".to_owned() } else { cell });
        }
    }
    for side in case.sides.iter().filter(|side| side.sum(|round| round.lost) > 0.0) {
        _ = write!(text, "\n{} lost {} requests", side.side.name(), side.sum(|round| round.lost));
    }
    for program in &case.programs {
        let Program { name, runs_per_request, run_ns } = program;
        _ = write!(text, "\n    {name:<40}{runs_per_request:>8.2} runs per request{run_ns:>8.0} ns each");
    }
    _ = writeln!(text, "\nprograms, as the kernel accounts them: {:.1} µs per request", case.programs_us());
    text
}

/// One line of the table of steps.
pub fn point(point: &Point) -> String {
    let mut text = format!(
        "{:>8}{:>9}{:>13}{:>13.2}{:>9.2}{:>12.2}{:>15.1}{:>13.1}{:>10.1}",
        point.class,
        point.workers,
        point.connections,
        point.announced_s,
        point.announced_cpu_s,
        point.idle_percent,
        point.gunicorn_percent,
        mib(point.resident_kib),
        mib(point.peak_kib)
    );
    if let Some(lost) = &point.lost {
        _ = write!(text, "\n{:>8}lost: {lost}", "");
    }
    text
}

/// The head of the table of steps.
pub fn points() -> String {
    format!(
        "{:>8}{:>9}{:>13}{:>13}{:>9}{:>12}{:>15}{:>13}{:>10}",
        "class",
        "workers",
        "connections",
        "announced s",
        "CPU s",
        "idle CPU %",
        "gunicorn CPU %",
        "memory MiB",
        "peak MiB"
    )
}

/// One line of the table of rates.
pub fn step(step: &Step) -> String {
    let observed = if step.observed { "observed" } else { "alone" };
    let wanted = step.wanted.map_or_else(|| "most".to_owned(), |rate| rate.to_string());
    let mut text = format!(
        "{observed:>9}{:>7}{wanted:>8}{:>10.0}{:>10}{:>9}{:>14.1}{:>14.1}{:>16.0}{:>12.1}",
        step.depth,
        step.reached,
        step.sent,
        step.missing,
        step.gunicorn_us,
        step.observer_us,
        step.observer_percent,
        mib(step.resident_kib)
    );
    if let Some(lost) = &step.lost {
        _ = write!(text, "\n{:>9}lost: {lost}", "");
    }
    text
}

/// The head of the table of rates.
pub fn steps() -> String {
    format!(
        "{:>9}{:>7}{:>8}{:>10}{:>10}{:>9}{:>14}{:>14}{:>16}{:>12}",
        "side",
        "depth",
        "wanted",
        "reached/s",
        "requests",
        "missing",
        "gunicorn µs",
        "observer µs",
        "observer CPU %",
        "memory MiB"
    )
}

/// One line of the table of files.
pub fn files(files: &Files) -> String {
    let Files { files, masters, timed_s, timed_cpu_s, stopped_s } = files;
    format!("{files:>8}{masters:>9}{timed_s:>9.1}{timed_cpu_s:>9.2}{stopped_s:>11.1}")
}

/// The head of the table of files.
pub fn files_head() -> String {
    format!("{:>8}{:>9}{:>9}{:>9}{:>11}", "files", "masters", "timed s", "CPU s", "stopped s")
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
