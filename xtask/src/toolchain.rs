//! The probes' compiler and linker: which ones are pinned, which ones are here, how to get them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::apt;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

/// What observer-ebpf/rust-toolchain.toml pins.
pub struct Pins {
    nightly: String,
    link: String,
    rust: String,
    linker: String,
    llvm: String,
}

impl Pins {
    /// Reads the pins.
    ///
    /// # Errors
    /// The file is missing, or lacks a value.
    pub fn read() -> Outcome<Self> {
        let path = workspace::root().join("observer-ebpf/rust-toolchain.toml");
        let text = fs::read_to_string(&path).doing(format!("read {}", path.display()))?;
        Self::parse(&text)
            .ok_or_else(|| Failure::new(format!("{} lacks a pin; restore it from git", path.display())))
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            nightly: value(text, "toolchain", "channel")?,
            link: value(text, "debian", "link")?,
            rust: value(text, "debian", "rust")?,
            linker: value(text, "linker", "version")?,
            llvm: value(text, "linker", "llvm")?,
        })
    }

    /// Debian's packages for the probes.
    fn packages(&self) -> Vec<String> {
        let llvm = &self.llvm;
        let named = ["rustc-web", "rust-web-src", "cargo-web", "libzstd-dev", "zlib1g-dev", "g++"];
        let versioned = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
        named.into_iter().map(str::to_owned).chain(versioned).collect()
    }
}

/// A quoted value of one table of a TOML file that has nothing but such values.
fn value(text: &str, table: &str, key: &str) -> Option<String> {
    let header = format!("[{table}]");
    let lines = text.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    let line = lines.take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (name, rest) = line.split_once('=')?;
        (name.trim() == key).then_some(rest)
    })?;
    line.split('"').nth(1).map(str::to_owned)
}

/// Finds or installs the compiler and the linker of the probes.
///
/// # Errors
/// Neither of the two ways works here; the sentence says why for both.
pub fn ensure() -> Outcome {
    let pins = Pins::read()?;
    if shell::found("rustup").is_none() {
        return Err(Failure::new("rustup is missing: install it from rustup.rs with the stable toolchain"));
    }
    let toolchain = match present(&pins) {
        Some(toolchain) => toolchain,
        None => install(&pins)?,
    };
    ensure_linker(&pins, &toolchain)
}

/// The name of a toolchain that is complete and of the pinned version.
fn present(pins: &Pins) -> Option<String> {
    [&pins.link, &pins.nightly].into_iter().find(|name| complete(pins, name)).cloned()
}

fn complete(pins: &Pins, name: &str) -> bool {
    let Ok(sysroot) = sysroot(name) else { return false };
    let version = shell::output(Command::new("rustup").args(["run", name, "rustc", "--version"]));
    let right = *name == *pins.nightly
        || version.is_ok_and(|text| text.starts_with(&format!("rustc {}.", pins.rust)));
    right && sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

fn sysroot(toolchain: &str) -> Outcome<PathBuf> {
    let printed =
        shell::output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]))?;
    Ok(PathBuf::from(printed.trim()))
}

/// Debian's packages first, where they have the pinned version: they are what is tested most, and signed by the archive.
/// Rustup where they do not, or cannot be installed.
fn install(pins: &Pins) -> Outcome<String> {
    let debian = match from_debian(pins) {
        Ok(name) => return Ok(name),
        Err(failure) => failure,
    };
    shell::say(format!("the probes' compiler does not come from Debian: {debian}"));
    from_rustup(pins).map_err(|rustup| {
        Failure::new(format!(
            "no compiler for the probes. From Debian: {debian}. From rustup: {rustup}. \
             SW_OBSERVE_EBPF=stub builds everything but the probes"
        ))
    })
}

fn from_debian(pins: &Pins) -> Outcome<String> {
    if !apt::present() {
        return Err(Failure::new("this machine has no apt-get"));
    }
    let wanted = pins.packages();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let missing = apt::missing(&wanted);
    if !missing.is_empty() {
        apt::update()?;
        let offered = apt::offered("rustc-web").unwrap_or_else(|| "none".to_owned());
        if !offered.starts_with(&format!("{}.", pins.rust)) {
            let rust = &pins.rust;
            return Err(Failure::new(format!("rustc-web {rust} is pinned, the archive offers {offered}")));
        }
        apt::install(&missing)?;
    }
    shell::say(format!("rustup toolchain link {} /usr", pins.link));
    shell::output(Command::new("rustup").args(["toolchain", "link", &pins.link, "/usr"]))?;
    if complete(pins, &pins.link) {
        return Ok(pins.link.clone());
    }
    Err(Failure::new(format!("/usr/bin/rustc is not the pinned {} with its library source", pins.rust)))
}

fn from_rustup(pins: &Pins) -> Outcome<String> {
    let name = &pins.nightly;
    shell::say(format!("rustup toolchain install {name} with rust-src"));
    let mut command = Command::new("timeout");
    command.args(["600", "rustup", "toolchain", "install", name, "--profile", "minimal"]);
    shell::output(command.args(["--component", "rust-src", "--no-self-update"]))?;
    Ok(name.clone())
}

fn ensure_linker(pins: &Pins, toolchain: &str) -> Outcome {
    let linker = workspace::tools().join("bin/bpf-linker");
    let version = shell::output(Command::new(&linker).arg("--version")).unwrap_or_default();
    if version.trim() == format!("bpf-linker {}", pins.linker) {
        return Ok(());
    }
    shell::say(format!("building bpf-linker {} into target/tools (about a minute)", pins.linker));
    let prefix = llvm(pins, toolchain)?;
    let mut command =
        shell::cargo(["install", "bpf-linker", "--locked", "--quiet", "--version", &pins.linker]);
    command.args(["--force", "--no-default-features", "--features", &format!("llvm-{}", pins.llvm)]);
    command.arg("--root").arg(workspace::tools());
    // Without it, the linker takes the LLVM of whichever llvm-config comes first in PATH.
    shell::run(command.env("LLVM_PREFIX", &prefix))
}

/// A folder whose `lib` has the LLVM of the probes' compiler. Debian has one; rustup ships the library alone, under
/// a name that the linker does not look for.
fn llvm(pins: &Pins, toolchain: &str) -> Outcome<PathBuf> {
    if *toolchain == pins.link {
        return Ok(PathBuf::from(format!("/usr/lib/llvm-{}", pins.llvm)));
    }
    let prefix = workspace::tools().join("llvm");
    let folder = prefix.join("lib");
    fs::create_dir_all(&folder).doing(format!("create {}", folder.display()))?;
    let library = sysroot(toolchain)?.join("lib");
    let prefix_of_name = format!("libLLVM.so.{}.", pins.llvm);
    let entries = fs::read_dir(&library).doing(format!("read {}", library.display()))?;
    let name = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with(&prefix_of_name))
        .ok_or_else(|| {
            Failure::new(format!("{toolchain} has no {prefix_of_name}*: it is not what is pinned"))
        })?;
    replace_link(&library.join(&name), &folder.join(&name))?;
    replace_link(&library.join(&name), &folder.join("libLLVM.so"))?;
    Ok(prefix)
}

fn replace_link(target: &Path, link: &Path) -> Outcome {
    if link.symlink_metadata().is_ok() {
        fs::remove_file(link).doing(format!("replace {}", link.display()))?;
    }
    symlink(target, link).doing(format!("create {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::Pins;
    use super::value;

    #[test]
    fn the_committed_pins_are_complete() {
        let pins = Pins::read().expect("complete");
        assert!(pins.nightly.starts_with("nightly-"));
        assert!(pins.packages().contains(&format!("llvm-{}-dev", pins.llvm)));
    }

    #[test]
    fn a_value_is_found_in_its_own_table_only() {
        let text = "[a]\nx = \"1\" # no\n[b]\ny = \"2\"\n";
        assert_eq!(value(text, "a", "x").as_deref(), Some("1"));
        assert_eq!(value(text, "a", "y"), None);
        assert_eq!(value(text, "b", "y").as_deref(), Some("2"));
    }
}
