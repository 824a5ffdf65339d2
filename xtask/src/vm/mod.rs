//! `cargo xtask vm`: observes a real gunicorn on other kernels, under each attach variant, in QEMU.

pub mod cost; // what a request costs there
mod guest;
mod kernel;
mod machine;
mod verdict;

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use clap::Args;

use crate::observer;
use crate::setup;
use crate::setup::Part;
use crate::shell;
use crate::shell::Outcome;
use crate::tally::Tally;

use guest::Guest;
use guest::Purpose;
use machine::Clock;
use verdict::Verdict;

/// The kernels that are promised; `7` is the newest 7.x.
const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7"];

/// What runs on each kernel: every variant by force, and the observer's own choice, started after gunicorn.
const CASES: [&str; 4] = ["kprobe", "fentry", "tracepoint", LATE];

/// The case whose chosen variants are compared with the golden file.
const LATE: &str = "late";

/// What is served there, in the releases of the live tests.
const REQUIREMENTS: &str = include_str!("../../../tests/apps/requirements.txt");

/// What of it a case needs.
const PACKAGES: [&str; 7] = ["gunicorn", "gevent", "packaging", "tornado", "uvicorn", "uvloop", "httptools"];

/// What every case runs, and that needs.
const SCRIPTS: [&str; 7] = [
    "tests/vm/drive.py",
    "tests/vm/app.py",
    "tests/vm/asgi_app.py",
    "tests/vm/classes.py",
    "tests/vm/compare.py",
    "tests/vm/gunicorn.conf.py",
    "tests/vm/lives.py",
];

/// Which kernels, which cases, with which binary.
#[derive(Args, Default)]
pub struct Options {
    /// A kernel version, such as 6.12 or 7 (the newest 7.x); may be repeated [default: all that are promised]
    #[arg(long)]
    kernel: Vec<String>,
    /// An attach variant; may be repeated [default: each in turn]
    #[arg(long, value_parser = ["kprobe", "fentry", "tracepoint"], conflicts_with = "case")]
    attach: Vec<String>,
    /// A case: an attach variant, or `late`; may be repeated [default: all]
    #[arg(long, value_parser = CASES)]
    case: Vec<String>,
    /// The observer to run, instead of one built now
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// How many machines run at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    jobs: u16,
    /// Rewrite the golden files of the chosen variants
    #[arg(long)]
    bless: bool,
}

impl Options {
    /// Everything, as the tests want it.
    pub fn everything() -> Self {
        Self { jobs: 2, ..Self::default() }
    }

    /// What the golden files are made from.
    pub fn blessing() -> Self {
        Self { case: vec![LATE.to_owned()], bless: true, ..Self::everything() }
    }

    fn kernels(&self) -> Vec<String> {
        if self.kernel.is_empty() { KERNELS.map(str::to_owned).to_vec() } else { self.kernel.clone() }
    }

    fn cases(&self) -> Vec<String> {
        let chosen: Vec<String> = self.attach.iter().chain(&self.case).cloned().collect();
        if chosen.is_empty() { CASES.map(str::to_owned).to_vec() } else { chosen }
    }
}

/// The command.
pub fn command(options: &Options) -> Outcome {
    let mut tally = Tally::default();
    counted(options, &mut tally)?;
    tally.conclude()
}

/// Runs the matrix; each case on each kernel counts as one test.
///
/// # Errors
/// What all kernels need is missing.
pub fn counted(options: &Options, tally: &mut Tally) -> Outcome {
    setup::programs(&[Part::Vm])?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => observer::for_tests()?,
    };
    let cases = options.cases();
    let packages: Vec<_> = packages(REQUIREMENTS).filter(is_served).collect();
    let purpose = Purpose { name: "guest", packages: &packages, scripts: &SCRIPTS };
    let guest = Guest::prepare(&purpose, &binary, &cases)?;
    let kernels = kernel::fetch(&options.kernels())?;

    let left = Mutex::new(kernels.into_iter().rev().collect::<Vec<_>>());
    let verdicts = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some((version, image)) = taken(&left) {
                    let begin = Instant::now();
                    let lines = image.map(|image| machine::boot(&version, &image, &guest, Clock::Real));
                    let verdict = Verdict::new(&version, &cases, lines);
                    shell::say(format!("kernel {version} took {} s", begin.elapsed().as_secs()));
                    verdict.print();
                    if let Ok(mut all) = verdicts.lock() {
                        all.push(verdict);
                    }
                }
            });
        }
    });
    for verdict in verdicts.into_inner().unwrap_or_default() {
        verdict.count(tally);
        verdict.compare_variants(options.bless, tally)?;
    }
    Ok(())
}

/// Whether a case needs a package, which is named with its release.
fn is_served(package: &&str) -> bool {
    package.split_once("==").is_some_and(|(name, _)| PACKAGES.contains(&name))
}

/// The packages that a list of requirements names.
fn packages(requirements: &str) -> impl Iterator<Item = &str> {
    requirements.lines().filter_map(|line| {
        let package = line.split('#').next().unwrap_or_default().trim();
        (!package.is_empty()).then_some(package)
    })
}

fn taken<T>(list: &Mutex<Vec<T>>) -> Option<T> {
    list.lock().ok()?.pop()
}
