//! The attach points themselves, sorted by probe; names are `<function>_<kind>`, the catalogue's keys.
//!
//! Where the kernel can preempt a program it passes over the same program for every other task of that processor until
//! the first goes on. So such a program has a second one, `<name>_again`, that the kernel does not take for the same.
use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::macros::fentry;
use aya_ebpf::macros::fexit;
use aya_ebpf::macros::kprobe;
use aya_ebpf::macros::kretprobe;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::BtfTracePointContext;
use aya_ebpf::programs::FEntryContext;
use aya_ebpf::programs::FExitContext;
use aya_ebpf::programs::ProbeContext;
use aya_ebpf::programs::RetProbeContext;
use aya_ebpf::programs::TracePointContext;

use crate::entry;
use crate::entry::FEntry;
use crate::entry::FExit;
use crate::entry::SysEnter;
use crate::entry::SysExit;
use crate::interpreter;
use crate::io;
use crate::log;
use crate::process;
use crate::socket;
use crate::syscall;
use crate::syscall::Arguments;
use crate::tls;
use crate::tls::Count;
use crate::tracepoint;

/// Whether programs do nothing, so that a benchmark can tell what the kernel takes to reach them; set by the loader. The
/// verifier takes out what does not apply.
#[unsafe(no_mangle)]
static EMPTY: u32 = 0;

/// Runs the handler of a program.
#[inline(always)]
fn run(context: *mut c_void, program: &str, handler: impl FnOnce() -> Option<()>) {
    // SAFETY: a valid static; volatile, because the loader changes it after compilation.
    if unsafe { core::ptr::read_volatile(&raw const EMPTY) } == 0 {
        log::done(context, program, handler());
    }
}

/// A kernel function, entered: the same handler by kprobe and by fentry, and by a second fentry where one is named.
macro_rules! entered {
    ($function:literal: $kprobe:ident, $fentry:ident $(, $again:ident)? => |$cx:ident| $handler:expr) => {
        #[kprobe]
        pub fn $kprobe($cx: ProbeContext) -> u32 {
            run($cx.as_ptr(), stringify!($kprobe), || $handler);
            0
        }
        entered!(@by $function: false, $fentry => |$cx| $handler);
        $(entered!(@by $function: true, $again => |$cx| $handler);)?
    };
    (@by $function:literal: $second:literal, $fentry:ident => |$cx:ident| $handler:expr) => {
        #[fentry(function = $function)]
        pub fn $fentry(cx: FEntryContext) -> i32 {
            let $cx = FEntry::<$second>(cx);
            run($cx.0.as_ptr(), stringify!($fentry), || $handler);
            0
        }
    };
}

/// A kernel function of `$args` arguments, left: the same handler by kretprobe and by two fexits.
macro_rules! left {
    ($function:literal, $args:literal: $kretprobe:ident, $fexit:ident, $again:ident => $handler:path) => {
        #[kretprobe]
        pub fn $kretprobe(cx: RetProbeContext) -> u32 {
            run(cx.as_ptr(), stringify!($kretprobe), || $handler(&cx));
            0
        }
        left!(@by $function, $args: $fexit => $handler);
        left!(@by $function, $args: $again => $handler);
    };
    (@by $function:literal, $args:literal: $fexit:ident => $handler:path) => {
        #[fexit(function = $function)]
        pub fn $fexit(cx: FExitContext) -> i32 {
            run(cx.as_ptr(), stringify!($fexit), || $handler(&FExit::<$args>(cx)));
            0
        }
    };
}

/// A BTF tracepoint.
macro_rules! traced {
    ($name:literal: $program:ident => |$cx:ident| $handler:expr) => {
        #[btf_tracepoint(function = $name)]
        pub fn $program($cx: BtfTracePointContext) -> i32 {
            run($cx.as_ptr(), stringify!($program), || $handler);
            0
        }
    };
}

/// The start of a system call, with a second program where one is named.
macro_rules! begun {
    ($program:ident $(, $again:ident)? => |$cx:ident| $handler:expr) => {
        begun!(@by false, $program => |$cx| $handler);
        $(begun!(@by true, $again => |$cx| $handler);)?
    };
    (@by $second:literal, $program:ident => |$cx:ident| $handler:expr) => {
        #[tracepoint]
        pub fn $program(cx: TracePointContext) -> u32 {
            let $cx = SysEnter::<$second>(cx);
            run($cx.0.as_ptr(), stringify!($program), || $handler);
            0
        }
    };
}

/// The end of a system call, likewise.
macro_rules! ended {
    ($($program:ident),+ => $handler:path) => {
        $(
            #[tracepoint]
            pub fn $program(cx: TracePointContext) -> u32 {
                run(cx.as_ptr(), stringify!($program), || $handler(&SysExit(cx)));
                0
            }
        )+
    };
}

// Who exists.
entered!("wake_up_new_task": wake_up_new_task_kprobe, wake_up_new_task_fentry => |cx| process::forked(&cx, 0));
traced!("sched_process_fork": sched_process_fork_tp_btf => |cx| process::forked(&cx, 1));
entered!("proc_exec_connector": proc_exec_connector_kprobe, proc_exec_connector_fentry => |cx| process::execed());
traced!("sched_process_exec": sched_process_exec_tp_btf => |cx| process::execed());
entered!("taskstats_exit": taskstats_exit_kprobe, taskstats_exit_fentry => |cx| process::exited());
traced!("sched_process_exit": sched_process_exit_tp_btf => |cx| process::exited());

// Who is told to end, and by whom.
traced!("signal_generate": signal_generate_tp_btf => |cx| process::signalled(&cx));

// Who makes worker slots.
entered!("security_inode_unlink": security_inode_unlink_kprobe, security_inode_unlink_fentry, security_inode_unlink_fentry_again
    => |cx| process::unlinked_dentry(&cx));
begun!(sys_enter_unlink, sys_enter_unlink_again => |cx| process::unlinked_path(&cx, 0));
begun!(sys_enter_unlinkat, sys_enter_unlinkat_again => |cx| process::unlinked_path(&cx, 1));

// Who is alive. Gunicorn beats by `utimensat(fd, NULL, …)`, up to 21.2 by `fchmod(fd, …)`.
entered!("vfs_utimes": vfs_utimes_kprobe, vfs_utimes_fentry, vfs_utimes_fentry_again => |cx| process::beat_path(&cx));
entered!("vfs_fchmod": vfs_fchmod_kprobe, vfs_fchmod_fentry, vfs_fchmod_fentry_again => |cx| process::beat_file(&cx));
begun!(sys_enter_utimensat, sys_enter_utimensat_again => |cx| process::beat_descriptor(&cx));
begun!(sys_enter_fchmod, sys_enter_fchmod_again => |cx| process::beat_descriptor(&cx));

// Which connections.
entered!("security_sock_graft": security_sock_graft_kprobe, security_sock_graft_fentry, security_sock_graft_fentry_again
    => |cx| socket::accepted(&cx));
ended!(sys_exit_accept, sys_exit_accept_again => syscall::accepted);
ended!(sys_exit_accept4, sys_exit_accept4_again => syscall::accepted);
entered!("inet_release": inet_release_kprobe, inet_release_fentry, inet_release_fentry_again
    => |cx| socket::released(&cx));
entered!("unix_release": unix_release_kprobe, unix_release_fentry, unix_release_fentry_again
    => |cx| socket::released(&cx));
begun!(sys_enter_close, sys_enter_close_again => |cx| socket::closing(&cx));
traced!("inet_sock_set_state": inet_sock_set_state_tp_btf => |cx| socket::state_changed(&cx));

// Which bytes come in.
entered!("inet_recvmsg": inet_recvmsg_kprobe, inet_recvmsg_fentry, inet_recvmsg_fentry_again
    => |cx| io::begin_message(&cx, true, Some(3)));
left!("inet_recvmsg", 4: inet_recvmsg_kretprobe, inet_recvmsg_fexit, inet_recvmsg_fexit_again => io::end);
entered!("inet6_recvmsg": inet6_recvmsg_kprobe, inet6_recvmsg_fentry, inet6_recvmsg_fentry_again
    => |cx| io::begin_message(&cx, true, Some(3)));
left!("inet6_recvmsg", 4: inet6_recvmsg_kretprobe, inet6_recvmsg_fexit, inet6_recvmsg_fexit_again => io::end);
entered!("unix_stream_recvmsg": unix_stream_recvmsg_kprobe, unix_stream_recvmsg_fentry, unix_stream_recvmsg_fentry_again
    => |cx| io::begin_message(&cx, true, Some(3)));
left!("unix_stream_recvmsg", 4: unix_stream_recvmsg_kretprobe, unix_stream_recvmsg_fexit, unix_stream_recvmsg_fexit_again
    => io::end);
entered!("tcp_splice_read": tcp_splice_read_kprobe, tcp_splice_read_fentry, tcp_splice_read_fentry_again
    => |cx| io::begin_pages(&cx, true));
left!("tcp_splice_read", 5: tcp_splice_read_kretprobe, tcp_splice_read_fexit, tcp_splice_read_fexit_again => io::end);
traced!("tcp_rcv_space_adjust": tcp_rcv_space_adjust_tp_btf => |cx| tracepoint::taken(&cx));
traced!("sock_recv_length": sock_recv_length_tp_btf => |cx| tracepoint::moved(&cx, true));
begun!(sys_enter_splice_in, sys_enter_splice_in_again => |cx| syscall::begin_opaque(&cx, true, 0));
ended!(sys_exit_splice_in, sys_exit_splice_in_again => io::end);
begun!(sys_enter_read, sys_enter_read_again => |cx| syscall::begin(&cx, true, Arguments::Buffer, None));
ended!(sys_exit_read, sys_exit_read_again => io::end);
begun!(sys_enter_readv, sys_enter_readv_again => |cx| syscall::begin(&cx, true, Arguments::Vector, None));
ended!(sys_exit_readv, sys_exit_readv_again => io::end);
begun!(sys_enter_recvfrom, sys_enter_recvfrom_again => |cx| syscall::begin(&cx, true, Arguments::Buffer, Some(3)));
ended!(sys_exit_recvfrom, sys_exit_recvfrom_again => io::end);
begun!(sys_enter_recvmsg, sys_enter_recvmsg_again => |cx| syscall::begin(&cx, true, Arguments::Message, Some(2)));
ended!(sys_exit_recvmsg, sys_exit_recvmsg_again => io::end);
begun!(sys_enter_recvmmsg, sys_enter_recvmmsg_again => |cx| syscall::begin(&cx, true, Arguments::Messages, Some(3)));
ended!(sys_exit_recvmmsg, sys_exit_recvmmsg_again => syscall::end_messages);

// Which bytes go out.
entered!("inet_sendmsg": inet_sendmsg_kprobe, inet_sendmsg_fentry, inet_sendmsg_fentry_again
    => |cx| io::begin_message(&cx, false, None));
left!("inet_sendmsg", 3: inet_sendmsg_kretprobe, inet_sendmsg_fexit, inet_sendmsg_fexit_again => io::end);
entered!("inet6_sendmsg": inet6_sendmsg_kprobe, inet6_sendmsg_fentry, inet6_sendmsg_fentry_again
    => |cx| io::begin_message(&cx, false, None));
left!("inet6_sendmsg", 3: inet6_sendmsg_kretprobe, inet6_sendmsg_fexit, inet6_sendmsg_fexit_again => io::end);
entered!("unix_stream_sendmsg": unix_stream_sendmsg_kprobe, unix_stream_sendmsg_fentry, unix_stream_sendmsg_fentry_again
    => |cx| io::begin_message(&cx, false, None));
left!("unix_stream_sendmsg", 3: unix_stream_sendmsg_kretprobe, unix_stream_sendmsg_fexit, unix_stream_sendmsg_fexit_again
    => io::end);
entered!("inet_sendpage": inet_sendpage_kprobe, inet_sendpage_fentry, inet_sendpage_fentry_again
    => |cx| io::begin_pages(&cx, false));
left!("inet_sendpage", 5: inet_sendpage_kretprobe, inet_sendpage_fexit, inet_sendpage_fexit_again => io::end);
entered!("unix_stream_sendpage": unix_stream_sendpage_kprobe, unix_stream_sendpage_fentry, unix_stream_sendpage_fentry_again
    => |cx| io::begin_pages(&cx, false));
left!("unix_stream_sendpage", 5: unix_stream_sendpage_kretprobe, unix_stream_sendpage_fexit, unix_stream_sendpage_fexit_again
    => io::end);
traced!("sock_send_length": sock_send_length_tp_btf => |cx| tracepoint::moved(&cx, false));
begun!(sys_enter_write, sys_enter_write_again => |cx| syscall::begin(&cx, false, Arguments::Buffer, None));
ended!(sys_exit_write, sys_exit_write_again => io::end);
begun!(sys_enter_writev, sys_enter_writev_again => |cx| syscall::begin(&cx, false, Arguments::Vector, None));
ended!(sys_exit_writev, sys_exit_writev_again => io::end);
begun!(sys_enter_sendto, sys_enter_sendto_again => |cx| syscall::begin(&cx, false, Arguments::Buffer, None));
ended!(sys_exit_sendto, sys_exit_sendto_again => io::end);
begun!(sys_enter_sendmsg, sys_enter_sendmsg_again => |cx| syscall::begin(&cx, false, Arguments::Message, None));
ended!(sys_exit_sendmsg, sys_exit_sendmsg_again => io::end);
begun!(sys_enter_sendmmsg, sys_enter_sendmmsg_again => |cx| syscall::begin(&cx, false, Arguments::Messages, None));
ended!(sys_exit_sendmmsg, sys_exit_sendmmsg_again => syscall::end_messages);
begun!(sys_enter_sendfile64, sys_enter_sendfile64_again => |cx| syscall::begin_opaque(&cx, false, 0));
ended!(sys_exit_sendfile64, sys_exit_sendfile64_again => io::end);
begun!(sys_enter_splice, sys_enter_splice_again => |cx| syscall::begin_splice(&cx));
ended!(sys_exit_splice, sys_exit_splice_again => io::end);

/// A place in a program.
macro_rules! passed {
    ($program:ident => |$cx:ident| $handler:expr) => {
        #[uprobe]
        pub fn $program($cx: ProbeContext) -> u32 {
            run($cx.as_ptr(), stringify!($program), || $handler);
            0
        }
    };
}

// Which bytes, before they are encrypted and after they are decrypted.
passed!(ssl_set_bio_uprobe => |cx| tls::made(&cx));
passed!(ssl_set_accept_state_uprobe => |cx| tls::accepts(&cx));
passed!(ssl_do_handshake_uprobe => |cx| tls::greets(&cx));
passed!(ssl_read_uprobe => |cx| tls::begin(&cx, true, Count::Returned));
passed!(ssl_read_ex_uprobe => |cx| tls::begin(&cx, true, Count::Written));
passed!(ssl_write_uprobe => |cx| tls::begin(&cx, false, Count::Returned));
passed!(ssl_write_ex_uprobe => |cx| tls::begin(&cx, false, Count::Written));
passed!(ssl_done_uprobe => |cx| tls::end(&cx));
passed!(ssl_free_uprobe => |cx| tls::freed(&cx));

// What the interpreter does with its time.
passed!(invoke_gc_callback_uprobe => |cx| interpreter::passed(entry::stack(&cx)));
begun!(sys_enter_futex => |cx| interpreter::wait_begins(&cx));
ended!(sys_exit_futex => interpreter::wait_ended);
