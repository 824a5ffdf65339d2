//! An observer that ships to the collector: what prints would be measured with who reads it.

use std::fs;
use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;

use harness::collector::Collector;
use harness::gunicorn::kill;
use harness::observer::binary;
use harness::stage::Stage;
use harness::stage::must;
use rustix::process::Signal;

/// A running observer.
pub struct Shipping {
    child: Child,
    log: PathBuf,
}

impl Shipping {
    /// Of services that match; with more arguments.
    pub fn start(stage: &Stage, collector: &Collector, services: &str, args: &[&str]) -> Self {
        let log = stage.folder("observer").join("log");
        let stderr = must(File::create(&log), "create a file for the log");
        let mut command = Command::new(binary());
        command.args(["--target", &format!("gunicorn:service={services}"), "--log-level=info"]);
        command.args(["--oap", &collector.endpoint()]).args(args).stderr(stderr);
        Self { child: must(command.spawn(), "start sw-observe"), log }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether its probes are attached and it has looked who is there.
    pub fn is_ready(&self) -> bool {
        self.log().contains("watching gunicorn: ")
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it lost, by its own words; other gunicorns of the machine count. A kernel that is busy may take longer to detach
    /// probes than it waits: how it ends does not matter here.
    pub fn stop(mut self) -> Option<String> {
        kill(self.child.id(), Signal::TERM);
        must(self.child.wait(), "wait for sw-observe");
        let log = self.log();
        let said = log.lines().rev().find_map(|line| line.split_once("lost so far: "));
        said.map(|(_, lost)| lost.to_owned())
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            kill(self.child.id(), Signal::KILL);
            must(self.child.wait(), "wait for sw-observe");
        }
    }
}
