//! `cargo xtask test`: everything that must hold, ending in one line that sums it up.

use std::env::consts::ARCH;
use std::fs;
use std::process::Command;
use std::time::Instant;

use clap::Args;

use crate::check;
use crate::instructions;
use crate::observer;
use crate::setup;
use crate::setup::Part;
use crate::shell;
use crate::shell::Outcome;
use crate::tally::Tally;
use crate::vm;
use crate::workspace;

/// Parts to leave out. What is left out is said at the end.
#[derive(Args)]
pub struct Options {
    /// Leave out the kernel matrix
    #[arg(long)]
    no_vm: bool,
    /// Leave out the test with a real OAP
    #[arg(long)]
    no_oap: bool,
    /// Leave out the live tests on this machine's kernel, which need root
    #[arg(long)]
    no_live: bool,
}

/// Names a configuration folder of OAP's to test with, besides our own.
const OAP_CONFIG: &str = "SW_OBSERVE_OAP_CONFIG";

/// The command.
pub fn command(options: &Options) -> Outcome {
    let mut parts = vec![Part::Python, Part::Count];
    parts.extend((!options.no_live).then_some(Part::Live));
    parts.extend((!options.no_vm).then_some(Part::Vm));
    parts.extend((!options.no_oap).then_some(Part::Oap));

    let mut tally = Tally::default();
    let mut phase = Phases::default();
    phase.run("setup", || setup::ensure(&parts))?;
    phase.run("lints", || check::counted(&mut tally));
    phase.run("tests that need nothing", || {
        // The tests of the whole start the program by its path.
        tally.step("build", observer::for_tests().map(drop));
        tally.tests("tests", &mut test(&["--workspace", "--features", "tests/built"]));
        tally.tests("protocol", &mut test(&["-p", "proto", "--features", "codegen"]));
        python(&mut tally);
    });
    phase.run("instructions per request", || tally.step("instructions per request", instructions::check()));
    if !options.no_live {
        phase.run("live tests on this machine's kernel", || live(&mut tally));
    }
    if !options.no_oap {
        phase.run("a real OAP", || oap(&mut tally, !options.no_live));
    }
    if !options.no_vm {
        phase.run("kernel matrix", || {
            let result = vm::counted(&vm::Options::everything(), &mut tally);
            tally.step("kernel matrix", result);
        });
    }
    phase.print();
    let left_out =
        [(options.no_live, "live tests"), (options.no_oap, "OAP"), (options.no_vm, "kernel matrix")];
    for (_, name) in left_out.into_iter().filter(|(out, _)| *out) {
        println!("left out: {name}");
    }
    tally.conclude()
}

/// `cargo test`, going on after a failure.
pub fn test(arguments: &[&str]) -> Command {
    let mut command = shell::cargo(["test", "--no-fail-fast"]);
    command.args(arguments);
    command
}

/// The tests that load probes.
fn live(tally: &mut Tally) {
    let mounted = mount_tracefs();
    tally.step("tracefs", mounted);
    tally.tests("live", &mut as_root(&["--features", "privileged", "--test", "live_*"]));
    tally.tests("corpus", &mut as_root(&["--features", "privileged", "--test", "corpus"]));
}

/// The tracepoint variants are described there; a container or a bare machine has it unmounted.
pub fn mount_tracefs() -> Outcome {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if mounts.lines().any(|line| line.contains(" /sys/kernel/tracing tracefs ")) {
        return Ok(());
    }
    shell::say("mounting /sys/kernel/tracing");
    shell::run(shell::as_root("mount")?.args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"]))
}

/// With our own configuration and, where a variable names one, with another; then the whole path, from a real
/// gunicorn to a real OAP.
fn oap(tally: &mut Tally, live: bool) {
    let command = || test(&["-p", "tests", "--features", "oap", "--test", "oap"]);
    tally.tests("OAP with our configuration", command().env_remove(OAP_CONFIG));
    if let Some(folder) = std::env::var_os(OAP_CONFIG).filter(|folder| !folder.is_empty()) {
        let name = format!("OAP with {}", workspace::root().join(folder).display());
        tally.tests(&name, &mut command());
    }
    if live {
        tally.tests("gunicorn to OAP", &mut as_root(&["--features", "privileged,oap", "--test", "oap_live"]));
    }
}

/// Tests that load probes, one after the other: each looks at every gunicorn of this machine. Cargo runs as the
/// caller, only the test programs run as root.
fn as_root(arguments: &[&str]) -> Command {
    let mut command = test(&["-p", "tests"]);
    command.args(arguments).args(["--", "--test-threads=1"]);
    if !shell::is_root() {
        command.env(format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", ARCH.to_uppercase()), "sudo -E");
    }
    command
}

/// The comparison that runs in the guests tests itself.
fn python(tally: &mut Tally) {
    let script = workspace::root().join("tests/vm/compare.py");
    match shell::output(Command::new("python3").arg(script)) {
        Ok(_) => tally.pass(),
        Err(failure) => tally.step("comparison in the guests", Err(failure)),
    }
}

/// How long each phase took.
#[derive(Default)]
struct Phases(Vec<(&'static str, u64)>);

impl Phases {
    fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        println!("\n== {name}");
        let begin = Instant::now();
        let result = work();
        self.0.push((name, begin.elapsed().as_secs()));
        result
    }

    fn print(&self) {
        println!();
        for (name, seconds) in &self.0 {
            println!("{seconds:>6} s  {name}");
        }
    }
}
