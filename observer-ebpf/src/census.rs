//! Census: visits every thread of the target, costs nothing between visits.

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_seq_write, bpf_task_pt_regs};
use observer_common::census::ThreadRecord;

#[repr(C)]
pub struct IterMeta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

#[repr(C)]
pub struct TaskIterContext {
    meta: *mut IterMeta,
    task: *mut c_void,
}

#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;
#[unsafe(no_mangle)]
static TASK_TGID_OFFSET: u32 = 0;
#[unsafe(no_mangle)]
static TASK_PID_OFFSET: u32 = 0;

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
pub extern "C" fn census(ctx: *mut TaskIterContext) -> i32 {
    // SAFETY: the kernel passes a valid context; `task` is checked, all else goes through probing helpers.
    unsafe {
        let task = (*ctx).task;
        if task.is_null() {
            return 0;
        }
        let seq = (*(*ctx).meta).seq.cast();
        let mut tgid = 0u32;
        let mut tid = 0u32;
        let base = task.cast::<u8>();
        bpf_probe_read_kernel(
            (&raw mut tgid).cast(),
            4,
            base.add(read_volatile(&raw const TASK_TGID_OFFSET) as usize).cast(),
        );
        if tgid != read_volatile(&raw const TARGET_TGID) {
            return 0;
        }
        bpf_probe_read_kernel(
            (&raw mut tid).cast(),
            4,
            base.add(read_volatile(&raw const TASK_PID_OFFSET) as usize).cast(),
        );
        let regs = bpf_task_pt_regs(task.cast()) as *const c_void;
        if regs.is_null() {
            return 0;
        }
        let mut words = [0u64; 21];
        bpf_probe_read_kernel(words.as_mut_ptr().cast(), 168, regs);
        let record =
            ThreadRecord { tid, tgid, syscall: words[15], ip: words[16], sp: words[19], bp: words[4] };
        bpf_seq_write(seq, (&raw const record).cast(), size_of::<ThreadRecord>() as u32);
        0
    }
}
