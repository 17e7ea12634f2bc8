//! Reads fields of kernel structs at the offsets that user space took from the running kernel's BTF.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use observer_common::layout::Layout;

/// Filled in by the loader before the programs are verified; constant from then on.
#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout {
    task_pid: 0,
    task_tgid: 0,
    task_state: 0,
    task_thread_pid: 0,
    task_nvcsw: 0,
    task_nivcsw: 0,
    task_start_boottime: 0,
    task_comm: 0,
    task_pending: 0,
    task_blocked: 0,
    task_jobctl: 0,
    signal_pending: 0,
    task_signal: 0,
    signal_live: 0,
    task_exit_code: 0,
    pid_level: 0,
    pid_numbers: 0,
    upid_size: 0,
    regs_syscall: 0,
    switch_has_state: 0,
};

/// The offset of a field.
macro_rules! offset {
    ($field:ident) => {
        $crate::layout::at(&$crate::layout::LAYOUT.$field)
    };
}
pub(crate) use offset;

/// Reads an offset so that the compiler does not take the zero above for its value.
#[inline(always)]
pub fn at(field: &u32) -> usize {
    // SAFETY: a reference to plain data.
    unsafe { core::ptr::read_volatile(field) as usize }
}

/// Loads a kernel value that the verifier knows the type of (an argument of a BTF tracepoint, a task): one
/// instruction, which the kernel guards against bad addresses.
///
/// # Safety
///
/// The verifier must accept `base`; what is read there can be anything.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const c_void, offset: usize) -> T {
    // SAFETY: the verifier only lets such loads pass.
    unsafe { base.cast::<u8>().wrapping_add(offset).cast::<T>().read_volatile() }
}

/// Reads a kernel value through the probing helper; all zero bits where it cannot be read.
#[inline(always)]
pub fn read<T: Copy>(base: *const c_void, offset: usize) -> T {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the source and writes exactly `size_of::<T>()` bytes; every caller reads
    // integers or pointers, for which zero is a value.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            base.cast::<u8>().wrapping_add(offset).cast(),
        );
        value.assume_init()
    }
}
