//! Pythons that are newer than this machine's Debian: fetched from its archive, to test against.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::archive::Archive;
use crate::archive::Suite;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::workspace;

/// Versions that are fetched.
const VERSIONS: [&str; 2] = ["3.14", "3.15"];
/// Where Debian keeps them.
const SUITE: Suite = Suite { name: "sid", is_security: false };
/// What they need of their own Debian, its C library included.
const LIBRARIES: [&str; 10] = [
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libsqlite3-0",
    "libssl3t64",
    "libuuid1",
    "libzstd1",
    "zlib1g",
];

/// Fetches those that are not there yet. One that cannot be had is no reason to test nothing: its cases are left out and
/// said to be.
pub fn ensure() {
    let folder = workspace::cache().join("pythons");
    let missing: Vec<_> =
        VERSIONS.into_iter().filter(|version| !interpreter(&folder, version).is_file()).collect();
    if missing.is_empty() {
        return;
    }
    let archive = Archive::open(&folder.join("apt"), &[SUITE]);
    for version in missing {
        let made = archive.as_ref().map_err(|failure| Failure::new(failure.to_string()));
        if let Err(failure) = made.and_then(|archive| make(archive, &folder, version)) {
            shell::say(format!("no Python {version} to test against: {failure}"));
        }
    }
}

fn interpreter(folder: &Path, version: &str) -> PathBuf {
    folder.join(version).join(format!("usr/bin/python{version}"))
}

/// Unpacks it beside its libraries and makes it use them wherever it stands.
fn make(archive: &Archive, folder: &Path, version: &str) -> Outcome {
    let own = [
        format!("libpython{version}-minimal"),
        format!("libpython{version}-stdlib"),
        format!("python{version}-minimal"),
        format!("python{version}-venv"),
        "python3-pip-whl".to_owned(),
    ];
    let packages: Vec<&str> = own.iter().map(String::as_str).chain(LIBRARIES).collect();
    let root = folder.join(format!("{version}.new"));
    archive.unpack(&packages, &root)?;
    let done = folder.join(version);
    let libraries = done.join("usr/lib/x86_64-linux-gnu");
    let loader = libraries.join("ld-linux-x86-64.so.2");
    let program = root.join(format!("usr/bin/python{version}"));
    let mut patch = Command::new("patchelf");
    patch.arg("--set-interpreter").arg(loader).arg("--force-rpath").arg("--set-rpath").arg(libraries);
    shell::output(patch.arg(program))?;
    fs::rename(&root, &done).map_err(|error| Failure::new(format!("keep {}: {error}", done.display())))
}
