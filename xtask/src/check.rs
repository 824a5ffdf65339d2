//! `cargo xtask check`: the lints, and the probes as the host's compiler sees them. Needs neither root nor a BPF compiler.

use std::process::Command;

use crate::shell;
use crate::shell::Outcome;
use crate::tally::Tally;

/// Each lint: its name and what cargo is asked.
const LINTS: [(&str, &[&str]); 3] = [
    ("format", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--features", FEATURES, "--", "-D", "warnings"]),
    (
        "clippy of the probes on the host",
        &["clippy", "-p", "observer-ebpf", "--features", "probes", "--all-targets", "--", "-D", "warnings"],
    ),
];

/// Features that tests hide behind, so that the lints see those tests too.
const FEATURES: &str = "tests/built,tests/privileged,tests/oap,proto/codegen";

/// Parts of the toolchain that a minimal installation lacks: the cargo command, and rustup's name for it.
const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

/// The command.
pub fn command() -> Outcome {
    components()?;
    for (name, mut lint) in lints() {
        shell::say(name);
        shell::run(&mut lint)?;
    }
    Ok(())
}

/// Runs every lint; a failing one counts as a failed test.
pub fn counted(tally: &mut Tally) {
    tally.step("lint tools", components());
    for (name, mut lint) in lints() {
        shell::say(name);
        tally.step(name, shell::run(&mut lint));
    }
}

fn components() -> Outcome {
    for (subcommand, component) in COMPONENTS {
        if shell::output(&mut shell::cargo([subcommand, "--version"])).is_err() {
            shell::say(format!("rustup component add {component}"));
            shell::output(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

fn lints() -> impl Iterator<Item = (&'static str, Command)> {
    LINTS.into_iter().map(|(name, arguments)| {
        let mut command = shell::cargo(arguments);
        // Lints look at host code only: no reason to build the probes for them.
        command.env("SW_OBSERVE_EBPF", "stub");
        (name, command)
    })
}
