//! Census: a sleepable iterator over the threads of a target. Reads the registers and switches of each; costs the
//! target nothing between visits.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_seq_write, bpf_task_pt_regs};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use observer_common::census::{Request, ThreadRecord};

use crate::layout::{offset, read};
use crate::registers::Registers;

#[repr(C)]
pub struct IterMeta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

#[repr(C)]
pub struct TaskIterContext {
    meta: *mut IterMeta,
    pub task: *mut c_void,
}

#[map]
static CENSUS_REQUEST: Array<Request> = Array::with_max_entries(1, 0);
/// Where a record is put together: with the registers beside it too large for the BPF stack. One census runs at a time.
#[map]
static CENSUS_SCRATCH: Array<ThreadRecord> = Array::with_max_entries(1, 0);

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
pub extern "C" fn census(ctx: *mut TaskIterContext) -> i32 {
    // SAFETY: the kernel passes a valid context; `task` may be null and is checked.
    let (task, seq) = unsafe { ((*ctx).task, (*(*ctx).meta).seq) };
    if !task.is_null()
        && let Some(request) = CENSUS_REQUEST.get(0)
        && let Some(record) = CENSUS_SCRATCH.get_ptr_mut(0)
    {
        // SAFETY: a map value, used by one program at a time: user space runs one census after the other.
        visit(task, seq, request, unsafe { &mut *record });
    }
    0
}

#[inline(always)]
fn visit(task: *mut c_void, seq: *mut c_void, request: &Request, record: &mut ThreadRecord) {
    let tgid: u32 = read(task, offset!(task_tgid));
    if request.global_tgid != 0 && tgid != request.global_tgid {
        return;
    }
    let tid: u32 = read(task, offset!(task_pid));
    let leaders_only = request.leaders_only != 0;
    if leaders_only && tid != tgid {
        return;
    }
    record.global_tid = tid;
    record.global_tgid = tgid;
    (record.tid, record.namespace_tid) = namespace_tids(task);
    record.state = read(task, offset!(task_state));
    record.comm = read(task, offset!(task_comm));
    record.started = read(task, offset!(task_start_boottime));
    record.voluntary_switches = read(task, offset!(task_nvcsw));

    // SAFETY: `task` is the iterator's own task pointer.
    let regs = unsafe { bpf_task_pt_regs(task.cast()) } as *const c_void;
    let registers = Registers::read(regs);
    record.syscall = registers.syscall;
    record.arguments = registers.arguments();
    record.ip = registers.ip();
    record.sp = registers.sp();
    record.bp = registers.bp();
    record.lr = registers.lr();

    // SAFETY: the helper copies the record, which has no padding; what does not fit is visited again.
    unsafe {
        bpf_seq_write(seq.cast(), core::ptr::from_ref(record).cast(), size_of::<ThreadRecord>() as u32)
    };
}

/// The thread's id in the reader's PID namespace, and in its own.
///
/// The iterator shows only what lies in the reader's namespace, so the number at the reader's level is the
/// one the reader knows the thread by.
#[inline(always)]
fn namespace_tids(task: *const c_void) -> (u32, u32) {
    // SAFETY: current is the process that reads the iterator.
    let reader = unsafe { bpf_get_current_task_btf() }.cast_const().cast();
    let reader_pid: *const c_void = pointer(reader, offset!(task_thread_pid));
    let level: u32 = read(reader_pid, offset!(pid_level));
    let pid = pointer(task, offset!(task_thread_pid));
    let own_level: u32 = read(pid, offset!(pid_level));
    let number = |level: u32| read::<u32>(pid, offset!(pid_numbers) + level as usize * offset!(upid_size));
    (number(level), number(own_level))
}

#[inline(always)]
fn pointer(base: *const c_void, offset: usize) -> *const c_void {
    read::<usize>(base, offset) as *const c_void
}
