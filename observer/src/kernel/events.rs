//! What the kernel half puts by, as user space reads it: page faults, allocations, lifecycle.

/// One page fault of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Of the target, in our PID namespace.
    pub pid: u32,
    /// Thread id in the initial PID namespace.
    pub global_tid: u32,
    /// Monotonic nanoseconds.
    pub time: u64,
    /// What was touched for the first time.
    pub address: u64,
    /// User registers, also where the kernel touched the page on the thread's behalf.
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// Faults that this one stands for.
    pub weight: u64,
    /// By frame pointers, innermost first: the interrupted instruction, then return addresses.
    pub frames: Vec<u64>,
    /// Stack from `sp` up, where the target is set to have it copied.
    pub stack: Vec<u8>,
    /// No fault: so many bytes of mapping move from an address to `address`, and only `pid` and `time` say more.
    pub moved: Option<Moved>,
}

/// A mapping on its way to another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub from: u64,
    pub bytes: u64,
    /// What it is to have there.
    pub room: u64,
}

/// A sampled allocation of a target, or one that was freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocation {
    Made(Made),
    Freed { pid: u32, address: u64, born: u64 },
}

impl Allocation {
    /// Of the target, in our PID namespace.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Made(made) => made.pid,
            Self::Freed { pid, .. } => *pid,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Of the target, in our PID namespace.
    pub pid: u32,
    /// Thread id in the initial PID namespace.
    pub global_tid: u32,
    /// Monotonic nanoseconds; with the address the name of the block.
    pub time: u64,
    pub address: u64,
    /// As asked for.
    pub size: u64,
    /// Mean bytes to a sample when it was drawn.
    pub period: u64,
    /// Of the caller: its return address, and its stack from there up.
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    pub stack: Vec<u8>,
}

/// What happened to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It runs another program: maps and symbols are no longer what they were.
    Exec,
    /// Its last thread ended; the status is as `wait(2)` gives it.
    Exit { status: u32 },
    /// It has a child process, by its pid in the initial namespace. The child is no target by that.
    Fork { child_global_tgid: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifecycleEvent {
    /// Of the target, in our PID namespace.
    pub pid: u32,
    /// Monotonic nanoseconds.
    pub time: u64,
    pub change: Change,
}
