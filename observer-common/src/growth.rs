//! Sampled page faults: one ring record each.
//!
//! A record is a [`FaultHeader`], then `frames` user addresses (u64 each, innermost first). Where the
//! target wants a copy of its stack, it is a [`FaultRecord`] up to the end of the `stack_bytes` that were copied.
//! Between the faults stand the moves of mappings, each a header alone.

/// User frames that travel with a sample.
pub const MAX_FRAMES: usize = 127;
/// Bytes of stack that travel with a sample where it is copied: most stacks are not so deep.
pub const STACK_BYTES: usize = 8192;
/// The same for targets whose stacks are.
pub const MAX_STACK_BYTES: usize = 16384;

/// `kind`: a fault.
pub const FAULT: u32 = 0;
/// `kind`: the kernel is about to move a mapping (`mremap`) of `sp` bytes from `ip` to `address`, where it
/// has room for `bp`.
pub const MOVED: u32 = 1;

/// A fault that was sampled.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FaultHeader {
    /// Monotonic nanoseconds.
    pub time: u64,
    /// What was touched.
    pub address: u64,
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// Faults that this sample stands for.
    pub weight: u64,
    pub global_tgid: u32,
    pub global_tid: u32,
    /// Of the target.
    pub slot: u32,
    pub frames: u32,
    pub stack_bytes: u32,
    pub kind: u32,
}

/// The largest record.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FaultRecord {
    pub header: FaultHeader,
    pub frames: [u64; MAX_FRAMES],
    pub stack: [u8; MAX_STACK_BYTES],
}

const _: () = assert!(size_of::<FaultHeader>() == 72);
const _: () = assert!(size_of::<FaultRecord>() == 72 + 127 * 8 + 16384);

crate::plain_data!(FaultHeader);
