//! Pythons with an OpenSSL of their own, to test against: in the program, made from Debian's, and in the module `_ssl`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::archive::Archive;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

/// A CPython whose makers linked `_ssl` with OpenSSL 3.5 as a static library.
const ARTIFACT: &str = "org.bytedeco:cpython:3.14.3-1.5.13:jar:linux-x86_64";
/// Where it is in what that unpacks to.
const PLACE: &str = "org/bytedeco/cpython/linux-x86_64";
/// What Debian's interpreter is linked with.
const LIBRARIES: [&str; 6] = ["-lexpat", "-lz", "-lm", "-ldl", "-lutil", "-lpthread"];
/// The interpreter, with the module built in.
const PROGRAM: &str = "#include <Python.h>
PyMODINIT_FUNC PyInit__ssl(void);
int main(int argc, char **argv) {
    return PyImport_AppendInittab(\"_ssl\", PyInit__ssl) < 0 ? 1 : Py_BytesMain(argc, argv);
}
";
/// What Debian's headers say of what a test machine lacks.
const CONFIGURATION: &str = "#include <pyconfig.h>
#undef HAVE_BLUETOOTH_BLUETOOTH_H
";

/// Makes those that are not there yet.
///
/// # Errors
/// What they are made from cannot be had, or compilers say no.
pub fn ensure() -> Outcome {
    let pythons = workspace::cache().join("pythons");
    let done = |name: &str| pythons.join(name);
    if !done("inside").exists() {
        let scratch = done("inside.new");
        fresh(&scratch)?;
        program(&scratch)?;
        rename(&scratch, &done("inside"))?;
    }
    if !done("module").exists() {
        let scratch = done("module.new");
        fresh(&scratch)?;
        module(&scratch)?;
        rename(&scratch.join(PLACE), &done("module"))?;
        fs::remove_dir_all(&scratch).doing(format!("empty {}", scratch.display()))?;
    }
    Ok(())
}

/// `bin/python3` stands at one place, `bin/python3-pie` at any; both have OpenSSL's symbols, and export none.
fn program(folder: &Path) -> Outcome {
    let ask = "import sys, sysconfig as c; print('%d.%d' % sys.version_info[:2], c.get_path('include'), \
               c.get_config_var('LIBPL'), c.get_config_var('MULTIARCH'))";
    let said = shell::output(Command::new("/usr/bin/python3").args(["-c", ask]))?;
    let said: Vec<&str> = said.split_whitespace().collect();
    let [version, include, place, triplet] = *said else {
        return Err(Failure::new("/usr/bin/python3 does not say where its headers are"));
    };
    let source = folder.join("source");
    fs::create_dir_all(&source).doing(format!("create {}", source.display()))?;
    Archive::of_sources(&workspace::cache().join("pythons/apt-sources"))?
        .unpack_source(&format!("python{version}"), &source)?;
    shell::say("linking a Python with OpenSSL inside");
    let write = |name: &str, text: &str| fs::write(source.join(name), text).doing(format!("write {name}"));
    write("program.c", PROGRAM)?;
    write("configuration.h", CONFIGURATION)?;
    let compile = |name: &str, made: &str| {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-fPIC", "-DPy_BUILD_CORE_MODULE", "-include", "configuration.h", "-IModules"]);
        cc.arg(format!("-I{include}")).arg(format!("-I{include}/internal")).args(["-c", name, "-o", made]);
        shell::output(cc.current_dir(&source)).map(drop)
    };
    compile("Modules/_ssl.c", "_ssl.o")?;
    compile("program.c", "program.o")?;
    let bin = folder.join("bin");
    fs::create_dir(&bin).doing(format!("create {}", bin.display()))?;
    for (name, kind, library) in [("python3", "-no-pie", ""), ("python3-pie", "-pie", "-pic")] {
        let mut cc = Command::new("cc");
        cc.args([kind, "-rdynamic", "-Wl,--exclude-libs,libssl.a:libcrypto.a", "program.o", "_ssl.o", "-o"]);
        cc.arg(bin.join(name)).arg(format!("{place}/libpython{version}{library}.a"));
        cc.args(["ssl", "crypto"].map(|name| format!("/usr/lib/{triplet}/lib{name}.a"))).args(LIBRARIES);
        shell::output(cc.current_dir(&source))?;
    }
    fs::remove_dir_all(&source).doing(format!("empty {}", source.display()))
}

fn module(folder: &Path) -> Outcome {
    shell::say(format!("fetching {ARTIFACT}"));
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:unpack"]);
    maven.arg(format!("-Dartifact={ARTIFACT}")).arg(format!("-DoutputDirectory={}", folder.display()));
    shell::output(maven.current_dir(folder))?;
    let bin = folder.join(PLACE).join("bin");
    shell::output(Command::new("chmod").args(["-R", "+x"]).arg(bin)).map(drop)
}

fn fresh(folder: &Path) -> Outcome {
    if folder.exists() {
        fs::remove_dir_all(folder).doing(format!("empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).doing(format!("create {}", folder.display()))
}

fn rename(from: &Path, to: &Path) -> Outcome {
    fs::rename(from, to).doing(format!("keep {}", to.display()))
}
