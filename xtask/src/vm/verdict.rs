//! What one kernel's run means: each case passed or failed, and the variants that the observer chose.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::tally::Tally;
use crate::workspace;

use super::LATE;

/// The account of one kernel.
pub struct Verdict {
    version: String,
    release: String,
    cases: Vec<(String, Result<String, Vec<String>>)>,
    notes: Vec<String>,
    variants: Option<BTreeMap<String, String>>,
}

impl Verdict {
    /// Reads the driver's lines. A case without a result has failed.
    pub fn new(version: &str, cases: &[String], lines: Outcome<Vec<String>>) -> Self {
        let (lines, mut trouble) = match lines {
            Ok(lines) => (lines, None),
            Err(failure) => (Vec::new(), Some(failure.to_string())),
        };
        let mut verdict = Self {
            version: version.to_owned(),
            release: "not booted".to_owned(),
            cases: Vec::new(),
            notes: Vec::new(),
            variants: None,
        };
        let mut passed = BTreeMap::new();
        let mut failed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for line in &lines {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (case, text) = rest.split_once(' ').unwrap_or((rest, ""));
            match word {
                "up" => rest.clone_into(&mut verdict.release),
                "pass" => drop(passed.insert(case, text.to_owned())),
                "fail" => failed.entry(case).or_default().push(text.to_owned()),
                "variants" => verdict.variants = variants(rest),
                "trouble" => trouble = Some(rest.to_owned()),
                _ => verdict.notes.push(rest.to_owned()),
            }
        }
        for case in cases {
            let result = match (failed.remove(case.as_str()), passed.remove(case.as_str())) {
                (Some(problems), _) => Err(problems),
                (None, Some(time)) => Ok(time),
                (None, None) => {
                    Err(vec![trouble.clone().unwrap_or_else(|| "the driver gave no result".to_owned())])
                }
            };
            verdict.cases.push((case.clone(), result));
        }
        verdict
    }

    /// Prints one line for each case, and for failed ones why.
    pub fn print(&self) {
        let mut text = format!("kernel {} ({})\n", self.version, self.release);
        for (case, result) in &self.cases {
            let word = if result.is_ok() { "ok" } else { "FAILED" };
            let time = result.as_deref().unwrap_or_default();
            text.push_str(format!("test vm {} {case} ... {word} {time}", self.version).trim_end());
            text.push('\n');
            for problem in result.as_ref().err().into_iter().flatten() {
                text.push_str(&format!("    {problem}\n"));
            }
        }
        if self.cases.iter().any(|(_, result)| result.is_err()) {
            for note in &self.notes {
                text.push_str(&format!("    | {note}\n"));
            }
        }
        print!("{text}");
    }

    /// Adds the cases to the sum.
    pub fn count(&self, tally: &mut Tally) {
        for (case, result) in &self.cases {
            match result {
                Ok(_) => tally.pass(),
                Err(problems) => {
                    let first = problems.first().map_or("", String::as_str);
                    tally.fail(format!("vm {} {case}: {first}", self.version));
                }
            }
        }
    }

    /// Compares the observer's own choice with the golden file, or rewrites the file.
    pub fn compare_variants(&self, bless: bool, tally: &mut Tally) -> Outcome {
        if !self.cases.iter().any(|(case, _)| case == LATE) {
            return Ok(());
        }
        let Some(variants) = &self.variants else {
            // The case has failed already, and says why.
            return Ok(());
        };
        let path = workspace::root().join(format!("tests/kernels/{}.txt", self.version));
        let mut now = format!("# The variant that each probe takes on kernel {}.\n", self.version);
        for (probe, variant) in variants {
            writeln!(now, "{probe} {variant}").map_err(|error| Failure::new(error.to_string()))?;
        }
        if bless {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).doing(format!("create {}", folder.display()))?;
            }
            shell::say(format!("writing {}", path.display()));
            return fs::write(&path, now).doing(format!("write {}", path.display()));
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        if golden == now {
            println!("test vm {} variants ... ok", self.version);
            tally.pass();
            return Ok(());
        }
        println!("test vm {} variants ... FAILED", self.version);
        for line in now.lines().filter(|line| !golden.lines().any(|old| old == *line)) {
            println!("    now:    {line}");
        }
        for line in golden.lines().filter(|line| !now.lines().any(|new| new == *line)) {
            println!("    golden: {line}");
        }
        tally.fail(format!(
            "vm {}: other variants than {}; cargo xtask bless accepts them",
            self.version,
            path.display()
        ));
        Ok(())
    }
}

/// The pairs of a flat JSON object of plain names, which is all that the driver prints there.
fn variants(json: &str) -> Option<BTreeMap<String, String>> {
    let inner = json.trim().strip_prefix('{')?.strip_suffix('}')?;
    let unquoted = |text: &str| Some(text.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned());
    let pairs = inner.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(|pair| {
            let (probe, variant) = pair.split_once(':')?;
            Some((unquoted(probe)?, unquoted(variant)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Verdict;
    use super::variants;
    use crate::shell::Failure;

    fn verdict(lines: &[&str]) -> Vec<bool> {
        let cases = ["kprobe", "late"].map(str::to_owned);
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Verdict::new("6.1", &cases, Ok(lines)).cases.into_iter().map(|(_, result)| result.is_ok()).collect()
    }

    #[test]
    fn a_case_without_a_result_has_failed() {
        assert_eq!(verdict(&["up 6.1.0", "pass kprobe 12s"]), [true, false]);
    }

    #[test]
    fn one_problem_is_enough() {
        assert_eq!(verdict(&["pass kprobe 12s", "fail late drops", "pass late 1s"]), [true, false]);
    }

    #[test]
    fn a_machine_that_does_not_start_fails_every_case() {
        let cases = ["kprobe".to_owned()];
        let verdict = Verdict::new("6.1", &cases, Err(Failure::new("no QEMU")));
        assert!(verdict.cases.iter().all(|(_, result)| result.is_err()));
    }

    #[test]
    fn variants_are_read() {
        let read = variants("{\"accept\": \"fentry\", \"fork\": \"kprobe\"}").expect("two pairs");
        assert_eq!(read.get("fork").map(String::as_str), Some("kprobe"));
        assert_eq!(read.len(), 2);
        assert!(variants("{}").is_some_and(|none| none.is_empty()));
    }
}
