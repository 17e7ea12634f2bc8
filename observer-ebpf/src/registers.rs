//! The saved user registers of a task. Their places are user ABI (`struct user_regs_struct`, `user_pt_regs`)
//! but for the syscall number's, which comes from BTF.

use core::ffi::c_void;

use crate::layout::{load, offset, read};

/// The words of `pt_regs` that are ABI.
#[cfg(bpf_target_arch = "x86_64")]
const WORDS: usize = 21;
#[cfg(bpf_target_arch = "x86_64")]
const SP_WORD: usize = 19;
#[cfg(bpf_target_arch = "aarch64")]
const WORDS: usize = 34;
#[cfg(bpf_target_arch = "aarch64")]
const SP_WORD: usize = 31;

#[derive(Clone, Copy)]
pub struct Registers {
    words: [u64; WORDS],
    pub syscall: i64,
}

impl Registers {
    /// Reads them from a `pt_regs` pointer, which may be null.
    #[inline(always)]
    pub fn read(regs: *const c_void) -> Self {
        Self { words: read(regs, 0), syscall: syscall(regs) }
    }
}

/// The syscall that a thread entered the kernel by; negative when it came otherwise.
#[inline(always)]
#[cfg(bpf_target_arch = "x86_64")]
pub fn syscall(regs: *const c_void) -> i64 {
    read(regs, offset!(regs_syscall))
}

/// The syscall that a thread entered the kernel by; negative when it came otherwise.
#[inline(always)]
#[cfg(bpf_target_arch = "aarch64")]
pub fn syscall(regs: *const c_void) -> i64 {
    i64::from(read::<i32>(regs, offset!(regs_syscall)))
}

/// As [`syscall`], from a pointer that the verifier knows as `pt_regs`.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
pub unsafe fn load_syscall(regs: *const c_void) -> i64 {
    // SAFETY: as the caller says.
    unsafe {
        if cfg!(bpf_target_arch = "x86_64") {
            load(regs, offset!(regs_syscall))
        } else {
            i64::from(load::<i32>(regs, offset!(regs_syscall)))
        }
    }
}

/// The user stack pointer, from a pointer that the verifier knows as `pt_regs`.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
pub unsafe fn load_sp(regs: *const c_void) -> u64 {
    // SAFETY: as the caller says.
    unsafe { load(regs, 8 * SP_WORD) }
}

#[cfg(bpf_target_arch = "x86_64")]
impl Registers {
    pub fn arguments(&self) -> [u64; 6] {
        let w = &self.words;
        [w[14], w[13], w[12], w[7], w[9], w[8]]
    }
    pub fn ip(&self) -> u64 {
        self.words[16]
    }
    pub fn sp(&self) -> u64 {
        self.words[SP_WORD]
    }
    pub fn bp(&self) -> u64 {
        self.words[4]
    }
    pub fn lr(&self) -> u64 {
        0
    }
}

#[cfg(bpf_target_arch = "aarch64")]
impl Registers {
    /// The first argument is lost to the result where the syscall has returned; a sleeper's is still there.
    pub fn arguments(&self) -> [u64; 6] {
        let w = &self.words;
        [w[0], w[1], w[2], w[3], w[4], w[5]]
    }
    pub fn ip(&self) -> u64 {
        self.words[32]
    }
    pub fn sp(&self) -> u64 {
        self.words[SP_WORD]
    }
    pub fn bp(&self) -> u64 {
        self.words[29]
    }
    pub fn lr(&self) -> u64 {
        self.words[30]
    }
}
