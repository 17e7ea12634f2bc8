//! Census: a sleepable iterator over the threads of a target. Reads registers, switches, frame-pointer
//! frames and the top of the stack of each; costs the target nothing between visits.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_copy_from_user_task, bpf_get_current_task_btf, bpf_seq_write, bpf_task_pt_regs,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use observer_common::census::{
    FLAG_STACK_TRUNCATED, FLAG_STACK_UNREADABLE, MAX_FRAMES, MAX_STACK_BYTES, MAX_STACK_SPAN, Request,
    ThreadHeader,
};
use observer_common::loss::Loss;

use crate::layout::{offset, read};
use crate::registers::Registers;
use crate::{bound, loss};

const PAGE: u64 = 4096;
/// A frame record: the caller's frame pointer and the return address.
const FRAME_BYTES: u64 = 16;

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

/// Where a record is put together: too large for the BPF stack. One census runs at a time.
#[repr(C)]
struct Scratch {
    header: ThreadHeader,
    frames: [u64; MAX_FRAMES],
    /// A part of the stack, from `window_start`.
    window: [u8; MAX_STACK_BYTES],
}

#[map]
static CENSUS_REQUEST: Array<Request> = Array::with_max_entries(1, 0);
#[map]
static CENSUS_SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
pub extern "C" fn census(ctx: *mut TaskIterContext) -> i32 {
    // SAFETY: the kernel passes a valid context; `task` may be null and is checked.
    let (task, seq) = unsafe { ((*ctx).task, (*(*ctx).meta).seq) };
    if !task.is_null()
        && let Some(request) = CENSUS_REQUEST.get(0)
        && let Some(scratch) = CENSUS_SCRATCH.get_ptr_mut(0)
    {
        // SAFETY: a map value, used by one program at a time: user space runs one census after the other.
        visit(task, seq, request, unsafe { &mut *scratch });
    }
    0
}

#[inline(always)]
fn visit(task: *mut c_void, seq: *mut c_void, request: &Request, scratch: &mut Scratch) {
    let tgid: u32 = read(task, offset!(task_tgid));
    if request.global_tgid != 0 && tgid != request.global_tgid {
        return;
    }
    let tid: u32 = read(task, offset!(task_pid));
    let leaders_only = request.leaders_only != 0;
    if leaders_only && tid != tgid {
        return;
    }
    let header = &mut scratch.header;
    header.flags = 0;
    header.global_tid = tid;
    header.global_tgid = tgid;
    (header.tid, header.namespace_tid) = namespace_tids(task);
    header.state = read(task, offset!(task_state));
    header.task_flags = read(task, offset!(task_flags));
    header.frames = 0;
    header.stack_bytes = 0;
    header.comm = read(task, offset!(task_comm));
    header.started = read(task, offset!(task_start_boottime));
    header.cpu_time = read(task, offset!(task_cpu_time));
    header.voluntary_switches = read(task, offset!(task_nvcsw));
    header.involuntary_switches = read(task, offset!(task_nivcsw));

    // SAFETY: `task` is the iterator's own task pointer.
    let regs = unsafe { bpf_task_pt_regs(task.cast()) } as *const c_void;
    let registers = Registers::read(regs);
    header.syscall = registers.syscall;
    header.arguments = registers.arguments();
    header.ip = registers.ip();
    header.sp = registers.sp();
    header.bp = registers.bp();
    header.lr = registers.lr();

    let mut stack_bytes = 0;
    // A thread that runs has other registers by now than the saved ones.
    if header.state != 0 && !leaders_only {
        if request.frames != 0 {
            walk(task, request, scratch);
        }
        if request.stack_bytes != 0 {
            let start = scratch.header.sp;
            stack_bytes = load_window(task, scratch, start, u64::from(request.stack_bytes));
        }
    }
    let header = &mut scratch.header;
    header.stack_bytes = stack_bytes;
    let mut frames = header.frames as usize;
    if frames > MAX_FRAMES {
        frames = MAX_FRAMES;
    }
    let fixed = (size_of::<ThreadHeader>() + frames * 8) as u32;
    header.size = fixed + stack_bytes;
    // SAFETY: header and frames adjoin in `Scratch`, the window holds `stack_bytes`; when the second write
    // does not fit the kernel drops the first one too and visits this task again.
    unsafe {
        bpf_seq_write(seq.cast(), (&raw const scratch.header).cast(), fixed);
        if stack_bytes != 0 && stack_bytes as usize <= MAX_STACK_BYTES {
            bpf_seq_write(seq.cast(), scratch.window.as_ptr().cast(), stack_bytes);
        }
    }
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

/// Follows the frame pointers up the stack as long as they rise.
#[inline(always)]
fn walk(task: *mut c_void, request: &Request, scratch: &mut Scratch) {
    let sp = scratch.header.sp;
    let mut frame = scratch.header.bp;
    let mut window_start = 0u64;
    let mut window_bytes = 0u64;
    let mut count = 0usize;
    let limit = request.frames;
    for _ in 0..=MAX_FRAMES {
        if frame < sp || frame & 7 != 0 || frame - sp > MAX_STACK_SPAN {
            break;
        }
        if count >= MAX_FRAMES || count as u32 >= limit {
            scratch.header.flags |= FLAG_STACK_TRUNCATED;
            loss::count(Loss::CensusStackTruncated);
            break;
        }
        if frame < window_start || frame + FRAME_BYTES > window_start + window_bytes {
            window_bytes = u64::from(load_window(task, scratch, frame, 1024));
            if window_bytes < FRAME_BYTES {
                scratch.header.flags |= FLAG_STACK_UNREADABLE;
                loss::count(Loss::CensusStackUnreadable);
                break;
            }
            window_start = frame;
        }
        let place = (frame - window_start) as usize;
        if place > MAX_STACK_BYTES - FRAME_BYTES as usize {
            break;
        }
        // SAFETY: `place` was just checked against the window's end.
        let (next, address) = unsafe {
            let record = scratch.window.as_ptr().add(place).cast::<u64>();
            (record.read(), record.add(1).read())
        };
        if address == 0 {
            break;
        }
        scratch.frames[count] = address;
        count += 1;
        if next <= frame {
            break;
        }
        frame = next;
    }
    scratch.header.frames = count as u32;
}

/// Reads the stack from `start`, at most to the end of its page, so that it is read whole or not at all;
/// a frame that straddles two pages is read alone. The bytes read.
#[inline(always)]
fn load_window(task: *mut c_void, scratch: &mut Scratch, start: u64, wanted: u64) -> u32 {
    let mut bytes = PAGE - start % PAGE;
    if bytes < FRAME_BYTES {
        bytes = FRAME_BYTES;
    }
    if bytes > wanted {
        bytes = wanted;
    }
    let bytes = bound::unknown(bytes);
    if bytes > MAX_STACK_BYTES as u64 {
        return 0;
    }
    // SAFETY: the helper checks the source; the window holds `bytes`.
    let failed = unsafe {
        bpf_copy_from_user_task(
            scratch.window.as_mut_ptr().cast(),
            bytes as u32,
            start as *const c_void,
            task.cast(),
            0,
        )
    };
    if failed == 0 { bytes as u32 } else { 0 }
}
