//! Counts tests over several runs of several runners.

use std::io::BufRead;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;

/// What passed and what failed so far.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    /// Counts one test that passed.
    pub fn pass(&mut self) {
        self.passed = self.passed.saturating_add(1);
    }

    /// Counts one test, or one step without tests, that failed.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failed = self.failed.saturating_add(1);
        self.failures.push(what.into());
    }

    /// Runs a step that has no tests in it: only its failure counts.
    pub fn step(&mut self, name: &str, result: Outcome) {
        if let Err(failure) = result {
            eprintln!("xtask: {name}: {failure}");
            self.fail(format!("{name}: {failure}"));
        }
    }

    /// Runs `cargo test`, and adds up its summaries. A run that fails with no failed test (it does not build, or it
    /// is killed) counts as one.
    pub fn tests(&mut self, name: &str, command: &mut Command) {
        match self.summed(command) {
            Ok((true, _)) => {}
            Ok((false, 0)) => self.fail(format!("{name}: ended without a summary of its tests")),
            Ok((false, failed)) => self.failures.push(format!("{name}: {failed} failed")),
            Err(failure) => self.step(name, Err(failure)),
        }
    }

    /// Whether the command succeeded, and how many tests failed in it.
    fn summed(&mut self, command: &mut Command) -> Outcome<(bool, u64)> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| shell::not_started(command, &error))?;
        let mut failed_here = 0_u64;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line.doing("read the output of cargo test")?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                if let Some((passed, failed)) = summary(&line) {
                    self.passed = self.passed.saturating_add(passed);
                    self.failed = self.failed.saturating_add(failed);
                    failed_here = failed_here.saturating_add(failed);
                }
            }
        }
        let status = child.wait().doing("wait for cargo test")?;
        Ok((status.success(), failed_here))
    }

    /// Prints what failed and, last and alone on its line, the sum.
    ///
    /// # Errors
    /// Something failed, or nothing ran.
    pub fn conclude(self) -> Outcome {
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 {
            return Ok(());
        }
        Err(Failure::said())
    }
}

/// Passed and failed tests of a runner's summary line.
fn summary(line: &str) -> Option<(u64, u64)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split(';').find_map(|part| part.trim().strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use super::summary;

    #[test]
    fn a_summary_line_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(summary(line), Some((12, 3)));
        assert_eq!(summary("test tests::passed ... ok"), None);
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(Tally::default().conclude().is_err());
    }

    #[test]
    fn a_failed_step_counts() {
        let mut tally = Tally::default();
        tally.pass();
        tally.fail("lint");
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert!(tally.conclude().is_err());
    }
}
