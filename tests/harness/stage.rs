//! One live test at a time on this machine, with a folder and a service name of its own.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::fmt::Display;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::FlockOperation;

/// How long a test waits for its turn.
const TURN: Duration = Duration::from_secs(900);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The machine, for one test: the observer sees every gunicorn, so two tests must not run at once.
#[derive(Debug)]
pub struct Stage {
    /// Base of its instance names.
    pub base: String,
    /// A folder that goes when the test passes.
    pub dir: PathBuf,
    unique: String,
    _turn: File,
}

impl Stage {
    /// Waits for its turn. `name` helps a human who reads a failure.
    pub fn enter(name: &str) -> Self {
        let turn = locked(&target().join("live.lock"), TURN);
        let unique = format!("{name}-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = target().join("live").join(&unique);
        must(fs::create_dir_all(&dir), format_args!("make {}", dir.display()));
        Self { base: format!("host-{name}"), unique, dir, _turn: turn }
    }

    /// A new name for a service.
    pub fn service(&self) -> String {
        format!("live-{}-{}", self.unique, NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// A new folder in its own.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.join(format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        must(fs::create_dir(&folder), format_args!("make {}", folder.display()));
        folder
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept: {}", self.dir.display());
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// The value, or the end of the test with what could not be done.
pub fn must<T, E: Display>(result: Result<T, E>, what: impl Display) -> T {
    result.unwrap_or_else(|error| panic!("cannot {what}: {error}"))
}

/// Looks every 20 ms until there is something, for at most `limit`.
pub fn wait<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        let seen = look();
        if seen.is_some() || begin.elapsed() > limit {
            return seen;
        }
        thread::sleep(POLL);
    }
}

/// A file locked for this process until it is dropped.
pub fn locked(path: &Path, limit: Duration) -> File {
    let file = must(
        File::options().create(true).append(true).open(path),
        format_args!("open the lock {}", path.display()),
    );
    let locked = wait(limit, || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok());
    assert!(locked.is_some(), "another test has held {} for {limit:?}", path.display());
    file
}

/// The build's target folder: the one this test binary lies in.
pub fn target() -> PathBuf {
    profile().parent().map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

/// The folder of this build's binaries: `target/debug` or `target/release`.
pub fn profile() -> PathBuf {
    let own = must(std::env::current_exe(), "find the running test binary");
    let parent = own.parent().unwrap_or(Path::new("."));
    if parent.ends_with("deps") {
        parent.parent().unwrap_or(parent).to_path_buf()
    } else {
        parent.to_path_buf()
    }
}

/// The folder of this package.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program on the path, or one that setup put into `target/tools`.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = [package().join("../target/tools/bin"), target().join("tools/bin")];
    let folders = std::env::split_paths(&path).chain(tools);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: run cargo xtask setup --live"))
}
