//! One record a thread, written by the task iterator into its seq file, read by user space in one go.

/// One thread at the moment the iterator visited it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ThreadRecord {
    /// Thread id in the PID namespace of whoever reads the iterator.
    pub tid: u32,
    /// Thread id in the target's own, innermost PID namespace.
    pub namespace_tid: u32,
    pub global_tid: u32,
    pub global_tgid: u32,
    /// `task_struct.__state`: 0 runs or could run, 1 sleeps, 2 sleeps uninterruptibly, 4 stopped, ...
    pub state: u32,
    pub padding: u32,
    pub comm: [u8; 16],
    /// Start of the thread, nanoseconds since boot.
    pub started: u64,
    /// Times it went to sleep by itself. Unchanged since the last census: it has not moved.
    pub voluntary_switches: u64,
    /// Syscall number from the saved user registers; negative outside a syscall.
    pub syscall: i64,
    pub arguments: [u64; 6],
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// The link register, where the architecture has one.
    pub lr: u64,
}

/// What the next read of the iterator shall do. One census runs at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Visit only threads of this global tgid; 0: all that the iterator comes by.
    pub global_tgid: u32,
    /// 1: leaders only, no registers (who is there).
    pub leaders_only: u32,
}

const _: () = assert!(size_of::<ThreadRecord>() == 144);
const _: () = assert!(size_of::<Request>() == 8);

crate::plain_data!(ThreadRecord, Request);
