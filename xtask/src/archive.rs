//! Packages of Debian's other suites, fetched and unpacked without touching the machine's own apt.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;

/// How long the package lists are taken for new.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);

/// What apt is told of each archive.
const KEYRING: &str = "[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";

/// A suite of Debian's.
#[derive(Clone, Copy)]
pub struct Suite {
    /// Its name, `trixie-backports` for one.
    pub name: &'static str,
    /// Whether it is a security suite, which has an archive of its own.
    pub is_security: bool,
}

/// An apt that knows some suites and nothing of this machine.
pub struct Archive {
    options: Vec<String>,
}

impl Archive {
    /// Keeps its lists in a folder; fetches them when they are old.
    pub fn open(folder: &Path, suites: &[Suite]) -> Outcome<Self> {
        let names: Vec<_> = suites.iter().map(|suite| suite.name).collect();
        Self::over(folder, &sources(suites)?, &names.join(", "))
    }

    /// The same for the sources of this machine's own Debian.
    pub fn of_sources(folder: &Path) -> Outcome<Self> {
        Self::over(
            folder,
            &format!("deb-src {KEYRING} {} {} main\n", base(&codename()?)?, codename()?),
            "sources",
        )
    }

    fn over(folder: &Path, text: &str, names: &str) -> Outcome<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).doing(format!("create {}", path.display()))?;
        }
        let list = folder.join("sources.list");
        let unchanged = fs::read_to_string(&list).is_ok_and(|old| old == text);
        let place = folder.display();
        let options = [
            format!("Dir::Etc::SourceList={}", list.display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={place}/lists"),
            "Dir::State::Status=/dev/null".to_owned(),
            format!("Dir::Cache={place}/cache"),
            "Acquire::Languages=none".to_owned(),
            // Debian's older suites are no longer signed anew.
            "Acquire::Check-Valid-Until=false".to_owned(),
            // The unprivileged user of apt may not write below the clone.
            "APT::Sandbox::User=root".to_owned(),
        ];
        let archive = Self { options: options.to_vec() };
        let stamp = folder.join("updated");
        let fresh = unchanged
            && fs::metadata(&stamp)
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < LISTS_AGE));
        if !fresh {
            shell::say(format!("fetching the lists of Debian's {names}"));
            fs::write(&list, text).doing(format!("write {}", list.display()))?;
            shell::output(archive.apt("apt-get").args(["update", "--quiet", "--error-on=any"]))?;
            fs::write(&stamp, "").doing(format!("write {}", stamp.display()))?;
        }
        Ok(archive)
    }

    /// Downloads a source package as its authors left it, and unpacks it into a folder without the one that it is in.
    pub fn unpack_source(&self, package: &str, folder: &Path) -> Outcome {
        shell::say(format!("fetching the source of {package}"));
        let files = folder.join(".source");
        fs::create_dir_all(&files).doing(format!("create {}", files.display()))?;
        let mut get = self.apt("apt-get");
        shell::output(get.args(["source", "--download-only", "--quiet", package]).current_dir(&files))?;
        for entry in fs::read_dir(&files).doing(format!("list {}", files.display()))?.flatten() {
            if entry.file_name().to_string_lossy().contains(".orig.tar.") {
                let mut tar = Command::new("tar");
                tar.arg("-xf").arg(entry.path()).arg("--strip-components=1").arg("-C").arg(folder);
                shell::output(&mut tar)?;
            }
        }
        fs::remove_dir_all(&files).doing(format!("empty {}", files.display()))
    }

    /// Names of packages that begin so.
    pub fn names(&self, prefix: &str) -> Outcome<Vec<String>> {
        let names = shell::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them into a folder, which is emptied first.
    pub fn unpack(&self, packages: &[&str], folder: &Path) -> Outcome {
        shell::say(format!("fetching {}", packages.join(" ")));
        let files = folder.join(".packages");
        if folder.exists() {
            fs::remove_dir_all(folder).doing(format!("empty {}", folder.display()))?;
        }
        fs::create_dir_all(&files).doing(format!("create {}", files.display()))?;
        shell::output(self.apt("apt-get").args(["download", "--quiet"]).args(packages).current_dir(&files))?;
        for entry in fs::read_dir(&files).doing(format!("list {}", files.display()))?.flatten() {
            shell::output(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(folder))?;
        }
        fs::remove_dir_all(&files).doing(format!("empty {}", files.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// The sources list, at the mirror that this machine itself uses.
fn sources(suites: &[Suite]) -> Outcome<String> {
    let codename = codename()?;
    let (main, security) = (base(&codename)?, base(&format!("{codename}-security"))?);
    let line = |Suite { name, is_security }: &Suite| {
        let base = if *is_security { &security } else { &main };
        format!("deb {KEYRING} {base} {name} main\n")
    };
    Ok(suites.iter().map(line).collect())
}

/// The name of this machine's Debian.
fn codename() -> Outcome<String> {
    let release = fs::read_to_string("/etc/os-release").doing("read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.filter(|_| release.lines().any(|line| line == "ID=debian"));
    let missing = || Failure::new("other suites are fetched with Debian's apt, and this is not Debian");
    codename.map(str::to_owned).ok_or_else(missing)
}

/// Where this machine's apt has a suite from.
fn base(suite: &str) -> Outcome<String> {
    let filters = ["Created-By: Packages".to_owned(), format!("Codename: {suite}")];
    let mut command = Command::new("apt-get");
    let listed = shell::output(command.args(["indextargets", "--format", "$(REPO_URI)"]).args(filters))?;
    listed.lines().next().map(str::to_owned).ok_or_else(|| {
        Failure::new(format!("apt knows no archive of {suite}: add it to the sources and run apt-get update"))
    })
}
