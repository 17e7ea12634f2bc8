//! States of a goroutine (`g.atomicstatus`, the same numbers since Go 1.17; 10 and 11 since 1.26).

pub(crate) const RUNNABLE: u32 = 1;
pub(crate) const RUNNING: u32 = 2;
pub(crate) const SYSCALL: u32 = 3;
pub(crate) const WAITING: u32 = 4;
pub(crate) const DEAD: u32 = 6;
pub(crate) const COPYSTACK: u32 = 8;
pub(crate) const PREEMPTED: u32 = 9;
pub(crate) const LEAKED: u32 = 10;
pub(crate) const DEAD_EXTRA: u32 = 11;
pub(crate) const LAST: u32 = DEAD_EXTRA;
/// Set while the garbage collector looks at the stack.
pub(crate) const SCAN: u32 = 0x1000;

/// Not counted as a goroutine: unused, or kept for a C thread's next call into Go.
pub(crate) fn is_dead(status: u32) -> bool {
    matches!(status, 0 | DEAD | DEAD_EXTRA)
}

/// As the runtime's dump calls it where there is no wait reason.
pub(crate) fn name(status: u32) -> &'static str {
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
pub(crate) fn has_readable_stack(status: u32) -> bool {
    matches!(status, RUNNABLE | SYSCALL | WAITING | PREEMPTED | LEAKED)
}
