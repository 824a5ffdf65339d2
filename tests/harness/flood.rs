//! Connections by the ten thousand. One address has too few ports for them and one process too few files, so that there are
//! several of both.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Resource;
use rustix::process::Rlimit;

use crate::client::Address;
use crate::python::Python;
use crate::stage::must;
use crate::stage::package;

/// Connections of one client.
pub const EACH: usize = 10_000;

/// A process with idle connections; they are closed when this is dropped.
#[derive(Debug)]
pub struct Flood {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Flood {
    /// Client number `number`, from an address of its own, without a connection yet.
    pub fn start(number: usize, to: &Address) -> Self {
        let Address::Tcp(to) = to else { panic!("{to:?} is no TCP port") };
        let mut command = Command::new(Python::standard().script("python"));
        command.arg(package().join("apps/flood.py")).arg(format!("127.1.{number}.1"));
        command.arg(to.ip().to_string()).arg(to.port().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = must(command.spawn(), format_args!("start {command:?}"));
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.unwrap_or_else(|| panic!("{command:?} has no output"));
        Self { child, orders, answers: BufReader::new(answers) }
    }

    /// Opens so many more.
    pub fn open(&mut self, count: usize) {
        self.order(&format!("open {count}"));
    }

    /// Sends a request on one of them, counted from 0, and waits for the answer.
    pub fn get(&mut self, connection: usize, path: &str) {
        self.order(&format!("get {connection} {path}"));
    }

    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().unwrap_or_else(|| panic!("no client to {order}"));
        must(writeln!(orders, "{order}"), format_args!("tell a client to {order}"));
        let mut answer = String::new();
        must(self.answers.read_line(&mut answer), format_args!("hear of a client that it could {order}"));
        assert_eq!(answer, "done\n", "a client could not {order}");
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.orders = None;
        self.child.wait().ok();
    }
}

/// Lets this process, and what it starts from now on, have as many files open as it may.
pub fn allow() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit { current: maximum, maximum };
    must(rustix::process::setrlimit(Resource::Nofile, limit), format_args!("open {maximum:?} files"));
}
