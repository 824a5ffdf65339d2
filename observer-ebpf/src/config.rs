//! Globals the loader sets before load: structure offsets and facts of the running kernel.
use crate::wire;

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Declares the offsets once: the structure, an empty value, and where each one is found in BTF.
macro_rules! offsets {
    ($($field:ident = $path:literal),* $(,)?) => {
        wire! {
            /// Byte offsets of kernel structure fields, in the order of [`PATHS`].
            pub struct Offsets [244] {
                $(
                    #[doc = concat!("`", $path, "`")]
                    pub $field: u32
                ),*
            }
        }

        impl Offsets {
            /// Every offset absent.
            pub const NONE: Offsets = Offsets { $($field: ABSENT),* };
        }

        /// Where each offset is found: `structure.member`, alternatives after `|`, first hit wins.
        pub const PATHS: [&str; size_of::<Offsets>() / 4] = [$($path),*];
    };
}

offsets! {
    task_tgid = "task_struct.tgid",
    task_group_leader = "task_struct.group_leader",
    task_start_boottime = "task_struct.start_boottime|task_struct.real_start_time",
    task_mm = "task_struct.mm",
    mm_arg_start = "mm_struct.arg_start",
    mm_arg_end = "mm_struct.arg_end",
    mm_env_end = "mm_struct.env_end",
    mm_exe_file = "mm_struct.exe_file",
    task_signal = "task_struct.signal",
    task_exit_code = "task_struct.exit_code",
    task_thread_pid = "task_struct.thread_pid",
    task_files = "task_struct.files",
    signal_live = "signal_struct.live",
    signal_group_exit_code = "signal_struct.group_exit_code",
    signal_oom_mm = "signal_struct.oom_mm",
    siginfo_code = "kernel_siginfo.si_code",
    pid_level = "pid.level",
    pid_numbers = "pid.numbers",
    upid_nr = "upid.nr",
    files_fdt = "files_struct.fdt",
    fdtable_fd = "fdtable.fd",
    fdtable_max_fds = "fdtable.max_fds",
    file_inode = "file.f_inode",
    file_private_data = "file.private_data",
    file_dentry = "file.f_path.dentry",
    // From 6.13 a file counts its references in `file_ref`.
    file_count = "file.f_count|file.f_ref.refcnt",
    path_dentry = "path.dentry",
    dentry_name = "dentry.d_name.name",
    dentry_inode = "dentry.d_inode",
    inode_mode = "inode.i_mode",
    inode_ino = "inode.i_ino",
    inode_sb = "inode.i_sb",
    sb_dev = "super_block.s_dev",
    socket_sk = "socket.sk",
    sock_family = "sock.__sk_common.skc_family",
    sock_num = "sock.__sk_common.skc_num",
    sock_dport = "sock.__sk_common.skc_dport",
    sock_rcv_saddr = "sock.__sk_common.skc_rcv_saddr",
    sock_daddr = "sock.__sk_common.skc_daddr",
    sock_v6_rcv_saddr = "sock.__sk_common.skc_v6_rcv_saddr",
    sock_v6_daddr = "sock.__sk_common.skc_v6_daddr",
    sock_net = "sock.__sk_common.skc_net.net",
    sock_type = "sock.sk_type",
    sock_protocol = "sock.sk_protocol",
    net_inum = "net.ns.inum",
    tcp_mstamp = "tcp_sock.tcp_mstamp",
    tcp_rcv_nxt = "tcp_sock.rcv_nxt",
    tcp_copied_seq = "tcp_sock.copied_seq",
    msghdr_iter = "msghdr.msg_iter",
    // Before 5.14 one word held the iterator's type and its direction.
    iter_type = "iov_iter.iter_type|iov_iter.type",
    iter_offset = "iov_iter.iov_offset",
    iter_segments = "iov_iter.nr_segs",
    // Renamed in 6.4.
    iter_iov = "iov_iter.__iov|iov_iter.iov",
    // From 6.0.
    iter_ubuf = "iov_iter.ubuf",
    user_msghdr_iov = "user_msghdr.msg_iov",
    user_msghdr_iovlen = "user_msghdr.msg_iovlen",
    mmsghdr_len = "mmsghdr.msg_len",
    upid_size = "upid#",
    // Of x86-64 only.
    regs_orig_ax = "pt_regs.orig_ax",
    regs_si = "pt_regs.si",
    regs_dx = "pt_regs.dx",
}

wire! {
    /// Facts of the running kernel that are not offsets.
    pub struct Facts [16] {
        /// The reference count of a `struct file` that has one reference left.
        pub file_last: u32,
        /// What to keep of the iterator's type: before 5.14 its lowest bit is the direction.
        pub iter_mask: u32,
        /// `ITER_IOVEC`
        pub iter_iovec: u32,
        /// `ITER_UBUF`, or [`ABSENT`]
        pub iter_ubuf: u32,
    }
}

impl Facts {
    /// Nothing known.
    pub const NONE: Facts = Facts { file_last: ABSENT, iter_mask: 0, iter_iovec: ABSENT, iter_ubuf: ABSENT };
}

/// The longest prefix that is copied of one read, in bytes.
pub const RECEIVE_CAP: usize = 16_384;
/// The longest prefix that is copied of one write, in bytes.
pub const SEND_CAP: usize = 4_096;
/// The longest prefix that is copied of one call where all bytes are wanted, in bytes: as much as a client of HTTP/2 may have
/// under way unless its server allows more, with what is around it, twice.
pub const WHOLE_CAP: usize = 131_072;
/// The longest piece of a program's arguments and environment in one record, in bytes.
pub const PROGRAM_PIECE: usize = 16_384;
/// How many such pieces are copied; what lies beyond is not seen.
pub const PROGRAM_PIECES: u32 = 8;
/// How many buffers of one vectored call are followed; what lies beyond is counted, not copied.
pub const SEGMENTS: usize = 8;
/// A worker's heartbeat is reported at most this often, in nanoseconds: a sync worker beats at every request.
pub const BEAT_INTERVAL: u64 = 100_000_000;
