//! What this host can do before anything is attached: probed, with a remedy for what is missing.
use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;

use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;

use super::KernelError;
use super::offsets::Layout;

const BTF: &str = "/sys/kernel/btf/vmlinux";
const TRACEFS: &str = "/sys/kernel/tracing";

/// Capabilities that loading and attaching needs, and what for.
const NEEDED: [(CapabilitySet, &str, &str); 4] = [
    (CapabilitySet::BPF, "CAP_BPF", "loads the probes"),
    (CapabilitySet::PERFMON, "CAP_PERFMON", "attaches them"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE", "reads the open files of gunicorn"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", "reads them under another user"),
];

/// The initial pid namespace's inode number (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// One line of `sw-observe check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it, when it is not good.
    pub remedy: Option<String>,
}

/// Fails when this process may not load probes: the error names the missing capabilities.
///
/// `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON` (capabilities(7)).
pub fn permission() -> Result<(), KernelError> {
    let missing = missing_capabilities();
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Permission { missing: missing.join(", ") }) }
}

/// Fails outside the initial pid namespace: the probes name processes by their pids there, `/proc` would not.
pub fn pid_namespace() -> Result<(), KernelError> {
    if sees_all_pids() { Ok(()) } else { Err(KernelError::PidNamespace) }
}

fn sees_all_pids() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

fn missing_capabilities() -> Vec<&'static str> {
    let have =
        rustix::thread::capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    let admin = have.contains(CapabilitySet::SYS_ADMIN);
    let stands_in = if admin { CapabilitySet::BPF | CapabilitySet::PERFMON } else { CapabilitySet::empty() };
    let granted = have | stands_in;
    let missing = NEEDED.iter().filter(|(capability, _, _)| !granted.contains(*capability));
    missing.map(|(_, name, _)| *name).collect()
}

/// The running kernel's BTF.
pub fn btf_bytes() -> Result<Vec<u8>, KernelError> {
    fs::read(BTF).map_err(|source| KernelError::NoBtf { path: BTF, source })
}

/// Mounts tracefs where it is not: tracepoints are looked up there.
pub fn mount_tracefs() -> Result<(), KernelError> {
    if has_tracefs() {
        return Ok(());
    }
    rustix::mount::mount("tracefs", TRACEFS, "tracefs", MountFlags::NOSUID | MountFlags::NODEV, None)
        .map_err(|errno| KernelError::NoTracefs { path: TRACEFS, source: errno.into() })
}

fn has_tracefs() -> bool {
    Path::new(TRACEFS).join("events").is_dir() || Path::new("/sys/kernel/debug/tracing/events").is_dir()
}

/// Whether this kernel has kprobes at all (their performance-event source is there).
pub fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Whether it has uprobes, likewise.
pub fn has_uprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/uprobe/type").exists()
}

/// Which programs this kernel can preempt. It passes over a program while the same one is under way on that processor
/// (`prog->active`, `kernel/bpf/trampoline.c`), and so what other tasks do there until the preempted one goes on. Kprobes run
/// with preemption off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preempts {
    /// Those at system calls: from 7.2 (`trace_call_bpf_faultable`, `kernel/trace/bpf_trace.c`).
    pub syscalls: bool,
    /// Those at functions, by trampoline.
    pub trampolines: bool,
    /// Those at other tracepoints: from 7.0, where tracepoints are read under an SRCU lock (`tracepoint_srcu`,
    /// `include/linux/tracepoint.h`), unless something else keeps preemption off.
    pub tracepoints: bool,
}

impl Preempts {
    /// What is true of the running kernel.
    pub fn of_this_kernel(layout: &Layout) -> Preempts {
        let version = rustix::system::uname().version().to_string_lossy().into_owned();
        let model = fs::read_to_string("/sys/kernel/debug/sched/preempt").ok();
        let preempts = is_preemptible(&version, model.as_deref());
        Preempts {
            syscalls: preempts && layout.faultable,
            trampolines: preempts,
            // Up to 6.12 that lock is for idle processors only.
            tracepoints: preempts && layout.flavours && has_symbol("tracepoint_srcu"),
        }
    }
}

/// Whether the kernel has a symbol of this name.
fn has_symbol(name: &str) -> bool {
    let Ok(symbols) = File::open("/proc/kallsyms") else { return false };
    let ending = format!(" {name}");
    BufReader::new(symbols).lines().map_while(Result::ok).any(|line| line.ends_with(&ending))
}

/// Whether a kernel preempts tasks inside it, by its version text and, where it shows it, the model that was chosen at
/// boot, in parentheses.
fn is_preemptible(version: &str, model: Option<&str>) -> bool {
    let chosen = model.and_then(|model| model.split_once('(')?.1.split_once(')'));
    match chosen {
        Some((chosen, _)) => !matches!(chosen, "none" | "voluntary"),
        None => version.contains("PREEMPT"),
    }
}

/// Everything that can be said without attaching.
pub fn findings() -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let missing = missing_capabilities();
    let btf = btf_bytes().map(|bytes| bytes.len());
    vec![
        Finding { name: "kernel", found: format!("Linux {}", release.trim()), remedy: None },
        Finding {
            name: "capabilities",
            found: if missing.is_empty() {
                "all".to_owned()
            } else {
                format!("missing {}", missing.join(", "))
            },
            remedy: (!missing.is_empty()).then(|| {
                let reasons = NEEDED.iter().filter(|(_, name, _)| missing.contains(name));
                let reasons: Vec<_> = reasons.map(|(_, name, why)| format!("{name} {why}")).collect();
                format!("run as root (sudo), or add the capabilities: {}", reasons.join("; "))
            }),
        },
        Finding {
            name: "pid namespace",
            found: if sees_all_pids() { "the host's" } else { "a container's" }.to_owned(),
            remedy: (!sees_all_pids()).then(|| "run in the host's: hostPID: true, or --pid=host".to_owned()),
        },
        Finding {
            name: "btf",
            found: btf.as_ref().map_or("none".to_owned(), |len| format!("{BTF}, {len} bytes")),
            remedy: btf.is_err().then(|| {
                "use a kernel built with CONFIG_DEBUG_INFO_BTF (every distribution's since 2021)".to_owned()
            }),
        },
        Finding {
            name: "tracefs",
            found: if has_tracefs() { "mounted" } else { "not mounted" }.to_owned(),
            remedy: (!has_tracefs())
                .then(|| format!("mount -t tracefs tracefs {TRACEFS} (a run does it itself)")),
        },
        Finding {
            name: "kprobes",
            found: if has_kprobes() { "yes" } else { "no" }.to_owned(),
            remedy: None, // every probe has a variant without them
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_preemptible_unless_it_says_otherwise() {
        assert!(is_preemptible("#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1", None));
        assert!(is_preemptible("#1 SMP PREEMPT_DYNAMIC", Some("none voluntary (full) lazy \n")));
        assert!(!is_preemptible("#1 SMP PREEMPT_DYNAMIC", Some("none (voluntary) full \n")));
        assert!(!is_preemptible("#1 SMP Debian 5.10.0-46", None));
    }
}
