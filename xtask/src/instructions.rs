//! Instructions per request in the pipeline, counted by callgrind and held against what they were.

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
const HEAD: &str = "# Instructions per request in the pipeline, from the bytes of the ring to those for OAP: `cargo xtask bless` counts anew.\n";

/// Counts, and compares with the file.
///
/// # Errors
/// More than 3 % above the number of a tape, or below it.
pub fn check() -> Outcome {
    let path = budget();
    let text = fs::read_to_string(&path).doing(format_args!("read {}", path.display()))?;
    let mut wrong = Vec::new();
    for (tape, now) in counted()? {
        let Some(then) = known(&text, tape) else {
            wrong.push(format!("{tape} is not in it"));
            continue;
        };
        shell::say(format_args!("{tape}: {now:.0} instructions per request, {then:.0} before"));
        if (now - then).abs() > TOLERANCE * then {
            wrong.push(format!("{tape}: {now:.0} instructions per request instead of {then:.0}"));
        }
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
    for (tape, count) in counted()? {
        _ = writeln!(text, "{tape} {count:.0}");
    }
    fs::write(budget(), text).doing("write the instructions per request")
}

fn budget() -> PathBuf {
    workspace::root().join("tests/pipeline/instructions.txt")
}

/// What the file says of a tape.
fn known(text: &str, tape: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(tape)?.trim().parse().ok())
}

fn counted() -> Outcome<Vec<(&'static str, f64)>> {
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
        let (said, requests) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        let numbers = (collected(&said), requests.trim().parse::<f64>().ok());
        let (Some(instructions), Some(requests)) = numbers else {
            return Err(Failure::new(format!("callgrind does not say what it counted: {said}")));
        };
        Ok((instructions, requests))
    };
    let per_request = |tape: &'static str| {
        let (few, many) = (count(tape, TIMES.0)?, count(tape, TIMES.1)?);
        Ok((tape, (many.0 - few.0) / (many.1 - few.1)))
    };
    TAPES.into_iter().map(per_request).collect()
}

/// The sum in `==1== Collected : 12345`.
fn collected(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::collected;
    use super::known;

    #[test]
    fn what_callgrind_says_is_read() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 4711\n"), Some(4711.0));
        assert_eq!(collected("==7== nothing"), None);
    }

    #[test]
    fn a_tape_has_its_number() {
        let text = "# Instructions\nsync 100\ngthread 200\n";
        assert_eq!((known(text, "gthread"), known(text, "unix")), (Some(200.0), None));
    }
}
