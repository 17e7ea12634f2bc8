//! What happens to targets as processes: one ring record each.

/// The target runs another program now; its maps and symbols are no longer what they were.
pub const EXEC: u32 = 1;
/// The last thread of the target has ended; `detail` is its wait status.
pub const EXIT: u32 = 2;
/// The target has a child process; `detail` is its global tgid.
pub const FORK: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Monotonic nanoseconds.
    pub time: u64,
    pub kind: u32,
    pub global_tgid: u32,
    pub slot: u32,
    pub detail: u32,
}

const _: () = assert!(size_of::<Event>() == 24);

crate::plain_data!(Event);
