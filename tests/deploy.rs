//! What `deploy/` hands to operators works, as far as one machine can show.
#![expect(clippy::expect_used, clippy::panic, reason = "helper functions of a test fail the test")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder above this package").to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The program that cargo built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let program = test.parent().and_then(Path::parent).expect("target folder").join("sw-observe");
    assert!(program.is_file(), "{} is missing: run cargo build -p observer", program.display());
    program
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {text}", output.status);
    text
}

/// The value of a key that stands once in the unit.
fn setting(unit: &str, key: &str) -> String {
    let start = format!("{key}=");
    unit.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {key}")).to_owned()
}

#[test]
fn the_units_command_line_is_valid() {
    let line = setting(&read("deploy/systemd/sw-observe.service"), "ExecStart");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/sw-observe"));
    succeeds(Command::new(program()).args(words).arg("--dry-run"));
}

#[test]
fn a_wrong_command_line_is_not() {
    let output = run(Command::new(program()).args(["run", "--no-such-option", "--dry-run"]));
    assert_eq!(output.status.code(), Some(64));
}

/// A machine without systemd has no verifier; the command line is checked all the same.
#[test]
fn systemd_accepts_the_unit() {
    if run(Command::new("sh").args(["-c", "command -v systemd-analyze"])).status.success() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let unit = read("deploy/systemd/sw-observe.service");
        // The verifier wants the program to be there.
        let unit = unit.replace("/usr/local/bin/sw-observe", &program().display().to_string());
        let path = folder.path().join("sw-observe.service");
        fs::write(&path, unit).expect("write the unit");
        let said = succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        assert!(!said.contains("sw-observe.service"), "{said}");
    }
}

#[test]
fn every_capability_is_explained() {
    let unit = setting(&read("deploy/systemd/sw-observe.service"), "CapabilityBoundingSet");
    let (page, manifest) = (read("deploy/systemd/README.md"), read("deploy/kubernetes/daemonset.yaml"));
    let kubernetes = read("deploy/kubernetes/README.md");
    for capability in unit.split_whitespace() {
        let short = capability.strip_prefix("CAP_").expect("a capability");
        assert!(page.contains(&format!("| `{capability}` |")), "{capability} is not explained");
        assert!(manifest.contains(&format!("- {short} # ")), "{short} is not explained in the manifest");
        assert!(kubernetes.contains(&format!("`{short}`")), "{short} is not on the page");
    }
}

#[test]
fn every_host_path_is_explained() {
    let page = read("deploy/kubernetes/README.md");
    let manifest = read("deploy/kubernetes/daemonset.yaml");
    let paths: Vec<&str> = manifest.lines().filter_map(|line| line.trim().strip_prefix("path: ")).collect();
    assert!(!paths.is_empty());
    for path in paths {
        assert!(page.contains(&format!("`{path}`")), "{path} is not on the page");
    }
}

#[test]
fn image_unit_and_manifest_start_the_same_command() {
    let command = "run --target gunicorn";
    let words = "[\"run\", \"--target\", \"gunicorn\"]";
    assert!(setting(&read("deploy/systemd/sw-observe.service"), "ExecStart").ends_with(command));
    assert!(read("deploy/Containerfile").contains(&format!("CMD {words}")));
    assert!(read("deploy/kubernetes/daemonset.yaml").contains(&format!("args: {words}")));
}

/// Against the schemas of the API that the Python package carries, every field known.
#[test]
fn the_manifest_fits_the_api() {
    let python = root().join("target/deploy/python");
    let validate = python.join("bin/kubernetes-validate");
    if !validate.is_file() {
        succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&python));
        succeeds(Command::new(python.join("bin/pip")).args(["install", "--quiet", "kubernetes-validate"]));
    }
    let manifest = root().join("deploy/kubernetes/daemonset.yaml");
    succeeds(Command::new(&validate).arg("--strict").arg(&manifest));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrong = folder.path().join("wrong.yaml");
    fs::write(&wrong, read("deploy/kubernetes/daemonset.yaml").replace("hostPID:", "hostPid:"))
        .expect("write");
    assert!(
        !run(Command::new(&validate).arg("--strict").arg(&wrong)).status.success(),
        "a wrong field passes"
    );
}

/// With the unit's capabilities the same is possible as with all of them.
#[cfg(feature = "privileged")]
#[test]
fn the_units_capabilities_are_enough() {
    let unit = setting(&read("deploy/systemd/sw-observe.service"), "CapabilityBoundingSet");
    let kept = unit.to_lowercase().replace("cap_", "+").replace(' ', ",");
    let full = run(Command::new(program()).arg("check"));
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set=-all,{kept}")).arg("--inh-caps=-all").arg(program()).arg("check");
    let limited = run(&mut command);
    assert_eq!(limited.status.code(), full.status.code(), "{}", String::from_utf8_lossy(&limited.stdout));
}

/// A root folder with nothing but what the image holds.
#[test]
fn the_program_runs_with_only_what_the_image_holds() {
    let image = tempfile::tempdir().expect("a temporary folder");
    let program = program();
    copy(&program, &image.path().join("usr/bin/sw-observe"));
    let listed = succeeds(Command::new("ldd").arg(&program));
    let libraries: Vec<&str> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
    for library in &libraries {
        let name = library.rsplit('/').next().expect("a name");
        let known = ["libc.", "libm.", "libgcc_s.", "ld-linux"];
        assert!(
            known.iter().any(|start| name.starts_with(start)),
            "{name} is not on the list in deploy/container.md"
        );
        copy(Path::new(library), &image.path().join(library.trim_start_matches('/')));
    }
    let inside = |arguments: &[&str]| {
        // A user namespace of its own: chroot without being root outside.
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--root"]).arg(image.path()).arg("/usr/bin/sw-observe");
        run(command.args(arguments))
    };
    let version = inside(&["--version"]);
    assert!(version.status.success(), "{version:?}");
    let said = String::from_utf8_lossy(&version.stdout);
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");

    // No /sys and no /proc in there: it says so, and neither panics nor hangs.
    let check = inside(&["check"]);
    assert!(matches!(check.status.code(), Some(69 | 77)), "{check:?}");
    assert!(!String::from_utf8_lossy(&check.stderr).contains("panicked"), "{check:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a parent")).expect("a folder of the image");
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}
