//! `cargo xtask`: the one door to everything that is done with this repository.
#![expect(clippy::print_stdout, reason = "commands speak on the terminal")]

mod apt;
mod archive;
mod bench;
mod bless;
mod check;
mod demo;
mod inside;
mod instructions;
mod observer;
mod proto;
mod pythons;
mod service;
mod setup;
mod shell;
mod tally;
mod test;
mod toolchain;
mod unpacked;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The commands of this repository", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what is needed, saying each step
    Setup(setup::Options),
    /// Watch two services that call one another, for a look
    Demo(demo::Options),
    /// Everything that must hold: lints, tests, the host's kernel, a real OAP, the kernel matrix
    Test(test::Options),
    /// The lints, and the probes as seen from the host: fast, without root
    Check,
    /// Observe a real gunicorn on other kernels, in QEMU
    Vm(vm::Options),
    /// Measure what the observer costs
    Bench(bench::Options),
    /// Rewrite the code that is generated from the .proto files
    Proto,
    /// Rewrite the golden files; look at the difference before you commit it
    Bless(bless::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(options) => setup::command(&options),
        Command::Demo(options) => demo::command(&options),
        Command::Test(options) => test::command(&options),
        Command::Check => check::command(),
        Command::Vm(options) => vm::command(&options),
        Command::Bench(options) => bench::command(&options),
        Command::Proto => proto::command(),
        Command::Bless(options) => bless::command(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_said() {
                eprintln!("xtask: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}
