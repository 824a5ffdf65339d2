//! `cargo xtask setup`: finds or installs what the other commands need. Quick when all is there.

use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::apt;
use crate::inside;
use crate::pythons;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::toolchain;
use crate::unpacked;

/// What to prepare besides the probes' compiler; with none of them, everything.
#[derive(Args)]
pub struct Options {
    /// For the kernel matrix: QEMU, busybox, cpio, Python
    #[arg(long)]
    vm: bool,
    /// For the test with a real OAP: Java, Maven
    #[arg(long)]
    oap: bool,
    /// For the demo: Python with virtual environments
    #[arg(long)]
    demo: bool,
    /// For the live tests: what starts a gunicorn in them, newer Pythons, promtool, nginx, clients of HTTP/2
    #[arg(long)]
    live: bool,
}

/// A prerequisite besides the probes' compiler.
struct Need {
    package: &'static str,
    present: fn() -> bool,
}

/// Parts of the repository that need something.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    /// The kernel matrix.
    Vm,
    /// The test with a real OAP.
    Oap,
    /// Everything that starts a real gunicorn on this machine.
    Python,
    /// The pipeline's instructions.
    Count,
    /// The live tests: init processes, supervisors, namespaces, promtool, nginx.
    Live,
}

impl Part {
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Vm => &[
                Need { package: "qemu-system-x86", present: || shell::found("qemu-system-x86_64").is_some() },
                Need { package: "busybox-static", present: || shell::found("busybox").is_some() },
                OPENSSL,
                Need { package: "cpio", present: || shell::found("cpio").is_some() },
                Need { package: "binutils", present: || shell::found("strip").is_some() },
                PYTHON,
            ],
            Self::Oap => {
                &[Need { package: "default-jre-headless", present: || shell::found("java").is_some() }, MAVEN]
            }
            Self::Python => &[PYTHON],
            Self::Count => &[Need { package: "valgrind", present: || shell::found("valgrind").is_some() }],
            Self::Live => &[
                PYTHON,
                Need { package: "gcc", present: || shell::found("cc").is_some() },
                Need { package: "python3-dev", present: || Path::new("/usr/bin/python3-config").is_file() },
                Need { package: "python3-venv", present: || python("/usr/bin/python3") },
                Need { package: "libssl-dev", present: || Path::new("/usr/include/openssl/ssl.h").is_file() },
                MAVEN,
                Need { package: "curl", present: || shell::found("curl").is_some() },
                Need { package: "nghttp2-client", present: || shell::found("h2load").is_some() },
                Need { package: "crun", present: || shell::found("crun").is_some() },
                Need { package: "dash", present: || shell::found("dash").is_some() },
                Need { package: "dumb-init", present: || shell::found("dumb-init").is_some() },
                OPENSSL,
                Need { package: "patchelf", present: || shell::found("patchelf").is_some() },
                Need { package: "gosu", present: || shell::found("gosu").is_some() },
                Need { package: "supervisor", present: || shell::found("supervisord").is_some() },
                Need { package: "systemd", present: || shell::found("systemd-socket-activate").is_some() },
                Need { package: "tini", present: || shell::found("tini").is_some() },
                Need { package: "util-linux", present: || shell::found("nsenter").is_some() },
            ],
        }
    }
}

const OPENSSL: Need = Need { package: "openssl", present: || shell::found("openssl").is_some() };
const MAVEN: Need = Need { package: "maven", present: || shell::found("mvn").is_some() };
const PYTHON: Need = Need { package: "python3-venv", present: || python("python3") };

/// Debian's Python alone cannot make virtual environments with pip in them.
fn python(program: &str) -> bool {
    shell::output(Command::new(program).args(["-c", "import venv, ensurepip"])).is_ok()
}

/// The command.
pub fn command(options: &Options) -> Outcome {
    let all = !(options.vm || options.oap || options.demo || options.live);
    let chosen = [
        (options.vm, Part::Vm),
        (options.oap, Part::Oap),
        (options.demo, Part::Python),
        (options.live, Part::Live),
    ];
    let parts: Vec<Part> =
        chosen.into_iter().filter(|(asked, _)| all || *asked).map(|(_, part)| part).collect();
    let parts = if all { [parts, vec![Part::Count]].concat() } else { parts };
    ensure(&parts)?;
    shell::say("everything is here");
    Ok(())
}

/// Finds or installs the probes' compiler and what these parts need.
pub fn ensure(parts: &[Part]) -> Outcome {
    programs(parts)?;
    if parts.contains(&Part::Live) {
        pythons::ensure();
        inside::ensure()?;
    }
    toolchain::ensure()
}

/// Finds or installs what these parts need, without the probes' compiler.
pub fn programs(parts: &[Part]) -> Outcome {
    let needs = parts.iter().flat_map(|part| part.needs());
    let mut missing: Vec<&str> = needs.filter(|need| !(need.present)()).map(|need| need.package).collect();
    missing.dedup();
    if parts.contains(&Part::Live) {
        unpacked::PROMTOOL.ensure()?;
        unpacked::NGINX.ensure()?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !apt::present() {
        return Err(Failure::new(format!(
            "this machine lacks what Debian calls {}, and has no apt-get: install them with its own package manager",
            missing.join(", ")
        )));
    }
    apt::update()?;
    apt::install(&missing)
}
