//! Why a process of gunicorn ended: the order in which facts decide. Pure.
use super::ProcessKey;
use crate::clock::KernelTime;

/// Numbers of `signal(7)` on x86 and ARM.
pub mod signal {
    /// Reload.
    pub const HUP: u32 = 1;
    /// Quick stop.
    pub const INT: u32 = 2;
    /// Quick stop.
    pub const QUIT: u32 = 3;
    /// An arbiter's first answer to a worker that does not beat.
    pub const ABRT: u32 = 6;
    /// The end.
    pub const KILL: u32 = 9;
    /// Start an upgrade.
    pub const USR2: u32 = 12;
    /// Graceful stop.
    pub const TERM: u32 = 15;
    /// One worker less.
    pub const TTOU: u32 = 22;
    /// No workers, when daemonised.
    pub const WINCH: u32 = 28;
}

/// `si_code` of what the kernel itself sends (`<asm-generic/siginfo.h>`).
const SI_KERNEL: i32 = 128;
/// Gunicorn's exit codes for a worker that did not boot, and for an application that cannot be loaded (`errors.py`).
const BOOT_ERRORS: [u32; 2] = [3, 4];
/// A worker's exit code after an exception while it served (`arbiter.py`).
const EXCEPTION: u32 = 255;

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// By itself, as asked by `--max-requests`, `--reload` or its own decision, which look the same from outside.
    Recycle,
    /// Its arbiter got HUP.
    Reload,
    /// Its arbiter got TTOU.
    ScaleDown,
    /// Its arbiter got TERM, INT or QUIT, or it did so itself.
    Shutdown,
    /// Its arbiter got WINCH.
    Upgrade,
    /// Its arbiter killed it because it did not finish its requests in time.
    GracefulTimeout,
    /// Its arbiter aborted it because it did not beat.
    Timeout,
    /// The kernel chose it when memory ran out.
    Oom,
    /// A signal of its own doing.
    Crash,
    /// Another process killed it.
    Killed,
    /// It, or a worker of the same arbiter, did not boot.
    BootFailure,
    /// The first process of its pid namespace ended.
    Container,
    /// Its arbiter asked it to end, and nobody had asked that of the arbiter.
    Asked,
    /// Its arbiter was gone before it.
    Orphaned,
    /// An exception while it served.
    Exception,
    /// Another exit code.
    Exit,
    /// Not known, with a reason.
    Unknown,
}

impl Cause {
    /// As events and pages name it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Recycle => "recycle",
            Cause::Reload => "reload",
            Cause::ScaleDown => "scale-down",
            Cause::Shutdown => "shutdown",
            Cause::Upgrade => "upgrade",
            Cause::GracefulTimeout => "graceful-timeout",
            Cause::Timeout => "timeout",
            Cause::Oom => "oom",
            Cause::Crash => "crash",
            Cause::Killed => "killed",
            Cause::BootFailure => "boot-failure",
            Cause::Container => "container",
            Cause::Asked => "asked",
            Cause::Orphaned => "orphaned",
            Cause::Exception => "exception",
            Cause::Exit => "exit",
            Cause::Unknown => "unknown",
        }
    }

    /// As a sentence says it.
    pub fn meaning(self) -> &'static str {
        match self {
            Cause::Recycle => "by itself (--max-requests, --reload or its own decision)",
            Cause::Reload => "replaced, because its arbiter reloads",
            Cause::ScaleDown => "one worker less was asked for",
            Cause::Shutdown => "shutdown",
            Cause::Upgrade => "its arbiter gives way to an upgrade",
            Cause::GracefulTimeout => "killed, because its requests did not end within the graceful timeout",
            Cause::Timeout => "aborted by its arbiter, because it did not beat within the timeout",
            Cause::Oom => "killed by the kernel, out of memory",
            Cause::Crash => "crash",
            Cause::Killed => "killed from outside",
            Cause::BootFailure => "did not boot",
            Cause::Container => "killed with the first process of its container",
            Cause::Asked => {
                "its arbiter asked it to, and nobody had asked the arbiter (control socket or surplus)"
            }
            Cause::Orphaned => "its arbiter was gone",
            Cause::Exception => "an exception while it served",
            Cause::Exit => "its own exit code",
            Cause::Unknown => "not known",
        }
    }

    /// Whether somebody should look at it.
    pub fn is_trouble(self) -> bool {
        !matches!(
            self,
            Cause::Recycle
                | Cause::Reload
                | Cause::ScaleDown
                | Cause::Shutdown
                | Cause::Upgrade
                | Cause::Asked
                | Cause::Unknown
        )
    }
}

/// A signal as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// When.
    pub at: KernelTime,
    /// Its number.
    pub number: u32,
    /// `si_code`.
    pub code: i32,
    /// Who sent it, in the initial pid namespace.
    pub sender: u32,
    /// The sender's name.
    pub comm: String,
}

/// A wait status: `wait(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// The signal that ended it.
    pub fn signal(self) -> Option<u32> {
        Some(self.0 & 0x7f).filter(|signal| *signal != 0)
    }

    /// Its exit code.
    pub fn code(self) -> Option<u32> {
        self.signal().is_none().then_some(self.0 >> 8 & 0xff)
    }

    /// Whether it is one of the codes with which a worker makes its arbiter stop.
    pub fn stops_arbiter(self) -> bool {
        self.code().is_some_and(|code| BOOT_ERRORS.contains(&code))
    }

    /// `exit 0` or `signal 9`.
    pub fn text(self) -> String {
        match (self.signal(), self.code()) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, code) => format!("exit {}", code.unwrap_or(0)),
        }
    }
}

/// What is known of a process that ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// It.
    pub process: ProcessKey,
    /// How it ended; nothing when that went by unseen.
    pub status: Option<Status>,
    /// Whether the kernel chose it when memory ran out.
    pub oom: bool,
    /// What was sent to it, in order.
    pub signals: &'a [Signal],
    /// Its arbiter's pid, for one that has an arbiter.
    pub arbiter: Option<u32>,
    /// Why its arbiter asked it to end, if it did.
    pub asked: Option<Cause>,
    /// What its arbiter is itself about, if it is ending.
    pub ending: Option<Cause>,
    /// Whether its arbiter was gone first.
    pub orphaned: bool,
    /// Whether it ever beat, or for an arbiter whether a worker of it did.
    pub ready: bool,
    /// Whether it has pids of its own.
    pub contained: bool,
    /// Whether signals may have been sent before anybody looked.
    pub blind: bool,
}

/// What was found, with the signal that decided it and, for what is not known, the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The cause.
    pub cause: Cause,
    /// The signal behind it.
    pub signal: Option<&'a Signal>,
    /// Why it is not known.
    pub reason: Option<&'static str>,
}

impl<'a> End<'a> {
    /// The first rule that applies.
    pub fn verdict(&self) -> Verdict<'a> {
        let found = |cause, signal| Verdict { cause, signal, reason: None };
        let unknown = |reason| Verdict { cause: Cause::Unknown, signal: None, reason: Some(reason) };
        if self.oom {
            return found(Cause::Oom, None);
        }
        let Some(status) = self.status else { return unknown("its end went by unseen") };
        let aborted = self.sent(|signal| signal.number == signal::ABRT && self.by_arbiter(signal));
        if aborted.is_some() {
            return found(Cause::Timeout, aborted);
        }
        if status.signal() == Some(signal::KILL) {
            return self.killed();
        }
        let stop = self.sent(|signal| is_stop(signal.number) && signal.sender != self.process.pid);
        if let Some(signal) = stop.filter(|_| self.is_graceful(status)) {
            let cause = if self.arbiter.is_none() { Cause::Shutdown } else { Cause::Killed };
            let asked = self.asked.filter(|_| self.by_arbiter(signal)).or(self.ending);
            return found(asked.unwrap_or(cause), Some(signal));
        }
        // A worker answers an abort with exit 0 or 1, whoever sent it (`workers/base.py`, `handle_abort`).
        let abort = self.sent(|signal| signal.number == signal::ABRT && signal.sender != self.process.pid);
        if let Some(signal) = abort.filter(|_| status.code().is_some_and(|code| code <= 1)) {
            return found(Cause::Killed, Some(signal));
        }
        if let Some(number) = status.signal() {
            let behind = self.sent(|signal| signal.number == number);
            let foreign = behind.filter(|signal| signal.code <= 0 && signal.sender != self.process.pid);
            return found(if foreign.is_some() { Cause::Killed } else { Cause::Crash }, foreign.or(behind));
        }
        self.exited(status.code().unwrap_or(0))
    }

    /// Ended by KILL: whose?
    fn killed(&self) -> Verdict<'a> {
        let found = |cause, signal| Verdict { cause, signal, reason: None };
        let Some(signal) = self.sent(|signal| signal.number == signal::KILL) else {
            let reason = Some("the signal that killed it was not seen");
            return Verdict { cause: Cause::Unknown, signal: None, reason };
        };
        let stopped = self.sent(|signal| is_stop(signal.number)).is_some();
        let cause = match signal.code {
            _ if signal.sender == self.process.pid => Cause::Crash, // by itself, or for its use of the processor
            SI_KERNEL if self.contained => Cause::Container,
            0 if self.by_arbiter(signal) && (stopped || self.asked.is_some() || self.ending.is_some()) => {
                Cause::GracefulTimeout
            }
            _ => Cause::Killed,
        };
        found(cause, Some(signal))
    }

    /// Ended by itself.
    fn exited(&self, code: u32) -> Verdict<'a> {
        let found = |cause| Verdict { cause, signal: None, reason: None };
        match (code, self.arbiter) {
            (0, _) if self.orphaned => found(Cause::Orphaned),
            (_, Some(_)) if !self.ready => found(Cause::BootFailure),
            (_, None) if self.ending.is_some() => found(self.ending.unwrap_or(Cause::Exit)),
            (0, Some(_)) if self.blind => {
                let reason = Some("what was sent to it before it was watched is not known");
                Verdict { cause: Cause::Unknown, signal: None, reason }
            }
            (0, Some(_)) => found(Cause::Recycle),
            (EXCEPTION, Some(_)) => found(Cause::Exception),
            (_, None) if !self.ready && code != 0 => found(Cause::BootFailure),
            _ => found(Cause::Exit),
        }
    }

    /// Whether a stop ends so: exit 0, or the stop's own signal when it came during finalisation or is raised again.
    fn is_graceful(&self, status: Status) -> bool {
        status.signal().map_or_else(|| status.code() == Some(0), is_stop)
    }

    fn by_arbiter(&self, signal: &Signal) -> bool {
        signal.code == 0 && Some(signal.sender) == self.arbiter
    }

    fn sent(&self, is: impl Fn(&Signal) -> bool) -> Option<&'a Signal> {
        self.signals.iter().find(|signal| is(signal))
    }
}

/// Whether gunicorn ends at this signal.
pub fn is_stop(number: u32) -> bool {
    matches!(number, signal::TERM | signal::INT | signal::QUIT)
}
