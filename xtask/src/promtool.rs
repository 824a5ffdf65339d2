//! Prometheus' `promtool`, which the live tests hold our page against: found, or unpacked from Debian's package.
//!
//! Unpacked and not installed: the package would start a Prometheus on this machine.

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

const PACKAGE: &str = "prometheus";

/// Finds it, or puts it into `target/tools/bin`.
///
/// # Errors
/// It is not here, and Debian's archive does not give it.
pub fn ensure() -> Outcome {
    let kept = workspace::tools().join("bin/promtool");
    if shell::found("promtool").is_some() || kept.is_file() {
        return Ok(());
    }
    if !apt::present() {
        return Err(Failure::new(
            "promtool is missing, and this machine has no apt-get: put the one of a Prometheus release on the path",
        ));
    }
    shell::say("fetching promtool into target/tools");
    let scratch = workspace::tools().join(".promtool");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).doing(format!("empty {}", scratch.display()))?;
    }
    let folder = workspace::tools().join("bin");
    for folder in [&scratch, &folder] {
        fs::create_dir_all(folder).doing(format!("create {}", folder.display()))?;
    }
    if download(&scratch).is_err() {
        apt::update()?;
        download(&scratch)?;
    }
    let package = package(&scratch)?;
    shell::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&scratch))?;
    let tool = scratch.join("usr/bin/promtool");
    fs::rename(&tool, &kept).doing(format!("keep {}", tool.display()))?;
    fs::remove_dir_all(&scratch).doing(format!("empty {}", scratch.display()))
}

fn download(folder: &Path) -> Outcome {
    let mut command = Command::new("apt-get");
    // The unprivileged user of apt may not write below the clone.
    command.args(["-o", "APT::Sandbox::User=root", "download", "--quiet", PACKAGE]).current_dir(folder);
    shell::output(&mut command).map(drop)
}

fn package(folder: &Path) -> Outcome<PathBuf> {
    let files = fs::read_dir(folder).doing(format!("list {}", folder.display()))?;
    let mut paths = files.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| path.extension().is_some_and(|end| end == "deb")).ok_or_else(|| {
        Failure::new(format!("apt-get download {PACKAGE} left no package in {}", folder.display()))
    })
}
