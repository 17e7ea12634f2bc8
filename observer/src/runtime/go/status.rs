//! States of a goroutine (`g.atomicstatus`, the same numbers since Go 1.17; 10 and 11 since 1.26).

pub const RUNNABLE: u32 = 1;
pub const RUNNING: u32 = 2;
pub const SYSCALL: u32 = 3;
pub const WAITING: u32 = 4;
pub const DEAD: u32 = 6;
pub const COPYSTACK: u32 = 8;
pub const PREEMPTED: u32 = 9;
pub const LEAKED: u32 = 10;
pub const DEAD_EXTRA: u32 = 11;
pub const LAST: u32 = DEAD_EXTRA;
/// Set while the garbage collector looks at the stack.
pub const SCAN: u32 = 0x1000;

/// Not counted as a goroutine: unused, or kept for a C thread's next call into Go.
pub fn is_dead(status: u32) -> bool {
    matches!(status, 0 | DEAD | DEAD_EXTRA)
}

/// As the runtime's dump calls it where there is no wait reason.
pub fn name(status: u32) -> &'static str {
    match status {
        RUNNABLE => "runnable",
        RUNNING => "running",
        SYSCALL => "syscall",
        WAITING => "waiting",
        COPYSTACK => "copystack",
        PREEMPTED => "preempted",
        LEAKED => "leaked",
        _ => "dead",
    }
}

/// Whether the stack stands still and the saved registers describe it.
pub fn has_readable_stack(status: u32) -> bool {
    matches!(status, RUNNABLE | SYSCALL | WAITING | PREEMPTED | LEAKED)
}
