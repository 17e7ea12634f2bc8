//! Numbers of the system calls that the programs know, by architecture.

#[cfg(any(bpf_target_arch = "x86_64", all(not(target_arch = "bpf"), target_arch = "x86_64")))]
mod numbers {
    pub const MMAP: i64 = 9;
    pub const MPROTECT: i64 = 10;
    pub const MUNMAP: i64 = 11;
    pub const BRK: i64 = 12;
    pub const MREMAP: i64 = 25;
    pub const MADVISE: i64 = 28;
    pub const FUTEX: i64 = 202;
    pub const RESTART_SYSCALL: i64 = 219;
}

#[cfg(any(bpf_target_arch = "aarch64", all(not(target_arch = "bpf"), target_arch = "aarch64")))]
mod numbers {
    pub const MMAP: i64 = 222;
    pub const MPROTECT: i64 = 226;
    pub const MUNMAP: i64 = 215;
    pub const BRK: i64 = 214;
    pub const MREMAP: i64 = 216;
    pub const MADVISE: i64 = 233;
    pub const FUTEX: i64 = 98;
    pub const RESTART_SYSCALL: i64 = 128;
}

pub use numbers::*;

/// The same on every architecture.
pub const FUTEX_WAITV: i64 = 449;
pub const FUTEX_WAIT: i64 = 455;

/// Whether a thread that sleeps in this call waits on a futex.
#[inline(always)]
pub const fn waits_on_futex(number: i64) -> bool {
    number == FUTEX || number == FUTEX_WAITV || number == FUTEX_WAIT
}
