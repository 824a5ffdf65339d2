//! What an OAP is started from: its jars, and a configuration with the files of `deploy/oap` in it.
//!
//! `SW_OBSERVE_OAP_HOME` names the folder of jars and logs (`target/oap`), `SW_OBSERVE_OAP_CONFIG` another folder of
//! configuration (`tests/oap/config`).
#![expect(clippy::expect_used, reason = "this is how a test fails")]

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;

use tempfile::TempDir;

use crate::dashboard;

/// A copy of the configuration with the files of `deploy/oap` where an operator would put them.
pub fn configured() -> TempDir {
    let from = env::var_os("SW_OBSERVE_OAP_CONFIG").map_or_else(|| folder().join("config"), PathBuf::from);
    assert!(from.join("application.yml").is_file(), "no application.yml in {}", from.display());
    let config = tempfile::tempdir().expect("a folder for the configuration");
    copy(&from, config.path());
    for (file, folder) in [
        ("gunicorn.yaml", "meter-analyzer-config"),
        ("gunicorn-instance.json", "ui-initialized-templates/custom"),
    ] {
        let folder = config.path().join(folder);
        fs::create_dir_all(&folder).expect("a folder of the configuration");
        fs::copy(dashboard::path(file), folder.join(file)).expect("a file of deploy/oap");
    }
    config
}

/// Files may be read-only where they come from; the copies are new ones.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder of the configuration").flatten() {
        let (source, copied) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            fs::create_dir_all(&copied).expect("a folder of the configuration");
            copy(&source, &copied);
        } else {
            let bytes = fs::read(&source).expect("a file of the configuration");
            fs::write(copied, bytes).expect("a copy of a file of the configuration");
        }
    }
}

/// Where our files for the server are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("oap")
}

/// The folder of jars and logs.
pub fn home() -> PathBuf {
    let home = env::var_os("SW_OBSERVE_OAP_HOME")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/oap"), PathBuf::from);
    fs::create_dir_all(&home).expect("the folder of the OAP can be made");
    home.canonicalize().expect("the folder of the OAP is there")
}

/// Java as a command.
pub fn java() -> PathBuf {
    env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"))
}

/// The folder of jars; fetches them if it is not there or was made from another `pom.xml`.
pub fn jars(home: &Path) -> PathBuf {
    /// One thread fetches, the others wait.
    static FETCH: Mutex<()> = Mutex::new(());
    let _turn = FETCH.lock().unwrap_or_else(PoisonError::into_inner);
    let jars = home.join("jars");
    let pom = fs::read(folder().join("pom.xml")).expect("tests/oap/pom.xml is there");
    if fs::read(jars.join("pom.xml")).is_ok_and(|of_jars| of_jars == pom) {
        return jars;
    }
    let part = home.join(format!("jars.{}", process::id()));
    let status = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"])
        .arg(folder().join("pom.xml"))
        .arg(format!("-DoutputDirectory={}", part.display()))
        .status()
        .expect("mvn can be started: install Maven, or name a folder of jars in SW_OBSERVE_OAP_HOME");
    assert!(status.success(), "mvn could not fetch the jars of the OAP");
    fs::write(part.join("pom.xml"), pom).expect("the folder of jars can be written");
    // Another process may have been quicker; its folder is as good as ours. A stale one goes.
    let _gone = fs::remove_dir_all(&jars);
    if fs::rename(&part, &jars).is_err() {
        let _gone = fs::remove_dir_all(&part);
    }
    jars
}
