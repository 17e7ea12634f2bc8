//! One record a thread, written by the task iterator into its seq file, read by user space in one go.
//!
//! A record is a [`ThreadHeader`], then `frames` return addresses (u64 each, innermost first, the
//! interrupted instruction not among them), then `stack_bytes` bytes of stack from the stack pointer up.

/// Return addresses that travel with a record.
pub const MAX_FRAMES: usize = 64;

/// Bytes of stack that can travel with a record; also the unit in which stacks are read.
pub const MAX_STACK_BYTES: usize = 4096;

/// A frame-pointer chain may not reach further up than this from the stack pointer.
pub const MAX_STACK_SPAN: u64 = 1 << 30;

/// The stack was not readable where a frame pointer pointed.
pub const FLAG_STACK_UNREADABLE: u32 = 1;
/// The chain goes on beyond `MAX_FRAMES`.
pub const FLAG_STACK_TRUNCATED: u32 = 2;

/// One thread at the moment the iterator visited it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ThreadHeader {
    /// Bytes of the whole record; also guards against reading out of step.
    pub size: u32,
    /// `FLAG_...` bits.
    pub flags: u32,
    /// Thread id in the PID namespace of whoever reads the iterator.
    pub tid: u32,
    /// Thread id in the target's own, innermost PID namespace.
    pub namespace_tid: u32,
    pub global_tid: u32,
    pub global_tgid: u32,
    /// `task_struct.__state`: 0 runs or could run, 1 sleeps, 2 sleeps uninterruptibly, 4 stopped, ...
    pub state: u32,
    /// `task_struct.flags` (`PF_...`).
    pub task_flags: u32,
    /// Return addresses that follow.
    pub frames: u32,
    /// Bytes of stack that follow the return addresses.
    pub stack_bytes: u32,
    pub comm: [u8; 16],
    /// Start of the thread, nanoseconds since boot.
    pub started: u64,
    /// CPU time used, nanoseconds.
    pub cpu_time: u64,
    /// Times it went to sleep by itself. Unchanged since the last census: it has not moved.
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
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
    /// Frames to walk, at most `MAX_FRAMES`.
    pub frames: u32,
    /// Stack bytes to copy, at most `MAX_STACK_BYTES`.
    pub stack_bytes: u32,
    /// 1: leaders only, no registers (who is there).
    pub leaders_only: u32,
}

const _: () = assert!(size_of::<ThreadHeader>() == 176);
const _: () = assert!(size_of::<Request>() == 16);

crate::plain_data!(ThreadHeader, Request);
