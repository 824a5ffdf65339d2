//! Results as text.

use std::fmt::Write as _;

use crate::round::Case;
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
    text.push('\n');
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

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
