//! `cargo xtask bless`: rewrites the golden files from what the code does now.

use clap::Args;

use crate::instructions;
use crate::observer;
use crate::setup;
use crate::setup::Part;
use crate::shell::Outcome;
use crate::tally::Tally;
use crate::test;
use crate::vm;

/// Parts to leave out.
#[derive(Args)]
pub struct Options {
    /// Leave out the chosen variants per kernel
    #[arg(long)]
    no_vm: bool,
}

/// The command.
pub fn command(options: &Options) -> Outcome {
    observer::for_tests()?;
    let mut tally = Tally::default();
    tally.tests(
        "tests",
        test::test(&["--workspace", "--features", "tests/built"]).env("SW_OBSERVE_BLESS", "1"),
    );
    setup::ensure(&[Part::Count])?;
    tally.step("instructions per request", instructions::bless());
    if !options.no_vm {
        let result = vm::counted(&vm::Options::blessing(), &mut tally);
        tally.step("kernel matrix", result);
    }
    tally.conclude()
}
