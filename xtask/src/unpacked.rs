//! Programs of Debian packages that would start a service when installed: found, or unpacked into `target/tools/bin`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::apt;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

/// A program, and where a package has it.
pub struct Program {
    name: &'static str,
    package: &'static str,
    path: &'static str,
}

/// What the live tests hold our page of Prometheus' text against.
pub const PROMTOOL: Program = Program { name: "promtool", package: "prometheus", path: "usr/bin/promtool" };
/// What the live tests put in front of a gunicorn. Its libraries are those of every Debian with OpenSSL.
pub const NGINX: Program = Program { name: "nginx", package: "nginx", path: "usr/sbin/nginx" };

impl Program {
    /// Finds it, or puts it into `target/tools/bin`.
    ///
    /// # Errors
    /// It is not here, and Debian's archive does not give it.
    pub fn ensure(&self) -> Outcome {
        let Self { name, package, path } = self;
        let kept = workspace::tools().join("bin").join(name);
        if shell::found(name).is_some() || kept.is_file() {
            return Ok(());
        }
        if !apt::present() {
            return Err(Failure::new(format!(
                "{name} is missing, and this machine has no apt-get: put the one of another distribution on the path"
            )));
        }
        shell::say(format!("fetching {name} into target/tools"));
        let scratch = workspace::tools().join(format!(".{name}"));
        if scratch.exists() {
            fs::remove_dir_all(&scratch).doing(format!("empty {}", scratch.display()))?;
        }
        let folder = workspace::tools().join("bin");
        for folder in [&scratch, &folder] {
            fs::create_dir_all(folder).doing(format!("create {}", folder.display()))?;
        }
        if download(package, &scratch).is_err() {
            apt::update()?;
            download(package, &scratch)?;
        }
        let archive = archive(package, &scratch)?;
        shell::output(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&scratch))?;
        let program = scratch.join(path);
        fs::rename(&program, &kept).doing(format!("keep {}", program.display()))?;
        fs::remove_dir_all(&scratch).doing(format!("empty {}", scratch.display()))
    }
}

fn download(package: &str, folder: &Path) -> Outcome {
    let mut command = Command::new("apt-get");
    // The unprivileged user of apt may not write below the clone.
    command.args(["-o", "APT::Sandbox::User=root", "download", "--quiet", package]).current_dir(folder);
    shell::output(&mut command).map(drop)
}

fn archive(package: &str, folder: &Path) -> Outcome<PathBuf> {
    let files = fs::read_dir(folder).doing(format!("list {}", folder.display()))?;
    let mut paths = files.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| path.extension().is_some_and(|end| end == "deb")).ok_or_else(|| {
        Failure::new(format!("apt-get download {package} left no package in {}", folder.display()))
    })
}
