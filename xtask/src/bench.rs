//! `cargo xtask bench`: what the observer costs, measured on this machine.

use std::env::consts::ARCH;
use std::fs;
use std::process::Command;

use clap::Args;
use clap::ValueEnum;

use crate::instructions;
use crate::observer;
use crate::setup;
use crate::setup::Part;
use crate::shell;
use crate::shell::Outcome;
use crate::shell::While;
use crate::test;
use crate::vm::cost;
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
    /// The kernel of the virtual machine, such as 6.1 or 7 (the newest 7.x) [default: 6.12]
    #[arg(long)]
    kernel: Option<String>,
    /// Write README's section about costs from what was measured, by this run or an earlier one
    #[arg(long, conflicts_with = "quick")]
    readme: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Scenario {
    /// The cost of a request
    Requests,
    /// The cost of many idle workers and connections
    Scale,
    /// How many requests per second are seen without a loss
    Lossless,
    /// What many different interpreters cost
    Files,
    /// Instructions per request in the pipeline, against what they were
    Pipeline,
    /// The cost of a request under each attach variant, in a virtual machine whose clock counts instructions
    Vm,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Scale => "scale",
            Self::Lossless => "lossless",
            Self::Files => "files",
            Self::Pipeline => "pipeline",
            Self::Vm => "vm",
        }
    }
}

/// The command.
pub fn command(options: &Options) -> Outcome {
    let folder = workspace::build().join("bench");
    fs::create_dir_all(&folder).doing(format_args!("make {}", folder.display()))?;
    let all = [
        Scenario::Pipeline,
        Scenario::Requests,
        Scenario::Lossless,
        Scenario::Scale,
        Scenario::Files,
        Scenario::Vm,
    ];
    let scenarios = match (options.scenarios.is_empty(), options.readme) {
        (true, false) => &all[..],
        (true, true) => &[], // what was measured before
        (false, _) => &options.scenarios,
    };
    if scenarios.contains(&Scenario::Pipeline) {
        setup::programs(&[Part::Count])?;
        instructions::check()?;
    }
    if scenarios.contains(&Scenario::Vm) {
        shell::say(format_args!("measuring in a virtual machine; results go to {}", folder.display()));
        cost::measure(options.kernel.as_deref(), options.quick, &folder)?;
        shell::run(bench(&["vm"]).arg(&folder))?;
    }
    let live: Vec<_> = scenarios
        .iter()
        .filter(|scenario| matches!(scenario, Scenario::Requests | Scenario::Scale))
        .collect();
    if !live.is_empty() {
        setup::ensure(&[Part::Python])?;
        test::mount_tracefs()?;
        observer::release()?;
    }
    for scenario in live {
        let name = scenario.name();
        shell::say(format_args!("measuring {name}; results go to {}", folder.display()));
        let mut command = bench(&[name]);
        command.arg(&folder).args(options.quick.then_some("--quick"));
        if !shell::is_root() {
            command.env(format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", ARCH.to_uppercase()), "sudo -E");
        }
        shell::run(&mut command)?;
    }
    if options.readme {
        let page = workspace::root().join("README.md");
        shell::run(bench(&["readme"]).arg(&folder).arg(page))?;
    }
    Ok(())
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = shell::cargo(["run", "--quiet", "--release", "--package", "tests", "--bin", "bench"]);
    command.args(["--features", "tests/privileged", "--"]).args(arguments);
    command
}
