//! `cargo xtask bench`: what the observer costs, measured on this machine.

use std::env::consts::ARCH;
use std::fs;

use clap::Args;
use clap::ValueEnum;

use crate::observer;
use crate::setup;
use crate::setup::Part;
use crate::shell;
use crate::shell::Outcome;
use crate::shell::While;
use crate::test;
use crate::workspace;

/// What to measure; without a name, everything.
#[derive(Args)]
pub struct Options {
    /// What to measure
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// As little as shows whether it works: the numbers are of no use
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// The cost of a request
    Requests,
    /// The cost of many idle workers and connections
    Scale,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Scale => "scale",
        }
    }
}

/// The command.
pub fn command(options: &Options) -> Outcome {
    setup::ensure(&[Part::Python])?;
    test::mount_tracefs()?;
    observer::release()?;
    let folder = workspace::build().join("bench");
    fs::create_dir_all(&folder).doing(format_args!("make {}", folder.display()))?;
    let all = [Scenario::Requests, Scenario::Scale];
    let scenarios = if options.scenarios.is_empty() { &all[..] } else { &options.scenarios };
    for scenario in scenarios {
        let name = scenario.name();
        let json = folder.join(format!("{name}.json"));
        shell::say(format_args!("measuring {name}; results go to {}", json.display()));
        let mut command =
            shell::cargo(["run", "--quiet", "--release", "--package", "tests", "--bin", "bench"]);
        command.args(["--features", "tests/privileged", "--", name, "--json"]).arg(json);
        command.args(options.quick.then_some("--quick"));
        if !shell::is_root() {
            command.env(format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", ARCH.to_uppercase()), "sudo -E");
        }
        shell::run(&mut command)?;
    }
    Ok(())
}
