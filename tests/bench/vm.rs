//! What a request costs under each attach variant, as a virtual machine whose clock counts instructions has measured it.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::round::middle;

/// The side that others are compared with.
const ALONE: &str = "alone";

/// One run, as the machine's guest told it.
#[derive(Debug, Deserialize)]
pub struct Run {
    /// The release of its kernel.
    pub kernel: String,
    rounds: Vec<Round>,
}

/// One measurement.
#[derive(Debug, Deserialize)]
struct Round {
    /// What was served.
    case: String,
    /// With what: `alone`, a variant, or a variant of an observer that does not watch this gunicorn.
    side: String,
    /// How many requests.
    requests: usize,
    /// CPU time per request in gunicorn's master and worker, in µs.
    gunicorn_us: f64,
    /// The same in the observer.
    observer_us: f64,
    /// Requests that were not reported.
    lost: usize,
}

/// A side of a case: median, least and most of each figure.
pub struct Cell<'a> {
    /// `alone`, `fentry`, `fentry, not watched` and so on.
    pub side: &'a str,
    /// CPU time per request in gunicorn, in µs.
    pub gunicorn_us: (f64, f64, f64),
    /// The same in the observer.
    pub observer_us: (f64, f64, f64),
    /// By gunicorn alone.
    pub ratio: f64,
}

impl Run {
    /// What was served, in the order of the measurements.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for round in &self.rounds {
            if !cases.contains(&round.case.as_str()) {
                cases.push(&round.case);
            }
        }
        cases
    }

    /// Every side of one case; alone is the first.
    pub fn sides(&self, case: &str) -> Vec<Cell<'_>> {
        let rounds = || self.rounds.iter().filter(|round| round.case == case);
        let mut sides: Vec<&str> = Vec::new();
        for round in rounds() {
            if !sides.contains(&round.side.as_str()) {
                sides.push(&round.side);
            }
        }
        let of = |side: &str, figure: fn(&Round) -> f64| {
            middle(rounds().filter(|round| round.side == side).map(figure).collect())
        };
        let (alone, ..) = of(ALONE, |round| round.gunicorn_us);
        let cell = |side| {
            let gunicorn_us = of(side, |round| round.gunicorn_us);
            Cell {
                side,
                gunicorn_us,
                observer_us: of(side, |round| round.observer_us),
                ratio: gunicorn_us.0 / alone,
            }
        };
        sides.into_iter().map(cell).collect()
    }

    /// Rounds of each side.
    pub fn count(&self) -> usize {
        let first = self.rounds.first();
        let same =
            |round: &&Round| first.is_some_and(|first| round.case == first.case && round.side == first.side);
        self.rounds.iter().filter(same).count()
    }

    /// Requests that were not reported, of those that should have been.
    pub fn lost(&self) -> usize {
        self.rounds.iter().map(|round| round.lost).sum()
    }

    /// Medians with least and most, and ratios to gunicorn alone.
    pub fn table(&self) -> String {
        let requests = self.rounds.first().map_or(0, |round| round.requests);
        let mut text = format!("Linux {}, {} rounds of {requests} requests\n", self.kernel, self.count());
        for case in self.cases() {
            _ = writeln!(
                text,
                "{case:<40}{:<34}observer, CPU µs per request",
                "gunicorn, CPU µs per request"
            );
            for cell in self.sides(case) {
                let (median, least, most) = cell.gunicorn_us;
                let ratio = if cell.side == ALONE { String::new() } else { format!(" ×{:.3}", cell.ratio) };
                let gunicorn = format!("{median:.0}{ratio} ({least:.0} to {most:.0})");
                _ = write!(text, "    {:<36}{gunicorn:<34}", cell.side);
                let (median, least, most) = cell.observer_us;
                _ = writeln!(text, "{median:.1} ({least:.1} to {most:.1})");
            }
        }
        if self.lost() > 0 {
            _ = writeln!(text, "{} requests were not reported", self.lost());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_medians_of_one_case() {
        let round = |case: &str, side: &str, us: f64| {
            format!(
                "{{\"case\": \"{case}\", \"side\": \"{side}\", \"requests\": 3, \"gunicorn_us\": {us}, \
                 \"observer_us\": 1, \"lost\": 0}}"
            )
        };
        let rounds = [
            round("a", "fentry", 110.0),
            round("b", "alone", 7.0),
            round("a", "alone", 100.0),
            round("a", "alone", 90.0),
            round("a", "alone", 200.0),
        ];
        let text = format!("{{\"kernel\": \"6.12\", \"rounds\": [{}]}}", rounds.join(","));
        let run: Run = serde_json::from_str(&text).expect("a run");
        assert_eq!(run.cases(), ["a", "b"]);
        let sides = run.sides("a");
        let fentry = sides.iter().find(|cell| cell.side == "fentry").expect("a side");
        assert!((fentry.ratio - 1.1).abs() < 1e-9);
        assert!(run.table().contains("110 ×1.100 (110 to 110)"));
    }
}
