//! Pythons that are newer or older than this machine's Debian: fetched from its archive, to test against.

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

/// What is fetched.
const RELEASES: [Release; 3] = [
    Release { version: "3.14", suite: "sid", own: &NEW, pip: "sid" },
    Release { version: "3.15", suite: "sid", own: &NEW, pip: "sid" },
    // The last Debian with OpenSSL 1.1.1. Its pip is in pieces, so the next one's is taken.
    Release { version: "3.9", suite: "bullseye", own: &OLD, pip: "bookworm" },
];
/// What they need of their own Debian, its C library included.
const LIBRARIES: [&str; 8] =
    ["libbz2-1.0", "libc6", "libexpat1", "liblzma5", "libsqlite3-0", "libuuid1", "python3-pip-whl", "zlib1g"];
const NEW: [&str; 3] = ["libffi8", "libssl3t64", "libzstd1"];
const OLD: [&str; 7] =
    ["libcrypt1", "libffi7", "libgcc-s1", "libmpdec3", "libssl1.1", "libstdc++6", "python3-distutils"];
/// Where a Debian keeps libraries: the second in those before the two were one.
const FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const LOADER: &str = "ld-linux-x86-64.so.2";

/// A Python of a Debian.
struct Release {
    version: &'static str,
    suite: &'static str,
    /// Packages besides those that all need.
    own: &'static [&'static str],
    /// Whose pip it gets.
    pip: &'static str,
}

/// Fetches those that are not there yet. One that cannot be had is no reason to test nothing: its cases are left out and
/// said to be.
pub fn ensure() {
    let folder = workspace::cache().join("pythons");
    let missing = RELEASES.iter().filter(|release| !release.interpreter(&folder).is_file());
    let missing: Vec<&Release> = missing.collect();
    if missing.is_empty() {
        return;
    }
    let mut suites: Vec<&str> = missing.iter().flat_map(|release| [release.suite, release.pip]).collect();
    suites.sort_unstable();
    suites.dedup();
    let suites: Vec<Suite> = suites.into_iter().map(|name| Suite { name, is_security: false }).collect();
    let archive = Archive::open(&folder.join("apt"), &suites);
    for release in missing {
        let made = archive.as_ref().map_err(|failure| Failure::new(failure.to_string()));
        if let Err(failure) = made.and_then(|archive| release.make(archive, &folder)) {
            shell::say(format!("no Python {} to test against: {failure}", release.version));
        }
    }
}

impl Release {
    fn interpreter(&self, folder: &Path) -> PathBuf {
        folder.join(self.version).join(format!("usr/bin/python{}", self.version))
    }

    /// Unpacks it beside its libraries and makes it use them wherever it stands.
    fn make(&self, archive: &Archive, folder: &Path) -> Outcome {
        let Self { version, suite, own, pip } = self;
        let names = [
            format!("libpython{version}-minimal"),
            format!("libpython{version}-stdlib"),
            format!("python{version}-minimal"),
            format!("python{version}-venv"),
        ];
        let all = names.iter().map(String::as_str).chain(LIBRARIES).chain(own.iter().copied());
        let place = |name: &str| if name.contains("-pip-") { *pip } else { *suite };
        let packages: Vec<String> = all.map(|name| format!("{name}/{}", place(name))).collect();
        let root = folder.join(format!("{version}.new"));
        archive.unpack(&packages.iter().map(String::as_str).collect::<Vec<_>>(), &root)?;
        let done = folder.join(version);
        let folders = FOLDERS.map(|folder| done.join(folder));
        let own = FOLDERS.iter().find(|folder| root.join(folder).join(LOADER).exists());
        let own = own.ok_or_else(|| Failure::new("its C library is nowhere"))?;
        let program = root.join(format!("usr/bin/python{version}"));
        let mut patch = Command::new("patchelf");
        patch.arg("--set-interpreter").arg(done.join(own).join(LOADER)).arg("--force-rpath");
        patch.arg("--set-rpath").arg(folders.map(|folder| folder.display().to_string()).join(":"));
        shell::output(patch.arg(program))?;
        fs::rename(&root, &done).map_err(|error| Failure::new(format!("keep {}: {error}", done.display())))
    }
}
