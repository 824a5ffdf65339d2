//! Compiles the probes, or puts what `SW_OBSERVE_EBPF` names in their place.
//!
//! Unset: build them. `stub`: embed nothing, for checks and documentation without the probes' compiler.
//! A path: embed that object.
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use object::build::elf::Builder;
use object::build::elf::SectionData;
use object::elf::SHT_STRTAB;

fn main() {
    println!("cargo::rerun-if-env-changed=SW_OBSERVE_EBPF");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    println!("cargo::rerun-if-changed=../target/tools/bin/bpf-linker");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("probes");
    let done = match env::var("SW_OBSERVE_EBPF").as_deref() {
        Ok("stub") => fs::write(&out, []).map_err(|error| error.to_string()),
        Ok(object) => {
            println!("cargo::rerun-if-changed={object}");
            fs::copy(object, &out).map(drop).map_err(|error| format!("SW_OBSERVE_EBPF={object}: {error}"))
        }
        Err(_) => build().and_then(|()| strip(&out)),
    };
    if let Err(why) = done {
        println!("cargo::error={why}");
    }
}

fn build() -> Result<(), String> {
    const REMEDY: &str = "run `cargo xtask setup`, or set SW_OBSERVE_EBPF=stub to build without the probes";
    let pin = fs::read_to_string("../observer-ebpf/rust-toolchain.toml").map_err(|e| e.to_string())?;
    // Debian's compiler, linked into rustup under this name, goes before the nightly of rustup.
    let compilers = [pinned(&pin, "link"), pinned(&pin, "channel")];
    let Some(compiler) = compilers.into_iter().flatten().find(|compiler| is_there(compiler)) else {
        return Err(format!("the probes' compiler is missing: {REMEDY}"));
    };
    let tools = fs::canonicalize("..").map_err(|e| e.to_string())?.join("target/tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).chain([tools.clone()]).any(|dir| is_linker(&dir));
    if !found {
        return Err(format!("bpf-linker is missing: {REMEDY}"));
    }
    let path =
        env::join_paths([tools].into_iter().chain(env::split_paths(&path))).map_err(|e| e.to_string())?;
    // SAFETY: a build script has one thread, so nothing reads the environment meanwhile.
    unsafe { env::set_var("PATH", path) };
    // The compiler may be a stable release: this lets it take `-Z build-std=core`.
    // SAFETY: as above.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    let log = env::var_os("CARGO_FEATURE_PROBE_LOG").is_some();
    let probes = aya_build::Package {
        name: "observer-ebpf",
        root_dir: "../observer-ebpf",
        features: if log { &["probes", "log"] } else { &["probes"] },
        ..Default::default()
    };
    aya_build::build_ebpf([probes], aya_build::Toolchain::Custom(&compiler))
        .map_err(|error| format!("the probes do not compile: {error:#}"))
}

/// Takes out what only debuggers read: seven parts of eight, which the observer would hold in memory. What the kernel reads,
/// BTF, is made from it and stays.
fn strip(path: &Path) -> Result<(), String> {
    let failed = |what: &dyn std::fmt::Display| format!("cannot strip {}: {what}", path.display());
    let bytes = fs::read(path).map_err(|error| failed(&error))?;
    let mut elf = Builder::read(bytes.as_slice()).map_err(|error| failed(&error))?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    elf.delete_orphans();
    let names = elf.sections.add(); // LLVM keeps them with those of symbols, which this library does not
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped).map_err(|error| failed(&error))?;
    fs::write(path, stripped).map_err(|error| failed(&error))
}

/// The value of `key = "…"`.
fn pinned(pin: &str, key: &str) -> Option<String> {
    let line = pin.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))?;
    line.split('"').nth(1).map(str::to_owned)
}

fn is_there(compiler: &str) -> bool {
    let asked = Command::new("rustup").args(["run", compiler, "rustc", "--version"]).output();
    asked.is_ok_and(|output| output.status.success())
}

fn is_linker(dir: &Path) -> bool {
    dir.join("bpf-linker").is_file()
}
