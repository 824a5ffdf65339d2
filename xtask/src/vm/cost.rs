//! What a request costs under each attach variant, on a kernel that offers all of them and a clock that counts instructions.

use std::fs;
use std::path::Path;

use crate::observer;
use crate::setup;
use crate::setup::Part;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;

use super::guest::Guest;
use super::guest::Purpose;
use super::kernel;
use super::machine;
use super::machine::Clock;

/// The newest kernel with long support of those that are promised.
const KERNEL: &str = "6.12";

/// What the benchmark serves on this machine, too.
const REQUIREMENTS: &str = include_str!("../../../tests/bench/requirements.txt");

/// What the guest runs, and that needs.
const SCRIPTS: [&str; 6] = [
    "tests/vm/cost.py",
    "tests/vm/drive.py",
    "tests/vm/classes.py",
    "tests/vm/compare.py",
    "tests/vm/lives.py",
    "tests/apps/bench_app.py",
];

/// Measures on one kernel, and writes `vm.json`.
///
/// # Errors
/// What it needs is missing, the machine does not come to its end, or something in it failed.
pub fn measure(kernel: Option<&str>, quick: bool, folder: &Path) -> Outcome {
    setup::programs(&[Part::Vm])?;
    let binary = observer::release()?;
    let amount = if quick { ["1", "20"] } else { ["3", "60"] };
    let packages: Vec<_> = super::packages(REQUIREMENTS).collect();
    let purpose = Purpose { name: "cost", packages: &packages, scripts: &SCRIPTS };
    let guest = Guest::prepare(&purpose, &binary, &amount.map(str::to_owned))?;
    for (version, image) in kernel::fetch(&[kernel.unwrap_or(KERNEL).to_owned()])? {
        let lines = machine::boot(&version, &image?, &guest, Clock::Instructions);
        let path = folder.join("vm.json");
        fs::write(&path, results(&lines)?).doing(format!("write {}", path.display()))?;
    }
    Ok(())
}

/// What the guest said, as one text.
fn results(lines: &[String]) -> Outcome<String> {
    let with = |word: &'static str| lines.iter().filter_map(move |line| line.strip_prefix(word));
    if let Some(trouble) = with("trouble ").chain(with("fail ")).next() {
        for note in with("note ") {
            shell::say(note);
        }
        return Err(Failure::new(format!("nothing was measured in the machine: {trouble}")));
    }
    let kernel = with("up ").next().unwrap_or_default();
    let rounds: Vec<_> = with("round ").collect();
    Ok(format!("{{\"kernel\": \"{kernel}\", \"rounds\": [\n{}\n]}}\n", rounds.join(",\n")))
}
