//! Virtual environments with what the tests run, made once for each list of requirements and interpreter.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use object::Object;
use object::read::elf::ElfFile64;

use crate::stage::locked;
use crate::stage::must;
use crate::stage::package;
use crate::stage::target;

/// How long another process may take to make the same environment.
const MAKE: Duration = Duration::from_secs(600);
/// Names the interpreter to test with; `python3` otherwise.
const INTERPRETER: &str = "SW_TEST_PYTHON";

/// Every release whose numbers are read.
const RELEASES: [&str; 8] = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"];
/// Those that every machine has after `cargo xtask setup --live`: Debian's own and what is fetched.
const EVERYWHERE: [&str; 4] = ["3.9", "3.11", "3.14", "3.15"];

/// Where the machine's own interpreters are.
const PLACES: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// The interpreters of a version, `3.11` for one, that make virtual environments: pyenv's, the latest first, the machine's
/// own, what setup fetched.
pub fn installed(version: &str) -> Vec<PathBuf> {
    let root = env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".pyenv")));
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let mut built: Vec<PathBuf> =
        versions.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    built.retain(|dir| {
        dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{version}.")))
    });
    built.sort();
    let built = built.into_iter().rev().map(|dir| dir.join("bin/python3"));
    let program = format!("python{version}");
    let own = PLACES.map(|dir| Path::new(dir).join(&program));
    let fetched = target().join(format!("pythons/{version}/usr/bin/{program}"));
    built.chain(own).chain([fetched]).filter(|python| works(python)).collect()
}

/// Every interpreter of this machine whose numbers are read, with its path, in an environment with gunicorn alone.
pub fn releases() -> Vec<(String, Python)> {
    let all: Vec<(&str, PathBuf)> = RELEASES
        .into_iter()
        .flat_map(|release| installed(release).into_iter().map(move |python| (release, python)))
        .collect();
    for wanted in EVERYWHERE {
        let is_there = all.iter().any(|(release, _)| *release == wanted);
        assert!(is_there, "there is no Python {wanted}: cargo xtask setup --live installs it");
    }
    let list = package().join("apps/gunicorn.txt");
    all.into_iter()
        .map(|(_, python)| {
            let environment = Python::with(&python, &list);
            (python.display().to_string(), environment)
        })
        .collect()
}

/// Gunicorn on interpreters that have an OpenSSL inside: in the program, with its symbols and without, and in the module
/// `_ssl`. The one without symbols is put into a folder.
pub fn inside(dir: &Path) -> [Python; 3] {
    let program = fetched("inside/bin/python3", "apps/inside.txt");
    let bare = Parts { exe: target().join("pythons/inside/bin/python3-pie"), ..program.parts() };
    let bare = bare.copy(dir, strip);
    [program, bare, fetched("module/bin/python3.14", "apps/inside.txt")]
}

/// An interpreter with OpenSSL 1.1.1.
pub fn old() -> Python {
    fetched("3.9/usr/bin/python3.9", "apps/old.txt")
}

/// What setup has put into a folder, with requirements.
fn fetched(python: &str, requirements: &str) -> Python {
    let python = target().join("pythons").join(python);
    assert!(python.is_file(), "there is no {}: cargo xtask setup --live makes it", python.display());
    Python::with(&python, &package().join(requirements))
}

/// Whether it makes virtual environments.
pub fn works(python: &Path) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import venv, ensurepip"]).output().is_ok_and(|output| output.status.success())
}

/// Prints what a copy of an interpreter needs: its file, its home, its packages and its shared library.
const PARTS: &str = "import os, sys, sysconfig as c
print(os.path.realpath(sys.executable), sys.base_prefix, c.get_paths()['purelib'], sep='\\n')
print(os.path.join(c.get_config_var('LIBDIR'), c.get_config_var('INSTSONAME')))";

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

    /// Its gunicorn on a copy of its interpreter, and of the library of that.
    pub fn copied(&self, dir: &Path) -> Self {
        self.parts().copy(dir, |_| {})
    }

    /// The same without symbols; nothing where there are none to take away.
    pub fn stripped(&self, dir: &Path) -> Option<Self> {
        let parts = self.parts();
        has_symbols(parts.library.as_ref().unwrap_or(&parts.exe)).then(|| parts.copy(dir, strip))
    }

    fn parts(&self) -> Parts {
        let said = run(&self.script("python"), ["-c", PARTS]);
        let mut said = said.lines();
        let [exe, home, packages, library] = [(); 4].map(|()| PathBuf::from(said.next().unwrap_or_default()));
        Parts { exe, home, packages, library: Some(library).filter(|library| library.is_file()) }
    }

    /// The path of an installed script, `gunicorn` for one.
    pub fn script(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }
}

/// What a copy of an interpreter needs.
struct Parts {
    exe: PathBuf,
    home: PathBuf,
    packages: PathBuf,
    library: Option<PathBuf>,
}

impl Parts {
    /// Copies the interpreter and its library and does something to both copies; gunicorn runs on them.
    fn copy(&self, dir: &Path, change: impl Fn(&Path)) -> Python {
        let bin = dir.join("bin");
        must(fs::create_dir_all(&bin), format_args!("make {}", bin.display()));
        for file in [Some(&self.exe), self.library.as_ref()].into_iter().flatten() {
            let copy = bin.join(file.file_name().unwrap_or_default());
            must(fs::copy(file, &copy), format_args!("copy {}", file.display()));
            change(&copy);
        }
        let gunicorn = bin.join("gunicorn");
        let script = format!(
            "#!/bin/sh\nexport PYTHONHOME='{}' PYTHONPATH='{}' LD_LIBRARY_PATH='{}'\nexec '{}' -m gunicorn \"$@\"\n",
            self.home.display(),
            self.packages.display(),
            bin.display(),
            bin.join(self.exe.file_name().unwrap_or_default()).display(),
        );
        must(fs::write(&gunicorn, script), format_args!("write {}", gunicorn.display()));
        let mode = fs::Permissions::from_mode(0o755);
        must(fs::set_permissions(&gunicorn, mode), format_args!("make {} a program", gunicorn.display()));
        Python { dir: dir.to_path_buf() }
    }
}

fn strip(file: &Path) {
    run(Path::new("strip"), [OsStr::new("--strip-all"), file.as_os_str()]);
    assert!(!has_symbols(file), "{} still has symbols", file.display());
}

/// Whether a file has more symbols than linking at run time needs.
fn has_symbols(file: &Path) -> bool {
    let bytes = must(fs::read(file), format_args!("read {}", file.display()));
    let elf: ElfFile64 =
        must(ElfFile64::parse(&*bytes), format_args!("read the ELF file {}", file.display()));
    elf.section_by_name(".symtab").is_some()
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
