//! Running other programs, with errors that a person can act on.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use crate::workspace;

/// What went wrong, as a sentence: the thing, the cause, the remedy.
#[derive(Debug)]
pub struct Failure(String);

/// The result of everything here.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// A failure about which everything is said already.
    pub fn said() -> Self {
        Self(String::new())
    }

    /// Whether there is nothing left to say.
    pub fn is_said(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Turns an I/O error into a failure that says what was being done.
pub trait While<T> {
    /// `doing` reads as in "cannot {doing}: permission denied".
    fn doing(self, doing: impl fmt::Display) -> Outcome<T>;
}

impl<T> While<T> for io::Result<T> {
    fn doing(self, doing: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Failure(format!("cannot {doing}: {error}")))
    }
}

/// Says what is done.
pub fn say(step: impl fmt::Display) {
    println!("xtask: {step}");
}

/// Runs to the end, on this terminal.
pub fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("{} failed ({status})", shown(command)))) }
}

/// Runs to the end; its standard output, or what it said on standard error.
pub fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
    let said: Vec<&str> = said.into_iter().rev().collect();
    Err(Failure(format!("{} failed ({}): {}", shown(command), output.status, said.join("; "))))
}

/// Why a program could not even be started.
pub fn not_started(command: &Command, error: &io::Error) -> Failure {
    let program = command.get_program().to_string_lossy();
    if error.kind() == io::ErrorKind::NotFound {
        return Failure(format!("cannot start {program}: it is not installed, or its folder is missing"));
    }
    Failure(format!("cannot start {program}: {error}"))
}

/// A command line as it would be typed.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if line.len() > 160 { format!("{}…", line.chars().take(160).collect::<String>()) } else { line }
}

/// The program's path, from `PATH` and the folders of the administrator's programs.
pub fn found(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command that runs as root: as it is for root, else through sudo.
///
/// # Errors
/// Not root, and no sudo on this machine.
pub fn as_root(program: impl AsRef<Path>) -> Outcome<Command> {
    let program = program.as_ref();
    if is_root() {
        return Ok(Command::new(program));
    }
    if found("sudo").is_none() {
        return Err(Failure(format!(
            "cannot run {} as root: this is not root and there is no sudo; run this command as root",
            program.display()
        )));
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Cargo in the root of the clone, with its own output (a quiet parent must not hide the tests' names).
pub fn cargo<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(arguments: I) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace::root()).env_remove("CARGO_TERM_QUIET");
    command
}
