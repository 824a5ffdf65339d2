//! Globals the loader sets before load: structure offsets and limits.
use crate::wire;

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

wire! {
    /// Byte offsets of kernel structure fields, read from the running kernel's BTF.
    pub struct Offsets [152] {
        /// `task_struct.tgid`
        pub task_tgid: u32,
        /// `task_struct.pid`
        pub task_pid: u32,
        /// `task_struct.group_leader`
        pub task_group_leader: u32,
        /// `task_struct.start_boottime`
        pub task_start_boottime: u32,
        /// `task_struct.mm`
        pub task_mm: u32,
        /// `task_struct.signal`
        pub task_signal: u32,
        /// `task_struct.exit_code`
        pub task_exit_code: u32,
        /// `task_struct.thread_pid`
        pub task_thread_pid: u32,
        /// `task_struct.files`
        pub task_files: u32,
        /// `signal_struct.live`
        pub signal_live: u32,
        /// `signal_struct.group_exit_code`
        pub signal_group_exit_code: u32,
        /// `pid.level`
        pub pid_level: u32,
        /// `pid.numbers`
        pub pid_numbers: u32,
        /// Size of `struct upid`
        pub upid_size: u32,
        /// `files_struct.fdt`
        pub files_fdt: u32,
        /// `fdtable.fd`
        pub fdtable_fd: u32,
        /// `fdtable.max_fds`
        pub fdtable_max_fds: u32,
        /// `file.f_inode`
        pub file_inode: u32,
        /// `file.private_data`
        pub file_private_data: u32,
        /// `file.f_path.dentry`
        pub file_dentry: u32,
        /// The reference count of `struct file`: `f_count`, or `f_ref.refcnt` from 6.13
        pub file_count: u32,
        /// Its value when one reference is left: 1 for `f_count`, 0 for `f_ref`
        pub file_count_last: u32,
        /// `path.dentry`
        pub path_dentry: u32,
        /// `dentry.d_name.name`
        pub dentry_name: u32,
        /// `dentry.d_inode`
        pub dentry_inode: u32,
        /// `inode.i_mode`
        pub inode_mode: u32,
        /// `inode.i_ino`
        pub inode_ino: u32,
        /// `inode.i_sb`
        pub inode_sb: u32,
        /// `super_block.s_dev`
        pub sb_dev: u32,
        /// `socket.sk`
        pub socket_sk: u32,
        /// `sock_common.skc_family`
        pub sock_family: u32,
        /// `sock_common.skc_num` (local port, host order)
        pub sock_num: u32,
        /// `sock_common.skc_dport` (network order)
        pub sock_dport: u32,
        /// `sock_common.skc_rcv_saddr`; the peer's `skc_daddr` stands 4 bytes before
        pub sock_rcv_saddr: u32,
        /// `sock_common.skc_daddr`
        pub sock_daddr: u32,
        /// `sock_common.skc_v6_rcv_saddr`
        pub sock_v6_rcv_saddr: u32,
        /// `sock_common.skc_v6_daddr`
        pub sock_v6_daddr: u32,
        /// `sock_common.skc_net`
        pub sock_net: u32,
    }
}

impl Offsets {
    /// Every offset absent.
    pub const NONE: Offsets = Offsets {
        task_tgid: ABSENT,
        task_pid: ABSENT,
        task_group_leader: ABSENT,
        task_start_boottime: ABSENT,
        task_mm: ABSENT,
        task_signal: ABSENT,
        task_exit_code: ABSENT,
        task_thread_pid: ABSENT,
        task_files: ABSENT,
        signal_live: ABSENT,
        signal_group_exit_code: ABSENT,
        pid_level: ABSENT,
        pid_numbers: ABSENT,
        upid_size: ABSENT,
        files_fdt: ABSENT,
        fdtable_fd: ABSENT,
        fdtable_max_fds: ABSENT,
        file_inode: ABSENT,
        file_private_data: ABSENT,
        file_dentry: ABSENT,
        file_count: ABSENT,
        file_count_last: ABSENT,
        path_dentry: ABSENT,
        dentry_name: ABSENT,
        dentry_inode: ABSENT,
        inode_mode: ABSENT,
        inode_ino: ABSENT,
        inode_sb: ABSENT,
        sb_dev: ABSENT,
        socket_sk: ABSENT,
        sock_family: ABSENT,
        sock_num: ABSENT,
        sock_dport: ABSENT,
        sock_rcv_saddr: ABSENT,
        sock_daddr: ABSENT,
        sock_v6_rcv_saddr: ABSENT,
        sock_v6_daddr: ABSENT,
        sock_net: ABSENT,
    };
}
