//! `cargo xtask proto`: writes the code of SkyWalking's protocol from the `.proto` files.

use crate::shell;
use crate::shell::Outcome;

/// The command.
pub fn command() -> Outcome {
    shell::run(&mut shell::cargo([
        "run",
        "--quiet",
        "-p",
        "proto",
        "--features",
        "codegen",
        "--bin",
        "generate-proto",
    ]))
}
