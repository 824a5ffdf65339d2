//! A real gunicorn: its address, its workers, what it logged and what the application counted.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;

use crate::client::Address;
use crate::python::Python;
use crate::stage::Stage;
use crate::stage::must;
use crate::stage::package;
use crate::stage::wait;
use crate::tls;
use crate::tls::Version;

/// How long gunicorn may take to start, reload or stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Worker class as on the command line.
    pub class: &'static str,
    /// Application as on the command line, a module of `tests/apps`.
    pub app: &'static str,
    /// Number of workers.
    pub workers: usize,
    /// Listens on a Unix socket instead of a loopback port.
    pub unix: bool,
    /// The loopback port; 0 is any that is free.
    pub port: u16,
    /// Keeps an access log and counts of requests.
    pub counts: bool,
    /// More arguments.
    pub args: Vec<String>,
    /// More environment; the test's service and instance names are already in it.
    pub env: Vec<(String, String)>,
    /// Where gunicorn is installed, unless in the standard environment.
    pub python: Option<Python>,
    /// Starts it with the SkyWalking Python agent inside.
    pub agent: bool,
    /// Its workers speak TLS themselves, and clients this version.
    pub tls: Option<Version>,
    /// A program of `tests/apps` that has gunicorn and the application inside.
    pub embedded: Option<&'static str>,
}

impl Launch {
    /// Two workers on a loopback port.
    pub fn new(class: &'static str, app: &'static str) -> Self {
        Self {
            class,
            app,
            workers: 2,
            unix: false,
            port: 0,
            counts: true,
            args: Vec::new(),
            env: Vec::new(),
            python: None,
            agent: false,
            tls: None,
            embedded: None,
        }
    }

    /// Inside this program of `tests/apps`, which knows what it serves.
    pub fn embedded(mut self, program: &'static str) -> Self {
        self.embedded = Some(program);
        self
    }

    /// With a certificate, for clients of this version.
    pub fn tls(mut self, version: Version) -> Self {
        self.tls = Some(version);
        self
    }

    /// With the SkyWalking Python agent inside, which its environment has.
    pub fn with_agent(mut self) -> Self {
        self.agent = true;
        self
    }

    /// With so many workers.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// With more arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// With a variable more, or another value for one of the test's own; an empty value takes it away.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// On another Python.
    pub fn python(mut self, python: &Python) -> Self {
        self.python = Some(python.clone());
        self
    }

    /// Without an access log and counts, as a benchmark wants it.
    pub fn quiet(mut self) -> Self {
        self.counts = false;
        self
    }

    /// On this loopback port: with `--reuse-port` gunicorn does not say which one it chose.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// On a Unix socket.
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }
}

/// One line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The worker; uvicorn's own lines do not say.
    pub worker: Option<u32>,
    /// Status sent.
    pub status: u16,
    /// Method as sent.
    pub method: String,
    /// Path without query.
    pub path: String,
}

/// A running gunicorn; it ends when this is dropped.
#[derive(Debug)]
pub struct Gunicorn {
    child: Child,
    service: String,
    base: String,
    address: Address,
    dir: PathBuf,
    app: &'static str,
}

impl Gunicorn {
    /// Starts gunicorn and waits until every worker has loaded the application.
    pub fn start(stage: &Stage, launch: &Launch) -> Self {
        let gunicorn = Self::begin(stage, launch);
        gunicorn.wait_workers(launch.workers, &[]);
        gunicorn
    }

    /// Starts a gunicorn whose workers do not boot, and waits until it has tried a few times.
    pub fn looping(stage: &Stage, launch: &Launch) -> Self {
        let gunicorn = Self::begin(stage, launch);
        let looping = wait(PATIENCE, || (gunicorn.booted().len() > 10).then_some(()));
        assert!(looping.is_some(), "gunicorn does not boot workers again and again:\n{}", gunicorn.log());
        gunicorn
    }

    /// Starts a gunicorn that fails to boot, and waits until its master has ended.
    pub fn failing(stage: &Stage, launch: &Launch) -> Self {
        let mut gunicorn = Self::begin(stage, launch);
        let ended = wait(PATIENCE, || gunicorn.child.try_wait().ok().flatten());
        assert!(ended.is_some(), "gunicorn does not fail to boot:\n{}", gunicorn.log());
        gunicorn
    }

    fn begin(stage: &Stage, launch: &Launch) -> Self {
        let python = launch.python.clone().unwrap_or_else(Python::standard);
        let (service, base) = (stage.service(), stage.base.clone());
        let dir = stage.folder("gunicorn");
        must(fs::create_dir(dir.join("counts")), "make a folder for the counts");
        let socket = dir.join("socket");
        let bind = if launch.unix {
            format!("unix:{}", socket.display())
        } else {
            format!("127.0.0.1:{}", launch.port)
        };
        let log = must(File::create(dir.join("log")), "make gunicorn's log");
        let apps = package().join("apps");
        let script = match (launch.agent, launch.embedded) {
            (true, _) => "sw-python",
            (false, Some(_)) => "python",
            (false, None) => "gunicorn",
        };
        let mut command = Command::new(python.script(script));
        command.args(launch.embedded);
        command.current_dir(&apps).env_clear().stdin(std::process::Stdio::null());
        command.stdout(must(log.try_clone(), "share gunicorn's log")).stderr(log);
        let mut path = "/usr/bin:/bin".to_owned();
        if launch.agent {
            command.args(["run", "-p", "gunicorn"]);
            path = format!("{}:{path}", python.script("").display()); // it looks for gunicorn there
        }
        command.env("PATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("SW_AGENT_NAME", &service).env("SW_AGENT_INSTANCE_NAME", &base);
        command.env("HOME", &dir);
        if launch.counts {
            command.env("LIVE_COUNTS", dir.join("counts"));
            command.arg("--access-logfile").arg(dir.join("access"));
        }
        for (name, value) in &launch.env {
            match value.as_str() {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        command.args([
            "--worker-class",
            launch.class,
            "--workers",
            &launch.workers.to_string(),
            "--bind",
            &bind,
        ]);
        command.arg("--config").arg(apps.join("gunicorn.conf.py"));
        if launch.tls.is_some() {
            let (certificate, key) = tls::certificate(&dir);
            command.arg("--certfile").arg(certificate).arg("--keyfile").arg(key);
        }
        command.args(&launch.args);
        if launch.embedded.is_none() {
            command.arg(launch.app);
        }
        let child = must(command.spawn(), format_args!("start {command:?}"));
        let mut gunicorn =
            Self { child, service, base, address: Address::Unix(socket), dir, app: launch.app };
        if launch.port != 0 {
            gunicorn.address = Address::Tcp(([127, 0, 0, 1], launch.port).into());
        } else if !launch.unix {
            gunicorn.address = Address::Tcp(gunicorn.listening());
        }
        if let Some(version) = launch.tls {
            gunicorn.address = gunicorn.address.clone().encrypted(version);
        }
        gunicorn
    }

    fn listening(&mut self) -> std::net::SocketAddr {
        let found = wait(PATIENCE, || {
            let log = self.log();
            let line = log.lines().find_map(|line| line.split_once("Listening at: http"))?.1;
            let line = line.trim_start_matches('s').strip_prefix("://")?;
            line.split(' ').next()?.parse().ok()
        });
        found.unwrap_or_else(|| panic!("gunicorn does not listen:\n{}", self.log()))
    }

    /// Where it serves.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// SkyWalking's number of the framework that its application is made with.
    pub fn component(&self) -> i32 {
        match self.app {
            "flask_app:app" => 7001,
            "tornado_app:app" => 7005,
            "fastapi_app:app" => 7014,
            _ => 7000,
        }
    }

    /// Its service: no other gunicorn has it.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The master's instance name.
    pub fn master_name(&self) -> String {
        format!("{}-master({})", self.base, self.master())
    }

    /// A worker's instance name.
    pub fn worker_name(&self, worker: u32) -> String {
        format!("{}-child({worker})", self.master_name())
    }

    /// Its process.
    pub fn master(&self) -> u32 {
        self.child.id()
    }

    /// What it and the application wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Every worker that ever got ready, in that order.
    pub fn ever(&self) -> Vec<u32> {
        self.log()
            .lines()
            .filter_map(|line| line.split_once("worker ready: ")?.1.trim().parse().ok())
            .collect()
    }

    /// Every worker that was ever forked, ready or not.
    pub fn booted(&self) -> Vec<u32> {
        let log = self.log();
        log.lines()
            .filter_map(|line| line.split_once("Booting worker with pid: ")?.1.trim().parse().ok())
            .collect()
    }

    /// The workers that are ready and alive.
    pub fn workers(&self) -> Vec<u32> {
        self.ever().into_iter().filter(|pid| alive(*pid)).collect()
    }

    /// Waits for `count` workers that are none of `old`, and until those of `old` are gone.
    pub fn wait_workers(&self, count: usize, old: &[u32]) -> Vec<u32> {
        let found = wait(PATIENCE, || {
            let workers = self.workers();
            (workers.len() == count && !workers.iter().any(|pid| old.contains(pid))).then_some(workers)
        });
        found.unwrap_or_else(|| {
            panic!("gunicorn has {:?} and not {count} new workers:\n{}", self.workers(), self.log())
        })
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: Signal) {
        kill(self.master(), signal);
    }

    /// Requests that each process counted itself, before it answered.
    pub fn counts(&self) -> BTreeMap<u32, usize> {
        let files = must(fs::read_dir(self.dir.join("counts")), "list the counts");
        let count = |file: fs::DirEntry| {
            let size = file.metadata().ok()?.len();
            Some((file.file_name().to_str()?.parse().ok()?, usize::try_from(size).ok()?))
        };
        files.filter_map(Result::ok).filter_map(count).collect()
    }

    /// Whether its worker class writes an access log: Tornado's writes to the error log, and only what failed.
    pub fn logs_access(&self) -> bool {
        self.app != "tornado_app:app"
    }

    /// Its access log.
    pub fn access(&self) -> Vec<Access> {
        let log = fs::read_to_string(self.dir.join("access")).unwrap_or_default();
        log.lines().map(|line| access(line).unwrap_or_else(|| panic!("not an access line: {line}"))).collect()
    }

    /// Asks the master to end, and waits for it. What it leaves behind is killed.
    pub fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            kill(self.master(), Signal::TERM);
        }
        let ended = wait(PATIENCE, || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            kill(self.master(), Signal::KILL);
            must(self.child.wait(), "wait for gunicorn");
        }
        for pid in self.ever().into_iter().filter(|pid| self.owns(*pid)) {
            kill(pid, Signal::KILL);
        }
    }

    /// Numbers of processes are used again, so one is only killed when its command line names this test's folder.
    fn owns(&self, pid: u32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*self.dir.to_string_lossy())
    }
}

impl Drop for Gunicorn {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a signal; a process that has already gone is no error.
pub fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// Whether a process exists and is no zombie.
pub fn alive(pid: u32) -> bool {
    stat(Path::new(&format!("/proc/{pid}/stat")))
        .is_some_and(|fields| fields.first().is_some_and(|s| s != "Z"))
}

/// CPU time of a process so far, in clock ticks of 10 ms; 0 when it is gone.
pub fn cpu_ticks(pid: u32) -> u64 {
    let fields = stat(Path::new(&format!("/proc/{pid}/stat"))).unwrap_or_default();
    fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The fields of a `stat` file after the command's name: the first is the state.
fn stat(path: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn access(line: &str) -> Option<Access> {
    let split = |rest: &str| rest.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    if let Some(rest) = line.strip_prefix('<') {
        // gunicorn, in the format of apps/gunicorn.conf.py
        let (worker, rest) = rest.split_once("> ")?;
        let (status, rest) = split(rest)?;
        let (method, path) = split(&rest)?;
        return Some(Access { worker: worker.parse().ok(), status: status.parse().ok()?, method, path });
    }
    // uvicorn: client - "GET /path?query HTTP/1.1" 200
    let (_, rest) = line.split_once(" - \"")?;
    let (request, status) = rest.rsplit_once("\" ")?;
    let (method, rest) = split(request)?;
    let target = rest.rsplit_once(' ')?.0;
    let path = target.split('?').next()?.to_owned();
    Some(Access { worker: None, status: status.trim().parse().ok()?, method, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_access_lines_are_read() {
        for (line, worker) in [
            ("<77> 404 GET /missing/r1", Some(77)),
            ("127.0.0.1:4 - \"GET /missing/r1?n=2 HTTP/1.1\" 404", None),
        ] {
            let wanted = Access { worker, status: 404, method: "GET".into(), path: "/missing/r1".into() };
            assert_eq!(access(line), Some(wanted), "{line}");
        }
    }

    #[test]
    fn this_process_is_alive_and_has_used_time() {
        assert!(alive(std::process::id()));
        assert!(!alive(u32::MAX));
        assert_eq!(cpu_ticks(u32::MAX), 0);
    }
}
