//! Where the running kernel keeps what the programs read, resolved from its BTF before they are loaded.

/// Byte offsets into kernel structs. Rust eBPF has no CO-RE, so user space fills these in (`kernel/layout.rs`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `task_struct.pid`: the thread's global tid.
    pub task_pid: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.__state` (`state` before 5.14, whose low half is the same bits).
    pub task_state: u32,
    /// `task_struct.thread_pid`.
    pub task_thread_pid: u32,
    /// `task_struct.nvcsw`.
    pub task_nvcsw: u32,
    /// `task_struct.nivcsw`.
    pub task_nivcsw: u32,
    /// `task_struct.start_boottime`.
    pub task_start_boottime: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `task_struct.pending.signal.sig`.
    pub task_pending: u32,
    /// `task_struct.blocked.sig`.
    pub task_blocked: u32,
    /// `task_struct.jobctl`.
    pub task_jobctl: u32,
    /// `signal_struct.shared_pending.signal.sig`.
    pub signal_pending: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `signal_struct.live`.
    pub signal_live: u32,
    /// `task_struct.exit_code`.
    pub task_exit_code: u32,
    /// `pid.level`.
    pub pid_level: u32,
    /// `pid.numbers`.
    pub pid_numbers: u32,
    /// `sizeof(struct upid)`.
    pub upid_size: u32,
    /// `pt_regs.orig_ax` or `.syscallno`.
    pub regs_syscall: u32,
    /// 1: `sched_switch` says in its last argument what state the thread leaves in (Linux 5.18).
    pub switch_has_state: u32,
}

const _: () = assert!(size_of::<Layout>() == 80);

crate::plain_data!(Layout);
