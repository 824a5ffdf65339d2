//! Debian's package manager: what it has, what it offers, installing.

use std::process::Command;

use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;

/// Whether this machine has Debian's package manager.
pub fn present() -> bool {
    shell::found("apt-get").is_some()
}

/// Those of the packages that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"]).args(packages);
    // It fails when one package is unknown, and prints the others all the same.
    let installed = query.output().map(|output| output.stdout).unwrap_or_default();
    let installed = String::from_utf8_lossy(&installed).into_owned();
    packages
        .iter()
        .copied()
        .filter(|name| !installed.lines().any(|line| line == format!("installed {name}")))
        .collect()
}

/// The version that an installation would give, if the package is known.
pub fn offered(package: &str) -> Option<String> {
    let policy = shell::output(Command::new("apt-cache").args(["policy", package])).ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Refreshes what the archive offers. A part of the archive that does not answer is not the end: what is known may do.
pub fn update() -> Outcome {
    shell::say("apt-get update");
    let mut command = shell::as_root("apt-get")?;
    if let Err(failure) = shell::run(command.args(["update", "--quiet", "--quiet"])) {
        shell::say(format!("{failure}; going on with the package lists that are here"));
    }
    Ok(())
}

/// Installs packages by name, through sudo when this is not root.
pub fn install(packages: &[&str]) -> Outcome {
    shell::say(format!("apt-get install {}", packages.join(" ")));
    let mut command = shell::as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet", "--quiet"]);
    shell::run(command.arg("--no-install-recommends").args(packages)).map_err(|failure| {
        Failure::new(format!(
            "cannot install {}: {failure}; install them by hand and call this again",
            packages.join(" ")
        ))
    })
}
