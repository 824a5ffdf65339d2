//! The virtual environments that the cases name, and what this machine lacks for a case.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use harness::python;
use harness::python::Python;
use harness::stage::must;
use harness::stage::target;

use crate::play::find;
use crate::table;
use crate::table::Case;
use crate::table::Environment;

/// Where a case finds the machine's own programs.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// Turns on what is too large for every run: names of products, or `all`.
const PRODUCTS: &str = "SW_TEST_PRODUCTS";
/// Names the interpreter to test with.
const INTERPRETER: &str = "SW_TEST_PYTHON";
/// Environments that are made at the same time.
const AT_ONCE: usize = 4;

/// Every environment that was made, by name.
#[derive(Debug, Default)]
pub struct Environments {
    made: BTreeMap<String, Python>,
}

impl Environments {
    /// Makes those that these cases need.
    pub fn make(&mut self, cases: &[Case]) {
        let names: BTreeSet<&String> = cases.iter().map(|case| &case.python).collect();
        let wanted: Vec<(String, Environment)> =
            table::environments().into_iter().filter(|(name, _)| names.contains(name)).collect();
        for some in wanted.chunks(AT_ONCE) {
            let made: Vec<_> = thread::scope(|scope| {
                let all: Vec<_> =
                    some.iter().map(|(name, wanted)| scope.spawn(move || make(name, wanted))).collect();
                all.into_iter().filter_map(|one| one.join().ok()).collect()
            });
            self.made.extend(some.iter().map(|(name, _)| name.clone()).zip(made));
        }
        for (name, python) in &self.made {
            eprintln!("{name}: {}", says(&python.script("python")));
        }
    }

    /// The one with this name.
    pub fn get(&self, name: &str) -> &Python {
        must(self.made.get(name).ok_or("its making failed"), format_args!("use the environment {name}"))
    }

    /// Why a case cannot run here.
    pub fn lacks(&self, case: &Case) -> Option<String> {
        if let Some(reason) = &case.cannot {
            return Some(reason.clone());
        }
        if let Some(test) = &case.r#in {
            return Some(format!("in {test}"));
        }
        if let Some(product) = &case.large {
            let asked = env::var(PRODUCTS).unwrap_or_default();
            if !asked.split(',').any(|word| word == "all" || word == product) {
                return Some(format!("large: {PRODUCTS}={product} runs it"));
            }
        }
        if let Some(program) = case.needs.iter().find(|program| find(program, PATH).components().count() == 1)
        {
            panic!("{} needs {program}: cargo xtask setup --live installs it", case.name);
        }
        let environment = table::environments().remove(&case.python);
        let environment =
            must(environment.ok_or("it is not in environments.toml"), format_args!("use {}", case.python));
        if interpreter(&environment).is_none() {
            return Some(format!("there is no Python {}", environment.version.unwrap_or_default()));
        }
        let user = case.user?;
        let parts = [package_dir(), target()];
        let read = |dir: &PathBuf| {
            let user = user.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "ls"]).arg(dir);
            command.output().is_ok_and(|output| output.status.success())
        };
        let closed = parts.iter().find(|dir| !read(dir))?;
        Some(format!("user {user} cannot read {}", closed.display()))
    }
}

fn package_dir() -> PathBuf {
    harness::stage::package().to_path_buf()
}

fn make(name: &str, wanted: &Environment) -> Python {
    let list = target().join(format!("corpus-{name}.txt"));
    must(fs::write(&list, format!("# {name}\n{}\n", wanted.packages.join("\n"))), "write a list of packages");
    let interpreter =
        must(interpreter(wanted).ok_or("it is not there"), format_args!("find the Python of {name}"));
    Python::with(&interpreter, &list)
}

/// The interpreter of an environment, if this machine has it.
fn interpreter(wanted: &Environment) -> Option<PathBuf> {
    let Some(version) = &wanted.version else {
        let named = env::var_os(INTERPRETER).map(PathBuf::from);
        return named.or_else(|| {
            let all = ["/usr/bin/python3", "python3"].map(PathBuf::from);
            all.into_iter().find(|python| python::works(python))
        });
    };
    python::installed(version).into_iter().next()
}

fn says(python: &Path) -> String {
    let script = "import sys, importlib.metadata as m; print(sys.version.split()[0], 'gunicorn', m.version('gunicorn'))";
    let output = Command::new(python).args(["-c", script]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
