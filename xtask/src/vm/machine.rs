//! One virtual machine: boots a kernel on the guest's root and reads what the driver says.

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

use super::guest::Guest;

/// Until the driver says that it is up. A busy machine emulates slowly.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// The same where KVM is tried: there a boot takes a second or two, or never ends.
const KVM_BOOT_LIMIT: Duration = Duration::from_secs(20);

/// From one line of the driver to the next: longer than any wait of its own.
const SILENCE_LIMIT: Duration = Duration::from_secs(420);

/// What a kernel says when it is about to stop.
const PANICS: [&str; 3] = ["Kernel panic", "BUG: ", "Unable to handle kernel"];

/// Whether KVM works here, once a machine has tried.
static KVM: OnceLock<bool> = OnceLock::new();

/// What a machine's time is.
#[derive(Clone, Copy, PartialEq)]
pub enum Clock {
    /// That of this machine.
    Real,
    /// 2 ns for each instruction, and no time at all while it waits: CPU time repeats. It has one processor, whose time
    /// no other one's instructions advance.
    Instructions,
}

/// Boots, and returns the driver's results (without their `@`), anything else as a `note`, and as `trouble` why the
/// machine did not start, stopped early or hung.
pub fn boot(version: &str, image: &Path, guest: &Guest, clock: Clock) -> Vec<String> {
    let possible = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if clock == Clock::Real && possible && *KVM.get().unwrap_or(&true) {
        let attempt = attempt(version, image, guest, Accelerator::Kvm);
        if *KVM.get_or_init(|| is_up(&attempt.lines)) {
            return attempt.finish();
        }
        shell::say(format!("kernel {version}: KVM is there and does not work; emulating"));
    }
    let emulator = Accelerator::Emulator(clock);
    let first = attempt(version, image, guest, emulator);
    if is_up(&first.lines) || first.trouble.is_none() {
        return first.finish();
    }
    // Nothing of ours has run yet: the kernel did not come up in the emulator.
    shell::say(format!("kernel {version} did not boot; once more"));
    attempt(version, image, guest, emulator).finish()
}

/// What runs a machine's instructions.
#[derive(Clone, Copy, PartialEq)]
enum Accelerator {
    Kvm,
    Emulator(Clock),
}

impl Accelerator {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host", "-smp", "2"],
            // One thread for all processors: with one each, a processor may run into code that another is patching, which
            // real ones are protected from (seen as a stray int3 while the kernel booted).
            Self::Emulator(Clock::Real) => &["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"],
            // The emulator counts each byte that a `rep movsb` copies, which kernels use where it is said to be fast.
            Self::Emulator(Clock::Instructions) => {
                &["-accel", "tcg", "-cpu", "max,-erms,-fsrm", "-smp", "1", "-icount", "shift=1,sleep=off"]
            }
        }
    }
}

/// Whether the driver has started.
fn is_up(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with("up "))
}

/// What came of one boot: the lines, and why it ended before the driver did, if so.
struct Attempt {
    lines: Vec<String>,
    trouble: Option<Failure>,
}

impl Attempt {
    /// What was said before the trouble holds; the cases that are missing then count as failed.
    fn finish(mut self) -> Vec<String> {
        self.lines.extend(self.trouble.map(|trouble| format!("trouble {trouble}")));
        self.lines
    }
}

fn attempt(version: &str, image: &Path, guest: &Guest, by: Accelerator) -> Attempt {
    let mut lines = Vec::new();
    let trouble = converse(version, image, guest, by, &mut lines).err();
    Attempt { lines, trouble }
}

fn converse(version: &str, image: &Path, guest: &Guest, by: Accelerator, lines: &mut Vec<String>) -> Outcome {
    let folder = workspace::cache().join("vm/consoles");
    fs::create_dir_all(&folder).doing(format!("create {}", folder.display()))?;
    let console = folder.join(format!("{version}.log"));
    let mut machine = Machine(start(image, guest, &console, by)?);
    let said = listen(&mut machine)?;

    let begin = Instant::now();
    let boot_limit = if by == Accelerator::Kvm { KVM_BOOT_LIMIT } else { BOOT_LIMIT };
    loop {
        let (patience, wait) = if is_up(lines) {
            (SILENCE_LIMIT, SILENCE_LIMIT)
        } else {
            (boot_limit, boot_limit.saturating_sub(begin.elapsed()))
        };
        match said.recv_timeout(wait) {
            Ok(line) => match line.strip_prefix("@ ") {
                Some("end") => return Ok(()),
                Some(result) => lines.push(result.to_owned()),
                None => lines.push(format!("note guest {line}")),
            },
            Err(RecvTimeoutError::Timeout) => {
                return Err(trouble(&console, &format!("silent for {} s", patience.as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(trouble(&console, "the machine stopped early"));
            }
        }
    }
}

/// Why a machine ended, with what its console says about it.
fn trouble(console: &Path, what: &str) -> Failure {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let panic = lines.iter().position(|line| PANICS.iter().any(|mark| line.contains(mark)));
    // What led to it stands just before.
    let end = panic.map_or(lines.len(), |at| at.saturating_add(1));
    let why: Vec<&str> = lines.into_iter().take(end).skip(end.saturating_sub(3)).collect();
    let why = if why.is_empty() { "empty".to_owned() } else { why.join(" / ") };
    Failure::new(format!("{what}; console ({}): {why}", console.display()))
}

/// A QEMU that does not outlive its use.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has no disk: there is nothing to lose. Failing means that it has ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(image: &Path, guest: &Guest, console: &Path, by: Accelerator) -> Outcome<Child> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(by.arguments());
    command.args(["-m", "2048", "-nic", "none", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(image).arg("-initrd").arg(guest.archive());
    // The kernel speaks on the first port, the driver on the second.
    command
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio", "-monitor", "none"]);
    let log = console.with_extension("qemu.log");
    let errors = File::create(&log).doing(format!("create {}", log.display()))?;
    // An emulated machine needs no defence against its processor, and pays much for it.
    command.args([
        "-append",
        "console=ttyS0 panic=-1 oops=panic mitigations=off nokaslr quiet loglevel=4 rdinit=/init",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    command.spawn().map_err(|error| shell::not_started(&command, &error))
}

/// The machine's lines as they come, until it stops.
fn listen(machine: &mut Machine) -> Outcome<mpsc::Receiver<String>> {
    let output =
        machine.0.stdout.take().ok_or_else(|| Failure::new("the machine has no second serial port"))?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
