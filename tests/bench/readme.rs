//! README's section about costs, from the results.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::files::Files;
use crate::lossless::Step;
use crate::round::Case;
use crate::round::Rounds;
use crate::round::Side;
use crate::scale::Point;
use crate::vm::Run;

const BEGIN: &str = "<!-- bench:begin -->\n";
const END: &str = "<!-- bench:end -->";

/// Puts a new section between the marks of this page.
///
/// # Errors
/// A page that cannot be read or written, or without marks.
pub fn rewrite(page: &Path, results: &Results) -> Result<(), String> {
    let shown = page.display();
    let text = fs::read_to_string(page).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let replaced = replaced(&text, &results.section())
        .ok_or_else(|| format!("{shown} has no {} and {END}", BEGIN.trim()))?;
    fs::write(page, replaced).map_err(|error| format!("cannot write {shown}: {error}"))
}

fn replaced(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{section}{END}{after}"))
}

/// Everything that was measured.
pub struct Results {
    pub cases: Vec<Case>,
    pub steps: Vec<Step>,
    pub points: Vec<Point>,
    pub files: Vec<Files>,
    pub run: Run,
}

impl Results {
    fn section(&self) -> String {
        let parts = [self.requests(), self.lossless(), self.scale(), self.many_files(), machine(&self.run)];
        parts.concat()
            + "\nTo measure it yourself: `cargo xtask bench`; with `--quick`, to see whether it works.\n"
    }

    fn requests(&self) -> String {
        let cases = &self.cases;
        let sides = cases.iter().flat_map(|case| &case.sides);
        let rounds = sides.map(|side| side.rounds.len()).max().unwrap_or(0);
        let mut text = format!(
            "Medians of {rounds} rounds on each side, in turn; two workers, a client with two connections. `×` is by gunicorn alone; \
             empty probes are what the kernel takes to reach them.\n\n\
             | | CPU per request in gunicorn | with sw-observe | with empty probes | with the Python agent 1.2.0 | throughput \
             | with the agent | CPU per request in sw-observe |\n|---|---|---|---|---|---|---|---|\n"
        );
        for case in cases {
            let alone = case.side(Side::Alone).map_or(0.0, |side| side.of(|round| round.gunicorn_us).0);
            let observer = case.side(Side::Observed).map_or(0.0, |side| side.of(|round| round.observer_us).0);
            let ratio =
                |side, of| case.ratio(side, of).map_or("–".to_owned(), |ratio| format!("×{ratio:.2}"));
            _ = writeln!(
                text,
                "| {} | {alone:.0} µs | {} | {} | {} | {} | {} | {observer:.0} µs |",
                case.name,
                ratio(Side::Observed, |round| round.gunicorn_us),
                ratio(Side::Empty, |round| round.gunicorn_us),
                ratio(Side::Agent, |round| round.gunicorn_us),
                ratio(Side::Observed, |round| round.throughput),
                ratio(Side::Agent, |round| round.throughput),
            );
        }
        _ = write!(
            text,
            "\nClient, gunicorn, sw-observe and a collector that takes its reports share the processors. sw-observe's memory is {} at \
             most, and {} for a moment at the start, while the kernel's types are read; a worker has {} more with it, and {} more \
             with the agent. Requests that were not reported: {} with sw-observe, {} with the agent.\n",
            most(cases, |side| side.of(|round| round.observer_kib).0, Side::Observed),
            most(cases, |side| side.of(|round| round.observer_peak_kib).2, Side::Observed),
            grown(cases, Side::Observed),
            grown(cases, Side::Agent),
            lost(cases, Side::Observed),
            lost(cases, Side::Agent),
        );
        text
    }

    /// The highest rate before the first loss, for each depth.
    fn lossless(&self) -> String {
        let mut text = String::new();
        for depth in [1, 16] {
            let mut steps: Vec<_> =
                self.steps.iter().filter(|step| step.observed && step.depth == depth).collect();
            steps.sort_by(|a, b| a.reached.total_cmp(&b.reached));
            let whole = steps.iter().take_while(|step| step.missing == 0).last();
            let Some(step) = whole else { continue };
            let sends = if depth == 1 {
                "one request at a time on each connection".to_owned()
            } else {
                format!("{depth} requests at a time")
            };
            let rest = if steps.last().is_some_and(|last| last.missing == 0) {
                "as many as could be answered"
            } else {
                "more were not all reported"
            };
            _ = writeln!(
                text,
                "* {sends}: {:.0} requests per second, {rest}; {:.1} µs of CPU per request in sw-observe, {} MB.",
                step.reached,
                step.observer_us,
                step.resident_kib / 1024
            );
        }
        if text.is_empty() {
            return text;
        }
        format!(
            "\nWithout a loss, from a gunicorn whose worker class is a server in C, 32 connections:\n\n{text}"
        )
    }

    fn scale(&self) -> String {
        if self.points.is_empty() {
            return String::new();
        }
        let mut text = String::from(
            "\nIdle, with heartbeats of each worker every second (gthread) or every 15 s (sync):\n\n\
             | workers | open connections | CPU of sw-observe | memory | announced after |\n|---|---|---|---|---|\n",
        );
        for point in &self.points {
            _ = writeln!(
                text,
                "| {} {} | {} | {:.2} % of a core | {} MB | {:.1} s |",
                point.workers,
                point.class,
                point.connections,
                point.idle_percent,
                point.resident_kib / 1024,
                point.announced_s
            );
        }
        text
    }

    fn many_files(&self) -> String {
        let Some(Files { files, masters, timed_s, stopped_s, .. }) = self.files.last() else {
            return String::new();
        };
        format!(
            "\n{masters} masters on {files} files of interpreters: {timed_s:.1} s from the start until the collector of each \
             is timed, {stopped_s:.1} s to stop.\n"
        )
    }
}

/// What the variants cost, each in a column.
fn machine(run: &Run) -> String {
    let mut text = String::new();
    _ = writeln!(
        text,
        "\nWhat each way to attach costs in gunicorn, watched and, in parentheses, not watched; in an emulated machine with \
         Linux {} whose clock counts instructions, one worker, {} rounds:\n\n\
         | | alone | fentry | kprobe | tracepoint |\n|---|---|---|---|---|",
        run.kernel,
        run.count()
    );
    for case in run.cases() {
        let sides = run.sides(case);
        let ratio = |side: &str| sides.iter().find(|cell| cell.side == side).map_or(0.0, |cell| cell.ratio);
        let alone = sides.iter().find(|cell| cell.side == "alone").map_or(0.0, |cell| cell.gunicorn_us.0);
        _ = write!(text, "| {case} | {:.0} thousand instructions |", alone / 2.0);
        for variant in ["fentry", "kprobe", "tracepoint"] {
            let (watched, unwatched) = (ratio(variant), ratio(&format!("{variant}, not watched")));
            _ = write!(text, " ×{watched:.3} (×{unwatched:.3}) |");
        }
        text.push('\n');
    }
    text.push_str(
        "\nInstructions undercount what takes long: cache misses, entries into the kernel, and traps, which are most of what a \
         kprobe costs where it is a breakpoint.\n",
    );
    text
}

fn most(cases: &[Case], of: fn(&Rounds) -> f64, side: Side) -> String {
    let values = cases.iter().filter_map(|case| case.side(side)).map(of);
    format!("{:.0} MB", values.fold(0.0, f64::max) / 1024.0)
}

/// From the least to the most that a worker has more than alone.
fn grown(cases: &[Case], side: Side) -> String {
    let memory = |rounds: &Rounds| rounds.of(|round| round.worker_kib).0 / 1024.0;
    let more = |case: &Case| Some(memory(case.side(side)?) - memory(case.side(Side::Alone)?));
    let all: Vec<f64> = cases.iter().filter_map(more).collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min).max(0.0);
    let most = all.iter().copied().fold(0.0, f64::max);
    if most < 0.5 {
        return "0 MB".to_owned();
    }
    format!("{least:.0} to {most:.0} MB")
}

fn lost(cases: &[Case], side: Side) -> f64 {
    cases.iter().filter_map(|case| case.side(side)).map(|side| side.sum(|round| round.lost)).sum()
}
