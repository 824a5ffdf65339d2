//! Instructions per request in the pipeline, counted by callgrind, and allocations, held against what they were.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

/// Golden tapes that are played.
const TAPES: [&str; 3] = ["sync", "gthread", "uvicorn"];
/// How often the traffic of a tape is played. The difference of the two is free of what happens once.
const TIMES: (u32, u32) = (100, 400);
/// More than this part of what was counted before is too much, and less is worth a new number.
const TOLERANCE: f64 = 0.03;
/// Of allocations no other number will do than the one that the file has, with two digits.
const ROUNDING: f64 = 0.0051;
const HEAD: &str = "\
# Per request in the pipeline, from the bytes of the ring to those for OAP: `cargo xtask bless` counts anew.
# tape, instructions, allocations
";

/// What one request takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: f64,
    /// Of memory, those that only grow included. They repeat exactly, with every compiler.
    allocations: f64,
}

/// Counts, and compares with the file.
///
/// # Errors
/// Instructions more than 3 % above the number of a tape, or below it; another number of allocations.
pub fn check() -> Outcome {
    let path = budget();
    let text = fs::read_to_string(&path).doing(format_args!("read {}", path.display()))?;
    let mut wrong = Vec::new();
    for (tape, now) in counted()? {
        let Some(then) = known(&text, tape) else {
            wrong.push(format!("{tape} is not in it"));
            continue;
        };
        let said = format!(
            "{tape}: {:.0} instructions and {:.2} allocations per request, {:.0} and {:.2} before",
            now.instructions, now.allocations, then.instructions, then.allocations
        );
        shell::say(format_args!("{said}"));
        let is_other = (now.instructions - then.instructions).abs() > TOLERANCE * then.instructions
            || (now.allocations - then.allocations).abs() >= ROUNDING;
        wrong.extend(is_other.then_some(said));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let (shown, wrong) = (path.display(), wrong.join("; "));
    Err(Failure::new(format!(
        "{shown}: {wrong}: find out why, or `cargo xtask bless` and say so in the commit"
    )))
}

/// Counts, and writes the file.
pub fn bless() -> Outcome {
    let mut text = HEAD.to_owned();
    for (tape, Cost { instructions, allocations }) in counted()? {
        _ = writeln!(text, "{tape} {instructions:.0} {allocations:.2}");
    }
    fs::write(budget(), text).doing("write the instructions per request")
}

fn budget() -> PathBuf {
    workspace::root().join("tests/pipeline/instructions.txt")
}

/// What the file says of a tape.
fn known(text: &str, tape: &str) -> Option<Cost> {
    text.lines().find_map(|line| cost(line.strip_prefix(tape)?))
}

/// Two numbers.
fn cost(text: &str) -> Option<Cost> {
    let (instructions, allocations) = pair(text)?;
    Some(Cost { instructions, allocations })
}

fn pair(text: &str) -> Option<(f64, f64)> {
    let (first, second) = text.trim().split_once(' ')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

fn counted() -> Outcome<Vec<(&'static str, Cost)>> {
    let mut build =
        shell::cargo(["build", "--quiet", "--release", "--package", "tests", "--bin", "pipeline"]);
    // The pipeline needs no probes.
    shell::run(build.env("SW_OBSERVE_EBPF", "stub"))?;
    let program = workspace::build().join("release/pipeline");
    let count = |tape: &str, times: u32| {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        let output = command.arg(&program).args([tape, &times.to_string()]).output();
        let output = output.map_err(|error| shell::not_started(&command, &error))?;
        let (said, counts) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        let (Some(instructions), Some((requests, allocations))) = (collected(&said), pair(&counts)) else {
            return Err(Failure::new(format!("callgrind does not say what it counted: {said}")));
        };
        Ok((requests, Cost { instructions, allocations }))
    };
    let per_request = |tape: &'static str| {
        let ((before, few), (after, many)) = (count(tape, TIMES.0)?, count(tape, TIMES.1)?);
        let each = |few: f64, many: f64| (many - few) / (after - before);
        let cost = Cost {
            instructions: each(few.instructions, many.instructions),
            allocations: each(few.allocations, many.allocations),
        };
        Ok((tape, cost))
    };
    TAPES.into_iter().map(per_request).collect()
}

/// The sum in `==1== Collected : 12345`.
fn collected(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::Cost;
    use super::collected;
    use super::known;

    #[test]
    fn what_callgrind_says_is_read() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 4711\n"), Some(4711.0));
        assert_eq!(collected("==7== nothing"), None);
    }

    #[test]
    fn a_tape_has_its_numbers() {
        let text = "# Instructions\nsync 100 3.00\ngthread 200 4.25\n";
        let gthread = Cost { instructions: 200.0, allocations: 4.25 };
        assert_eq!((known(text, "gthread"), known(text, "unix")), (Some(gthread), None));
    }
}
