//! One record a thread, written by the task iterator into its seq file, read by user space in one go.

/// Bytes of stack that travel with a record, from the stack pointer up.
pub const STACK_TOP_BYTES: usize = 64;

/// One thread of the target at the moment the iterator visited it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ThreadRecord {
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// Thread group id in the initial PID namespace.
    pub tgid: u32,
    /// Syscall number from the saved user registers, or all ones outside a syscall.
    pub syscall: u64,
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
}

const _: () = assert!(size_of::<ThreadRecord>() == 40);
