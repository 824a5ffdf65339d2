//! Builds `sw-observe`, with its probes inside.

use std::path::PathBuf;

use crate::shell;
use crate::shell::Outcome;
use crate::toolchain;
use crate::workspace;

/// For the tests. Built with the whole workspace's features, as the tests' own dependencies are: one build serves both.
pub fn for_tests() -> Outcome<PathBuf> {
    build("debug", &["--workspace", "--bin", "sw-observe"])
}

/// As it is shipped.
pub fn release() -> Outcome<PathBuf> {
    build("release", &["--release", "-p", "observer"])
}

fn build(profile: &str, arguments: &[&str]) -> Outcome<PathBuf> {
    toolchain::ensure()?;
    shell::say(format!("building sw-observe ({profile})"));
    shell::run(shell::cargo(["build", "--quiet"]).args(arguments))?;
    Ok(workspace::build().join(profile).join("sw-observe"))
}
