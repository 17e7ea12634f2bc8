//! Sampled page faults: one ring record each.
//!
//! A record is a [`FaultHeader`], then `frames` user addresses (u64 each, innermost first). Where the
//! target wants a copy of its stack, it is a whole [`FaultRecord`] instead, of which `stack_bytes` are good.

/// User frames that travel with a sample.
pub const MAX_FRAMES: usize = 127;
/// Bytes of stack that can travel with a sample.
pub const MAX_STACK_BYTES: usize = 8192;
/// The stack is copied in steps of this, until one fails.
pub const STACK_STEP: usize = 1024;

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
    pub padding: u32,
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
const _: () = assert!(size_of::<FaultRecord>() == 72 + 127 * 8 + 8192);

crate::plain_data!(FaultHeader);
