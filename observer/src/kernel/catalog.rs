//! The catalogue: every probe, its attach variants in order of preference, and why it is there.

/// A way to reach a probe; `--attach` forces one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// A kernel function's first and last instruction, by breakpoint.
    Kprobe,
    /// A kernel function's entry and exit, by trampoline: the cheapest.
    Fentry,
    /// The kernel's own tracepoints.
    Tracepoint,
    /// Those of system calls, where there are others.
    Syscall,
    /// An instruction of a program, by breakpoint.
    Uprobe,
}

impl Variant {
    /// The name that options, logs and goldens use.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Kprobe => "kprobe",
            Variant::Fentry => "fentry",
            Variant::Tracepoint => "tracepoint",
            Variant::Syscall => "syscall",
            Variant::Uprobe => "uprobe",
        }
    }
}

/// One program and the place it is attached to.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The program's name in the object.
    pub program: &'static str,
    /// The name of the second one for kernels that can preempt the first ([`super::capability::Preempts`]).
    pub again: Option<&'static str>,
    /// The kernel function, tracepoint or system call.
    pub target: &'static str,
    /// Whether the variant works without it: a function that only some kernels have.
    pub optional: bool,
    /// Whether it is taken only where none of the optional ones before it can be.
    pub instead: bool,
    /// Whether it is refused where the kernel can preempt it: a tracepoint that is passed with preemption on.
    pub unlocked: bool,
}

/// What a probe means to the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it there is nothing to report.
    Required,
    /// Without it something is missing, and said so.
    Wanted,
}

/// When a probe is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the start.
    Start,
    /// It is loaded at the start, and attached when a process needs it ([`super::clocks`], [`super::sessions`]).
    Needed,
}

impl Probe {
    /// Whether a variant may be taken when one is forced. A probe that has just one keeps it; tracepoints are those of system
    /// calls where there are no others.
    pub fn allows(&self, variant: Variant, forced: Option<Variant>) -> bool {
        let has = |wanted: Variant| self.variants.iter().any(|(variant, _)| *variant == wanted);
        match forced {
            None => true,
            _ if self.variants.len() == 1 => true,
            Some(Variant::Tracepoint) => matches!(variant, Variant::Tracepoint | Variant::Syscall),
            Some(Variant::Syscall) if !has(Variant::Syscall) => variant == Variant::Tracepoint,
            Some(forced) => variant == forced,
        }
    }
}

/// A handler and the ways to reach it.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The name that logs, `check` and goldens use.
    pub name: &'static str,
    /// Whether the observer runs without it.
    pub need: Need,
    /// When it is attached.
    pub when: When,
    /// What is lost without it.
    pub why: &'static str,
    /// Variants in order of preference.
    pub variants: &'static [(Variant, &'static [Point])],
}

const fn point(program: &'static str, target: &'static str) -> Point {
    Point { program, again: None, target, optional: false, instead: false, unlocked: false }
}

const fn optional(program: &'static str, target: &'static str) -> Point {
    Point { optional: true, ..point(program, target) }
}

const fn unlocked(program: &'static str, target: &'static str) -> Point {
    Point { unlocked: true, ..point(program, target) }
}

const fn instead(program: &'static str, target: &'static str) -> Point {
    Point { instead: true, ..point(program, target) }
}

/// A point with a second program: `point` and the like of one that can be preempted.
macro_rules! twice {
    ($make:ident($program:literal, $target:literal)) => {
        Point { again: Some(concat!($program, "_again")), ..$make($program, $target) }
    };
}

use Variant::Fentry;
use Variant::Kprobe;
use Variant::Syscall;
use Variant::Tracepoint;
use Variant::Uprobe;

/// Name of the probe of the interpreter's collector.
pub const COLLECTOR: &str = "collector";
/// Name of the probe of the interpreter's lock.
pub const LOCK: &str = "lock";

/// Name of the probe of TLS libraries.
pub const TLS: &str = "tls";

/// Every probe. On process life kprobes come first; elsewhere the cheapest that a kernel offers, which is what comes once for
/// each call in place of twice.
pub const CATALOG: &[Probe] = &[
    Probe {
        name: "fork",
        need: Need::Required,
        when: When::Start,
        why: "new workers",
        variants: &[
            (Kprobe, &[point("wake_up_new_task_kprobe", "wake_up_new_task")]),
            (Tracepoint, &[point("sched_process_fork_tp_btf", "sched_process_fork")]),
            (Fentry, &[point("wake_up_new_task_fentry", "wake_up_new_task")]),
        ],
    },
    Probe {
        name: "exec",
        need: Need::Required,
        when: When::Start,
        why: "a process that is no longer what it was forked as",
        variants: &[
            (Kprobe, &[point("proc_exec_connector_kprobe", "proc_exec_connector")]),
            (Tracepoint, &[point("sched_process_exec_tp_btf", "sched_process_exec")]),
            (Fentry, &[point("proc_exec_connector_fentry", "proc_exec_connector")]),
        ],
    },
    Probe {
        name: "exit",
        need: Need::Required,
        when: When::Start,
        why: "workers that ended",
        variants: &[
            (Kprobe, &[point("taskstats_exit_kprobe", "taskstats_exit")]),
            (Tracepoint, &[point("sched_process_exit_tp_btf", "sched_process_exit")]),
            (Fentry, &[point("taskstats_exit_fentry", "taskstats_exit")]),
        ],
    },
    Probe {
        name: "signal",
        need: Need::Wanted,
        when: When::Start,
        why: "why a worker ended",
        // One variant: the functions behind it were renamed and are inlined here and there.
        variants: &[(Tracepoint, &[point("signal_generate_tp_btf", "signal_generate")])],
    },
    Probe {
        name: "slot",
        need: Need::Required,
        when: When::Start,
        why: "which processes are arbiters and which of their children are workers",
        variants: &[
            (Fentry, &[twice!(point("security_inode_unlink_fentry", "security_inode_unlink"))]),
            (Kprobe, &[point("security_inode_unlink_kprobe", "security_inode_unlink")]),
            (
                Tracepoint,
                &[
                    // Some architectures have no `unlink` call.
                    twice!(optional("sys_enter_unlink", "sys_enter_unlink")),
                    twice!(point("sys_enter_unlinkat", "sys_enter_unlinkat")),
                ],
            ),
        ],
    },
    Probe {
        name: "heartbeat",
        need: Need::Wanted,
        when: When::Start,
        why: "when a worker has booted",
        variants: &[
            (
                Fentry,
                &[
                    twice!(point("vfs_utimes_fentry", "vfs_utimes")),
                    twice!(point("vfs_fchmod_fentry", "vfs_fchmod")),
                ],
            ),
            (Kprobe, &[point("vfs_utimes_kprobe", "vfs_utimes"), point("vfs_fchmod_kprobe", "vfs_fchmod")]),
            (
                Tracepoint,
                &[
                    twice!(point("sys_enter_utimensat", "sys_enter_utimensat")),
                    twice!(point("sys_enter_fchmod", "sys_enter_fchmod")),
                ],
            ),
        ],
    },
    Probe {
        name: "accept",
        need: Need::Required,
        when: When::Start,
        why: "which connections a worker serves",
        variants: &[
            (Fentry, &[twice!(point("security_sock_graft_fentry", "security_sock_graft"))]),
            (Kprobe, &[point("security_sock_graft_kprobe", "security_sock_graft")]),
            (
                Tracepoint,
                &[
                    twice!(optional("sys_exit_accept", "sys_exit_accept")),
                    twice!(point("sys_exit_accept4", "sys_exit_accept4")),
                ],
            ),
        ],
    },
    Probe {
        name: "receive",
        need: Need::Required,
        when: When::Start,
        why: "requests",
        variants: &[
            (
                Tracepoint, // from 6.3, up to 7.0 on kernels that can preempt it
                &[
                    unlocked("tcp_rcv_space_adjust_tp_btf", "tcp_rcv_space_adjust"),
                    unlocked("sock_recv_length_tp_btf", "sock_recv_length"),
                    // What is spliced passes by those. A tracepoint of one system call makes all of them dearer, so that is
                    // the last way.
                    twice!(optional("tcp_splice_read_fentry", "tcp_splice_read")),
                    twice!(optional("tcp_splice_read_fexit", "tcp_splice_read")),
                    twice!(instead("sys_enter_splice_in", "sys_enter_splice")),
                    twice!(instead("sys_exit_splice_in", "sys_exit_splice")),
                ],
            ),
            (
                Fentry,
                &[
                    twice!(point("inet_recvmsg_fentry", "inet_recvmsg")),
                    twice!(point("inet_recvmsg_fexit", "inet_recvmsg")),
                    twice!(optional("inet6_recvmsg_fentry", "inet6_recvmsg")),
                    twice!(optional("inet6_recvmsg_fexit", "inet6_recvmsg")),
                    twice!(point("unix_stream_recvmsg_fentry", "unix_stream_recvmsg")),
                    twice!(point("unix_stream_recvmsg_fexit", "unix_stream_recvmsg")),
                    twice!(optional("tcp_splice_read_fentry", "tcp_splice_read")),
                    twice!(optional("tcp_splice_read_fexit", "tcp_splice_read")),
                ],
            ),
            (
                Kprobe,
                &[
                    point("inet_recvmsg_kprobe", "inet_recvmsg"),
                    point("inet_recvmsg_kretprobe", "inet_recvmsg"),
                    optional("inet6_recvmsg_kprobe", "inet6_recvmsg"),
                    optional("inet6_recvmsg_kretprobe", "inet6_recvmsg"),
                    point("unix_stream_recvmsg_kprobe", "unix_stream_recvmsg"),
                    point("unix_stream_recvmsg_kretprobe", "unix_stream_recvmsg"),
                    optional("tcp_splice_read_kprobe", "tcp_splice_read"),
                    optional("tcp_splice_read_kretprobe", "tcp_splice_read"),
                ],
            ),
            (
                Syscall,
                &[
                    twice!(point("sys_enter_read", "sys_enter_read")),
                    twice!(point("sys_exit_read", "sys_exit_read")),
                    twice!(point("sys_enter_readv", "sys_enter_readv")),
                    twice!(point("sys_exit_readv", "sys_exit_readv")),
                    twice!(point("sys_enter_recvfrom", "sys_enter_recvfrom")),
                    twice!(point("sys_exit_recvfrom", "sys_exit_recvfrom")),
                    twice!(point("sys_enter_recvmsg", "sys_enter_recvmsg")),
                    twice!(point("sys_exit_recvmsg", "sys_exit_recvmsg")),
                    twice!(point("sys_enter_recvmmsg", "sys_enter_recvmmsg")),
                    twice!(point("sys_exit_recvmmsg", "sys_exit_recvmmsg")),
                    // Either end may be the socket: with `send` it covers both directions.
                    twice!(point("sys_enter_splice", "sys_enter_splice")),
                    twice!(point("sys_exit_splice", "sys_exit_splice")),
                ],
            ),
        ],
    },
    Probe {
        name: "send",
        need: Need::Required,
        when: When::Start,
        why: "responses",
        variants: &[
            // Likewise.
            (Tracepoint, &[unlocked("sock_send_length_tp_btf", "sock_send_length")]),
            (
                Fentry,
                &[
                    twice!(point("inet_sendmsg_fentry", "inet_sendmsg")),
                    twice!(point("inet_sendmsg_fexit", "inet_sendmsg")),
                    twice!(optional("inet6_sendmsg_fentry", "inet6_sendmsg")),
                    twice!(optional("inet6_sendmsg_fexit", "inet6_sendmsg")),
                    twice!(point("unix_stream_sendmsg_fentry", "unix_stream_sendmsg")),
                    twice!(point("unix_stream_sendmsg_fexit", "unix_stream_sendmsg")),
                    // Gone since 6.5, where `sendfile` comes by way of `sendmsg`.
                    twice!(optional("inet_sendpage_fentry", "inet_sendpage")),
                    twice!(optional("inet_sendpage_fexit", "inet_sendpage")),
                    twice!(optional("unix_stream_sendpage_fentry", "unix_stream_sendpage")),
                    twice!(optional("unix_stream_sendpage_fexit", "unix_stream_sendpage")),
                ],
            ),
            (
                Kprobe,
                &[
                    point("inet_sendmsg_kprobe", "inet_sendmsg"),
                    point("inet_sendmsg_kretprobe", "inet_sendmsg"),
                    optional("inet6_sendmsg_kprobe", "inet6_sendmsg"),
                    optional("inet6_sendmsg_kretprobe", "inet6_sendmsg"),
                    point("unix_stream_sendmsg_kprobe", "unix_stream_sendmsg"),
                    point("unix_stream_sendmsg_kretprobe", "unix_stream_sendmsg"),
                    optional("inet_sendpage_kprobe", "inet_sendpage"),
                    optional("inet_sendpage_kretprobe", "inet_sendpage"),
                    optional("unix_stream_sendpage_kprobe", "unix_stream_sendpage"),
                    optional("unix_stream_sendpage_kretprobe", "unix_stream_sendpage"),
                ],
            ),
            (
                Syscall,
                &[
                    twice!(point("sys_enter_write", "sys_enter_write")),
                    twice!(point("sys_exit_write", "sys_exit_write")),
                    twice!(point("sys_enter_writev", "sys_enter_writev")),
                    twice!(point("sys_exit_writev", "sys_exit_writev")),
                    twice!(point("sys_enter_sendto", "sys_enter_sendto")),
                    twice!(point("sys_exit_sendto", "sys_exit_sendto")),
                    twice!(point("sys_enter_sendmsg", "sys_enter_sendmsg")),
                    twice!(point("sys_exit_sendmsg", "sys_exit_sendmsg")),
                    twice!(point("sys_enter_sendmmsg", "sys_enter_sendmmsg")),
                    twice!(point("sys_exit_sendmmsg", "sys_exit_sendmmsg")),
                    twice!(point("sys_enter_sendfile64", "sys_enter_sendfile64")),
                    twice!(point("sys_exit_sendfile64", "sys_exit_sendfile64")),
                ],
            ),
        ],
    },
    Probe {
        name: "close",
        need: Need::Required,
        when: When::Start,
        why: "the end of connections and of responses without a length",
        variants: &[
            (
                Fentry,
                &[
                    twice!(point("inet_release_fentry", "inet_release")),
                    twice!(point("unix_release_fentry", "unix_release")),
                ],
            ),
            (
                Kprobe,
                &[point("inet_release_kprobe", "inet_release"), point("unix_release_kprobe", "unix_release")],
            ),
            (
                Tracepoint,
                &[
                    twice!(point("sys_enter_close", "sys_enter_close")),
                    point("inet_sock_set_state_tp_btf", "inet_sock_set_state"),
                ],
            ),
        ],
    },
    Probe {
        name: TLS,
        need: Need::Wanted,
        when: When::Needed,
        why: "requests that workers decrypt themselves",
        variants: &[(
            Uprobe,
            // In the order in which they come into a file: of what is seen to begin, the rest is seen.
            &[
                point("ssl_write_uprobe", "SSL_write"),
                point("ssl_write_ex_uprobe", "SSL_write_ex"),
                point("ssl_read_uprobe", "SSL_read"),
                point("ssl_read_ex_uprobe", "SSL_read_ex"),
                point("ssl_free_uprobe", "SSL_free"),
                point("ssl_do_handshake_uprobe", "SSL_do_handshake"),
                point("ssl_set_accept_state_uprobe", "SSL_set_accept_state"),
                point("ssl_set_bio_uprobe", "SSL_set_bio"),
                point("ssl_done_uprobe", "ret"), // the last: at every return of the first four
            ],
        )],
    },
    Probe {
        name: COLLECTOR,
        need: Need::Wanted,
        when: When::Needed,
        why: "how long the interpreter's garbage collector takes",
        variants: &[(Uprobe, &[point("invoke_gc_callback_uprobe", "invoke_gc_callback")])],
    },
    Probe {
        name: LOCK,
        need: Need::Wanted,
        when: When::Needed,
        why: "how long threads wait for the interpreter's lock",
        variants: &[(
            Tracepoint,
            &[point("sys_enter_futex", "sys_enter_futex"), point("sys_exit_futex", "sys_exit_futex")],
        )],
    },
];

/// The kind of program, which the end of its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// `*_kprobe`
    Kprobe,
    /// `*_kretprobe`
    Kretprobe,
    /// `*_fentry`
    Fentry,
    /// `*_fexit`
    Fexit,
    /// `*_tp_btf`
    TpBtf,
    /// `sys_*`
    Syscall,
    /// `*_uprobe`
    Uprobe,
}

impl Point {
    /// Its program, and the second one if it has one.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.program).chain(self.again)
    }

    /// The kind of this point's program.
    pub fn kind(&self) -> ProgramKind {
        const ENDINGS: [(&str, ProgramKind); 6] = [
            ("_kprobe", ProgramKind::Kprobe),
            ("_kretprobe", ProgramKind::Kretprobe),
            ("_fentry", ProgramKind::Fentry),
            ("_fexit", ProgramKind::Fexit),
            ("_tp_btf", ProgramKind::TpBtf),
            ("_uprobe", ProgramKind::Uprobe),
        ];
        let ending = ENDINGS.iter().find(|(ending, _)| self.program.ends_with(ending));
        ending.map_or(ProgramKind::Syscall, |(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_probe_has_each_variant_once_and_no_program_twice() {
        let mut programs = HashSet::new();
        for probe in CATALOG {
            let variants: HashSet<Variant> = probe.variants.iter().map(|(variant, _)| *variant).collect();
            assert_eq!(variants.len(), probe.variants.len(), "{}", probe.name);
            assert!(matches!(variants.len(), 1 | 3 | 4), "{}", probe.name);
            let mut own = HashSet::new();
            for (_, points) in probe.variants {
                let all: Vec<_> = points.iter().flat_map(Point::programs).collect();
                assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{}", probe.name);
                own.extend(all); // of two variants one is taken
            }
            own.into_iter().for_each(|program| assert!(programs.insert(program), "{program}"));
        }
    }

    #[test]
    fn one_that_is_forced_leaves_each_probe_a_way() {
        let left = |name: &str, forced: Variant| -> Vec<Variant> {
            let probe = CATALOG.iter().find(|probe| probe.name == name).unwrap();
            let all = probe.variants.iter().map(|(variant, _)| *variant);
            all.filter(|variant| probe.allows(*variant, Some(forced))).collect()
        };
        assert_eq!(left("receive", Tracepoint), [Tracepoint, Syscall]);
        assert_eq!(left("receive", Syscall), [Syscall]);
        assert_eq!(left("receive", Kprobe), [Kprobe]);
        assert_eq!(left("accept", Syscall), [Tracepoint]);
        assert_eq!(left("tls", Kprobe), [Uprobe]);
    }
}
