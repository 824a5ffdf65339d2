//! One measurement, and what many of them come to.
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

use serde::Deserialize;
use serde::Serialize;

/// With what a gunicorn runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Nothing.
    Alone,
    /// `sw-observe`.
    Observed,
    /// The same probes, empty: the kernel reaches them and they return. It is the least that any probes in these places cost.
    Empty,
    /// The SkyWalking Python agent inside.
    Agent,
}

impl Side {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Side::Alone => "alone",
            Side::Observed => "sw-observe",
            Side::Empty => "empty probes",
            Side::Agent => "Python agent",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Round {
    /// CPU time per request in gunicorn's master and workers, in µs.
    pub gunicorn_us: f64,
    /// CPU time per request in the observer, in µs.
    pub observer_us: f64,
    /// Requests per second.
    pub throughput: f64,
    /// The time that half of the requests took at most, in ms.
    pub p50_ms: f64,
    /// The time that 99 of 100 requests took at most, in ms.
    pub p99_ms: f64,
    /// Resident memory of a worker on average, in KiB.
    pub worker_kib: f64,
    /// Resident memory of the observer, in KiB.
    pub observer_kib: f64,
    /// The most that it had, in KiB.
    pub observer_peak_kib: f64,
    /// Requests that nobody reported, of those that somebody should have.
    pub lost: f64,
}

/// The rounds of one side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rounds {
    /// Which.
    pub side: Side,
    /// In the order in which they were measured.
    pub rounds: Vec<Round>,
}

/// A workload with the rounds of all its sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// What was served.
    pub name: String,
    /// Requests of a round.
    pub requests: usize,
    /// Those that were measured; alone is the first.
    pub sides: Vec<Rounds>,
    /// What the probes' programs cost in one more round with `sw-observe`, those that ran.
    pub programs: Vec<Program>,
}

/// What one BPF program costs, as the kernel accounts it: two readings of its clock are in each run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its name in the object.
    pub name: String,
    /// How often it runs, by requests.
    pub runs_per_request: f64,
    /// Time of one run, in ns.
    pub run_ns: f64,
}

impl Rounds {
    /// Median, least and most.
    pub fn of(&self, figure: fn(&Round) -> f64) -> (f64, f64, f64) {
        middle(self.rounds.iter().map(figure).collect())
    }

    /// The sum over all rounds.
    pub fn sum(&self, figure: fn(&Round) -> f64) -> f64 {
        self.rounds.iter().map(figure).sum()
    }
}

impl Case {
    /// One side, if it was measured.
    pub fn side(&self, side: Side) -> Option<&Rounds> {
        self.sides.iter().find(|rounds| rounds.side == side)
    }

    /// The median of one side by that of gunicorn alone.
    pub fn ratio(&self, side: Side, figure: fn(&Round) -> f64) -> Option<f64> {
        let (alone, ..) = self.side(Side::Alone)?.of(figure);
        let (measured, ..) = self.side(side)?.of(figure);
        (alone > 0.0).then_some(measured / alone)
    }

    /// What the programs take of a request, in µs: the sum of their runs.
    pub fn programs_us(&self) -> f64 {
        self.programs.iter().map(|program| program.runs_per_request * program.run_ns / 1e3).sum()
    }
}

/// Median, least and most; 0 of nothing.
pub fn middle(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    let median = f64::midpoint(at(values.len() / 2), at(values.len().saturating_sub(1) / 2));
    (median, at(0), at(values.len().saturating_sub(1)))
}

/// The value below which this part of the values lies.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the values")]
    let index = (last * part).round() as usize;
    values.get(index).copied().unwrap_or(0.0)
}
