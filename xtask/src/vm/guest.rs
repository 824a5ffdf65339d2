//! What a guest boots with: busybox, a Python with gunicorn, the observer, the driver, and the libraries they need.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

/// What a guest is for.
pub struct Purpose<'a> {
    /// A folder of its own.
    pub name: &'static str,
    /// The release of gunicorn that it runs, and what else, for `pip install`.
    pub packages: &'a [&'a str],
    /// Files of the repository, which are beside one another in the guest. The first is what it runs.
    pub scripts: &'a [&'a str],
}

/// Parts of a Python that a server does not need; half of its size.
const SKIPPED: [&str; 12] = [
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pip",
    "pydoc_data",
    "setuptools",
    "site-packages",
    "test",
    "tkinter",
    "turtledemo",
];

/// What Python says of itself, a line each.
const ASK: &str = "import os, sys, sysconfig
for line in (sys._base_executable, sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib'), sys.version):
    print(line.splitlines()[0])";

/// A packed root, ready to boot.
pub struct Guest {
    archive: PathBuf,
}

impl Guest {
    /// Packs what changes with every build onto what stays.
    pub fn prepare(purpose: &Purpose<'_>, binary: &Path, arguments: &[String]) -> Outcome<Self> {
        let folder = workspace::cache().join("vm").join(purpose.name);
        let python = Python::find(folder.join("python"))?;
        let base = base(&folder, purpose, &python)?;

        let root = Root::new(folder.join("overlay"))?;
        root.copy(&workspace::root().join("tests/vm/init"), Path::new("/init"))?;
        let scripts: Vec<&Path> = purpose.scripts.iter().map(Path::new).collect();
        for script in &scripts {
            root.copy(&workspace::root().join(script), &in_guest(script))?;
        }
        root.certificate()?;
        root.observer(binary)?;
        let programs = python.environment.join("bin");
        let place = programs.display();
        let driver = in_guest(scripts.first().copied().unwrap_or(Path::new("")));
        let settings = format!(
            "PYTHON={place}/python3\nexport GUNICORN={place}/gunicorn\nDRIVER=\"{} {}\"\n",
            driver.display(),
            arguments.join(" ")
        );
        root.write("/vm/settings", &settings)?;
        root.libraries(&[binary.to_path_buf()])?;
        let overlay = folder.join("overlay.cpio");
        root.pack(&overlay)?;

        let archive = folder.join("guest.cpio");
        let mut out = File::create(&archive).doing(format!("create {}", archive.display()))?;
        for part in [base, overlay] {
            let mut from = File::open(&part).doing(format!("open {}", part.display()))?;
            io::copy(&mut from, &mut out).doing(format!("write {}", archive.display()))?;
        }
        Ok(Self { archive })
    }

    /// The archive for the kernel to unpack. Not compressed: unpacking is slow in an emulated machine.
    pub fn archive(&self) -> &Path {
        &self.archive
    }
}

/// This machine's Python.
struct Python {
    executable: PathBuf,
    folders: BTreeSet<PathBuf>,
    version: String,
    /// The virtual environment with gunicorn. It is at the same path in the guest, so that nothing in it must change.
    environment: PathBuf,
}

impl Python {
    fn find(environment: PathBuf) -> Outcome<Self> {
        let said = shell::output(Command::new("python3").args(["-I", "-c", ASK]))?;
        let mut lines = said.lines().map(str::to_owned);
        let (Some(executable), Some(library), Some(platform), Some(version)) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(Failure::new("python3 does not say where its library is: is it CPython 3?"));
        };
        let folders = [library, platform].map(PathBuf::from).into();
        Ok(Self { executable: executable.into(), folders, version, environment })
    }

    fn make_environment(&self, packages: &[&str]) -> Outcome {
        shell::say(format!("a Python with {} for the guests", packages.join(" ")));
        shell::output(Command::new(&self.executable).args(["-m", "venv", "--clear"]).arg(&self.environment))?;
        let mut install = Command::new(self.environment.join("bin/pip"));
        shell::output(install.args(["install", "--quiet"]).args(packages))?;
        Ok(())
    }
}

/// Everything but the observer and the driver; made anew when Python or this file changes.
fn base(folder: &Path, purpose: &Purpose<'_>, python: &Python) -> Outcome<PathBuf> {
    let archive = folder.join("base.cpio");
    let stamp = folder.join("base.stamp");
    let packages_wanted = purpose.packages.join(" ");
    let executable = python.executable.display();
    let wanted = format!("{executable} {}\n{packages_wanted}\n{}", python.version, include_str!("guest.rs"));
    if archive.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == wanted) {
        return Ok(archive);
    }
    python.make_environment(purpose.packages)?;
    shell::say("packing the guests' root");
    let root = Root::new(folder.join("base"))?;
    for path in ["/proc", "/sys", "/dev", "/tmp", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/root"] {
        root.folder(Path::new(path))?;
    }
    root.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
    root.write("/etc/group", "root:x:0:\n")?;
    root.write("/etc/hosts", "127.0.0.1 localhost guest\n")?;
    let busybox =
        shell::found("busybox").ok_or_else(|| Failure::new("busybox is missing: cargo xtask setup --vm"))?;
    root.copy(&busybox, Path::new("/bin/busybox"))?;
    root.program(&python.executable)?;
    for library in &python.folders {
        root.tree(library, library)?;
    }
    let environment = &python.environment;
    root.tree(environment, environment)?;
    for entry in packages(environment)? {
        root.tree(&entry, &entry)?;
    }
    let mut binaries = vec![busybox, python.executable.clone()];
    root.shared_objects(&mut binaries)?;
    root.libraries(&binaries)?;
    root.compile(python)?;
    root.pack(&archive)?;
    fs::write(&stamp, wanted).doing(format!("write {}", stamp.display()))?;
    Ok(archive)
}

/// Where a script of the repository is in a guest.
fn in_guest(script: &Path) -> PathBuf {
    Path::new("/vm").join(script.file_name().unwrap_or_default())
}

/// Each package of the environment; their common folder has a name that is skipped elsewhere.
fn packages(environment: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for version in entries(&environment.join("lib"))? {
        found.extend(entries(&version.join("site-packages"))?.into_iter().filter(|path| !skipped(path)));
    }
    Ok(found)
}

fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let read = fs::read_dir(folder).doing(format!("read {}", folder.display()))?;
    Ok(read.flatten().map(|entry| entry.path()).collect())
}

fn skipped(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    SKIPPED.contains(&&*name)
        || ["config-", "_tkinter"].iter().any(|start| name.starts_with(start))
        || (name.starts_with("_test") && name.ends_with(".so"))
        || name.ends_with(".a")
}

/// A folder that becomes the guest's root.
struct Root(PathBuf);

impl Root {
    fn new(folder: PathBuf) -> Outcome<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).doing(format!("empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).doing(format!("create {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Where a path of the guest is on this machine.
    fn at(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn folder(&self, path: &Path) -> Outcome {
        let folder = self.at(path);
        fs::create_dir_all(&folder).doing(format!("create {}", folder.display()))
    }

    fn write(&self, path: &str, text: &str) -> Outcome {
        let path = Path::new(path);
        self.folder(path.parent().unwrap_or(path))?;
        fs::write(self.at(path), text).doing(format!("write {}", path.display()))
    }

    /// Copies a file, or a link as a link.
    fn copy(&self, from: &Path, path: &Path) -> Outcome {
        self.folder(path.parent().unwrap_or(path))?;
        let to = self.at(path);
        if to.symlink_metadata().is_ok() {
            return Ok(());
        }
        match fs::read_link(from) {
            Ok(target) => symlink(target, &to),
            Err(_) => fs::copy(from, &to).map(drop),
        }
        .doing(format!("copy {}", from.display()))
    }

    /// A program at its own path, with the links that lead to it.
    fn program(&self, path: &Path) -> Outcome {
        self.copy(path, path)?;
        match fs::read_link(path) {
            Ok(target) => self.program(&path.parent().unwrap_or(path).join(target)),
            Err(_) => Ok(()),
        }
    }

    fn tree(&self, from: &Path, path: &Path) -> Outcome {
        if !from.is_dir() || from.is_symlink() {
            return self.copy(from, path);
        }
        self.folder(path)?;
        for entry in entries(from)? {
            if !skipped(&entry) {
                self.tree(&entry, &path.join(entry.file_name().unwrap_or_default()))?;
            }
        }
        Ok(())
    }

    /// A certificate beside the scripts, with its key in the same file.
    fn certificate(&self) -> Outcome {
        let file = self.at(Path::new("/vm/certificate.pem"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-newkey", "ec"]);
        command
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-out"])
            .arg(&file)
            .arg("-keyout")
            .arg(&file);
        shell::output(&mut command).map(drop)
    }

    /// The observer without its debug information, which is most of it. A stand-in that is a script is taken as it is.
    fn observer(&self, binary: &Path) -> Outcome {
        if !binary.is_file() {
            return Err(Failure::new(format!(
                "{} is no file: name the observer with --binary",
                binary.display()
            )));
        }
        let path = Path::new("/vm/sw-observe");
        let stripped =
            Command::new("strip").arg("--strip-debug").arg("-o").arg(self.at(path)).arg(binary).output();
        if stripped.is_ok_and(|output| output.status.success()) { Ok(()) } else { self.copy(binary, path) }
    }

    /// Adds every shared object below the root.
    fn shared_objects(&self, found: &mut Vec<PathBuf>) -> Outcome {
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "so") {
                    found.push(path);
                }
            }
        }
        Ok(())
    }

    /// The libraries that these need, at the paths where they look for them.
    fn libraries(&self, binaries: &[PathBuf]) -> Outcome {
        // It fails as soon as one of them is static or a script, and still lists those of the others.
        let mut command = Command::new("ldd");
        command.args(binaries);
        let listed = command.output().map_err(|error| shell::not_started(&command, &error))?;
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            if line.contains("not found") {
                return Err(Failure::new(format!("a library is missing on this machine: {}", line.trim())));
            }
            let named = line.split(" (0x").next().and_then(|part| part.split_whitespace().last());
            if let Some(path) = named.filter(|path| line.contains(" (0x") && path.starts_with('/')) {
                let real = fs::canonicalize(path).doing(format!("find {path}"))?;
                self.copy(&real, Path::new(path))?;
            }
        }
        Ok(())
    }

    /// Compiles all Python code: an emulated machine takes minutes for it. Times are not compared, since copying
    /// changes them.
    fn compile(&self, python: &Python) -> Outcome {
        let mut command = Command::new(&python.executable);
        command.args(["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s"]);
        // A few files of the library are wrong on purpose; a failure shows up as slowness only.
        command.arg(&self.0).args(["-p", "/"]).arg(&self.0).stdout(Stdio::null());
        command.status().map(drop).map_err(|error| shell::not_started(&command, &error))
    }

    fn pack(&self, archive: &Path) -> Outcome {
        let out = File::create(archive).doing(format!("create {}", archive.display()))?;
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "find . -print0 | sort -z | cpio --null --create --format=newc --owner=0:0 --quiet",
        ]);
        command.current_dir(&self.0).stdout(out);
        shell::run(&mut command)
    }
}
