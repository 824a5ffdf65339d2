//! A process that a command starts and that does not outlive it.

use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;

/// How long a process may take to stop after TERM.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Between two looks at a process or a port.
const PAUSE: Duration = Duration::from_millis(50);

/// A running process; stopped when dropped.
pub struct Service {
    name: String,
    child: Child,
    root: bool,
    log: Option<PathBuf>,
}

impl Service {
    /// Starts a process that writes to a log file. It is kept from the terminal's Ctrl-C: this command stops it.
    pub fn logged(name: &str, command: &mut Command, log: &Path) -> Outcome<Self> {
        let out = File::create(log).doing(format!("create {}", log.display()))?;
        let err = out.try_clone().doing(format!("write {}", log.display()))?;
        command.process_group(0).stdout(out).stderr(err);
        let mut service = Self::start(name, command)?;
        service.log = Some(log.to_owned());
        Ok(service)
    }

    /// Starts a process that runs as root and writes to this terminal, and gets its Ctrl-C.
    pub fn root(name: &str, command: &mut Command) -> Outcome<Self> {
        let mut service = Self::start(name, command)?;
        service.root = true;
        Ok(service)
    }

    fn start(name: &str, command: &mut Command) -> Outcome<Self> {
        let child = command.stdin(std::process::Stdio::null()).spawn();
        let child = child.map_err(|error| shell::not_started(command, &error))?;
        Ok(Self { name: name.to_owned(), child, root: false, log: None })
    }

    /// Waits until the process accepts connections.
    ///
    /// # Errors
    /// It ends, or does not listen in time; with the last thing that it wrote.
    pub fn listening(&mut self, address: SocketAddr, limit: Duration) -> Outcome {
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            self.running()?;
            if begin.elapsed() > limit {
                let name = &self.name;
                return Err(Failure::new(format!(
                    "{name} does not listen on {address}: {}",
                    self.last_words()
                )));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// # Errors
    /// It has ended; with the last thing that it wrote.
    pub fn running(&mut self) -> Outcome {
        match self.child.try_wait().doing(format!("look at {}", self.name))? {
            None => Ok(()),
            Some(status) => {
                Err(Failure::new(format!("{} ended by itself ({status}): {}", self.name, self.last_words())))
            }
        }
    }

    fn last_words(&self) -> String {
        let Some(log) = &self.log else { return "see above".to_owned() };
        let text = fs::read_to_string(log).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it wrote nothing");
        format!("{last} (more in {})", log.display())
    }

    /// Stops it with TERM, and returns how it ended.
    ///
    /// # Errors
    /// It did not stop in time, and was killed.
    pub fn stop(mut self) -> Outcome<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> Outcome<ExitStatus> {
        for signal in ["TERM", "KILL"] {
            if let Some(status) = self.child.try_wait().doing(format!("look at {}", self.name))? {
                return Ok(status);
            }
            self.signal(signal)?;
            let begin = Instant::now();
            while begin.elapsed() < STOP_LIMIT {
                if let Some(status) = self.child.try_wait().doing(format!("look at {}", self.name))? {
                    if signal == "KILL" {
                        return Err(Failure::new(format!(
                            "{} did not stop on TERM and was killed",
                            self.name
                        )));
                    }
                    return Ok(status);
                }
                thread::sleep(PAUSE);
            }
        }
        Err(Failure::new(format!("{} (process {}) cannot be stopped", self.name, self.child.id())))
    }

    fn signal(&self, signal: &str) -> Outcome {
        let pid = if self.root { below_sudo(self.child.id()) } else { self.child.id() };
        let mut command = if self.root { shell::as_root("kill")? } else { Command::new("kill") };
        // It may end by itself before the signal comes; the caller looks.
        shell::output(command.args(["-s", signal, &pid.to_string()])).map(drop).or(Ok(()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            shell::say(failure);
        }
    }
}

/// The process that sudo runs: sudo passes on some signals only.
fn below_sudo(pid: u32) -> u32 {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    match children.split_whitespace().next().and_then(|child| child.parse().ok()) {
        Some(child) if name.trim() == "sudo" => below_sudo(child),
        _ => pid,
    }
}
