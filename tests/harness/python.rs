//! Virtual environments with what the tests run, made once for each list of requirements and interpreter.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::stage::locked;
use crate::stage::must;
use crate::stage::package;
use crate::stage::target;

/// How long another process may take to make the same environment.
const MAKE: Duration = Duration::from_secs(600);
/// Names the interpreter to test with; `python3` otherwise.
const INTERPRETER: &str = "SW_TEST_PYTHON";

/// A virtual environment that is ready to use.
#[derive(Clone, Debug)]
pub struct Python {
    dir: PathBuf,
}

impl Python {
    /// With gunicorn and the frameworks of the test applications, by the interpreter that `SW_TEST_PYTHON`
    /// names, else `python3`.
    pub fn standard() -> Self {
        let interpreter = env::var_os(INTERPRETER).unwrap_or_else(|| "python3".into());
        Self::with(Path::new(&interpreter), &package().join("apps/requirements.txt"))
    }

    /// With other requirements or another interpreter.
    pub fn with(interpreter: &Path, requirements: &Path) -> Self {
        let list = must(fs::read_to_string(requirements), format_args!("read {}", requirements.display()));
        let version = run(interpreter, ["-c", "import sys; print(sys.executable, sys.version)"]);
        let mut hasher = DefaultHasher::new();
        (list, version).hash(&mut hasher);
        let dir = target().join(format!("venv-{:016x}", hasher.finish()));
        let python = Self { dir };
        python.make(interpreter, requirements);
        python
    }

    fn make(&self, interpreter: &Path, requirements: &Path) {
        let made = self.dir.join("made");
        let _turn = locked(&self.dir.with_extension("lock"), MAKE);
        if made.exists() {
            return;
        }
        let wheel = wheel(interpreter);
        let bare = wheel.as_ref().map(|_| "--without-pip");
        let venv = ["-m", "venv", "--clear"].into_iter().chain(bare).map(OsStr::new);
        run(interpreter, venv.chain([self.dir.as_os_str()]));
        let pip = wheel.map_or_else(|| "-m pip".to_owned(), |wheel| format!("{}/pip", wheel.display()));
        let install = ["install", "--quiet", "--disable-pip-version-check", "--requirement"];
        let words = pip.split(' ').chain(install).map(OsStr::new);
        run(&self.script("python"), words.chain([requirements.as_os_str()]));
        must(fs::write(&made, ""), format_args!("write {}", made.display()));
    }

    /// The path of an installed script, `gunicorn` for one.
    pub fn script(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }
}

/// The pip of a Python that was unpacked with Debian's wheel of it beside, and cannot install that by itself.
fn wheel(interpreter: &Path) -> Option<PathBuf> {
    let wheels = interpreter.parent()?.parent()?.join("share/python-wheels");
    let files = fs::read_dir(wheels).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_pip =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-"));
    files.filter(|_| !interpreter.starts_with("/usr/bin")).find(is_pip)
}

/// What a command prints; it must succeed.
fn run<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(program);
    command.args(args);
    let output = must(command.output(), format_args!("run {}", program.display()));
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        panic!("{command:?} failed with {}\n{out}{err}", output.status);
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}
