//! `cargo xtask demo`: two gunicorn services that call one another, and what `sw-observe` sees of them.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use clap::Args;

use crate::observer;
use crate::service::Service;
use crate::setup;
use crate::setup::Part;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

/// What to show, and for how long.
#[derive(Args)]
pub struct Options {
    /// Ship to this OAP, such as 127.0.0.1:11800, besides printing
    #[arg(long, value_name = "HOST:PORT")]
    oap: Option<String>,
    /// How long to send requests
    #[arg(long, default_value_t = 20, value_name = "N")]
    seconds: u64,
    /// Go on until Ctrl-C
    #[arg(long, conflicts_with = "seconds")]
    keep: bool,
    /// The observer to run, instead of one built now
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Between two requests.
const PACE: Duration = Duration::from_millis(500);

/// Seconds between two meter reports: use of the processor is that since the report before, so one look needs two.
const METER_PERIOD: &str = "10";

/// Between two looks at whether `sw-observe` watches.
const PAUSE: Duration = Duration::from_millis(50);

/// Until a service listens, `sw-observe` watches, and an answer comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command.
pub fn command(options: &Options) -> Outcome {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::new(format!("cannot watch for Ctrl-C: {error}")))?;
    let go_on = || !interrupted.load(Ordering::Relaxed);

    // Said now, not after minutes of building.
    shell::as_root("sw-observe")?;
    setup::programs(&[Part::Python])?;
    let folder = workspace::cache().join("demo");
    environment(&folder)?;
    let observer = match &options.binary {
        Some(binary) => fs::canonicalize(binary).doing(format!("find {}", binary.display()))?,
        None => observer::release()?,
    };
    if !shell::is_root() {
        shell::say(
            "sw-observe loads probes into the kernel: sudo asks for your password, for this one program",
        );
        shell::run(Command::new("sudo").arg("--validate"))?;
    }
    if !go_on() {
        return Ok(());
    }

    let [consumer_at, provider_at] = free_ports()?;
    let mut provider = gunicorn(
        &folder,
        "demo-provider",
        &["gunicorn_provider:app", "--workers", "2", "--bind", &provider_at.to_string()],
    );
    let mut provider = Service::logged("the provider", &mut provider, &folder.join("provider.log"))?;
    let mut consumer = gunicorn(
        &folder,
        "demo-consumer",
        &[
            "gunicorn_consumer_prefork:app",
            "--workers",
            "2",
            "--worker-class",
            "uvicorn.workers.UvicornWorker",
            "--bind",
            &consumer_at.to_string(),
        ],
    );
    consumer.env("DEMO_PROVIDER", format!("http://{provider_at}"));
    let mut consumer = Service::logged("the consumer", &mut consumer, &folder.join("consumer.log"))?;
    provider.listening(provider_at, PATIENCE)?;
    consumer.listening(consumer_at, PATIENCE)?;
    shell::say(format!(
        "two services run: consumer (FastAPI, uvicorn workers) on {consumer_at}, provider (Flask, sync workers) on {provider_at}"
    ));
    shell::say("neither knows of SkyWalking; now: sudo sw-observe --target gunicorn");

    let mut command = shell::as_root(&observer)?;
    command.args(["--target", "gunicorn", "--print", "--meter-period", METER_PERIOD]);
    if let Some(oap) = &options.oap {
        command.args(["--oap", oap]);
    }
    let (log, theirs) = io::pipe().doing("make a pipe")?;
    let mut observer = Service::root("sw-observe", command.stderr(theirs))?;
    drop(command); // it holds the pipe open
    let watching = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&watching);
    let log = thread::spawn(move || pass_on(log, &seen));
    let begin = Instant::now();
    while go_on() && !watching.load(Ordering::Relaxed) {
        observer.running()?;
        if begin.elapsed() > PATIENCE {
            return Err(Failure::new(format!("sw-observe does not watch anything after {PATIENCE:?}")));
        }
        thread::sleep(PAUSE);
    }
    let begin = Instant::now();
    let (mut sent, mut answered) = (0_u64, 0_u64);
    while go_on() && (options.keep || begin.elapsed() < Duration::from_secs(options.seconds)) {
        observer.running()?;
        sent = sent.saturating_add(1);
        match get(consumer_at, sent) {
            Ok(()) => answered = answered.saturating_add(1),
            Err(failure) => shell::say(failure),
        }
        thread::sleep(PACE);
    }
    shell::say(format!(
        "{sent} requests sent to the consumer, {answered} answered; each made one more to the provider"
    ));
    // The services first, so that sw-observe sees their workers go.
    consumer.stop()?;
    provider.stop()?;
    let status = observer.stop()?;
    log.join().map_err(|_| Failure::new("the log of sw-observe was not passed on to its end"))?;
    if !status.success() && go_on() {
        return Err(Failure::new(format!("sw-observe ended with {status}")));
    }
    if options.oap.is_none() {
        shell::say("the same in SkyWalking's UI: cargo xtask demo --oap HOST:11800");
    }
    Ok(())
}

/// The log of `sw-observe`, on to this terminal; says when it watches.
fn pass_on(log: impl Read, watching: &AtomicBool) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        eprintln!("{line}");
        if line.contains(" watching gunicorn: ") {
            watching.store(true, Ordering::Relaxed);
        }
    }
}

/// A virtual environment with what the services need; made anew when the list changes.
fn environment(folder: &Path) -> Outcome {
    let python = python(folder);
    let list = workspace::root().join("deploy/demo/requirements.txt");
    let wanted = fs::read_to_string(&list).doing(format!("read {}", list.display()))?;
    let stamp = python.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|old| old == wanted) {
        return Ok(());
    }
    shell::say("a virtual environment with gunicorn, Flask, FastAPI and uvicorn, in target/demo");
    fs::create_dir_all(folder).doing(format!("create {}", folder.display()))?;
    shell::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&python))?;
    shell::output(
        Command::new(python.join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(&list),
    )?;
    fs::write(&stamp, wanted).doing(format!("write {}", stamp.display()))?;
    Ok(())
}

fn python(folder: &Path) -> PathBuf {
    folder.join("python")
}

fn gunicorn(folder: &Path, service: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(python(folder).join("bin/gunicorn"));
    command.env("HOME", folder); // gunicorn keeps its control socket in there
    command.args(arguments).current_dir(workspace::root().join("deploy/demo"));
    command.env("SW_AGENT_NAME", service).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Both are held until both are known, so that they differ.
fn free_ports() -> Outcome<[SocketAddr; 2]> {
    let held = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("find a free port");
    let (one, other) = (held()?, held()?);
    let address = |listener: &TcpListener| listener.local_addr().doing("find a free port");
    Ok([address(&one)?, address(&other)?])
}

/// One request on a connection of its own.
fn get(address: SocketAddr, number: u64) -> Outcome {
    let talk = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /orders/{number} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: String = talk().doing(format!("ask the consumer for order {number}"))?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let first = answer.lines().next().unwrap_or("nothing");
    Err(Failure::new(format!("the consumer answered order {number} with {first}")))
}
