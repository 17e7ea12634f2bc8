//! Waits: at each context switch of a target, stamps the thread that goes to sleep in a futex call and adds
//! the time to a histogram when it comes back. No stacks, no events; other processes pay two looks at the table.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_task_pt_regs};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use observer_common::loss::Loss;
use observer_common::syscall::{RESTART_SYSCALL, waits_on_futex};
use observer_common::target::{MAX_TARGETS, Target};
use observer_common::waits::{BUCKETS, MAX_SLEEPERS, Sleep, Timing, WaitCounters};

use crate::census::TaskIterContext;
use crate::layout::{load, offset, read};
use crate::{loss, registers, target};

const TASK_INTERRUPTIBLE: u32 = 1;
const TASK_UNINTERRUPTIBLE: u32 = 2;

/// `JOBCTL_STOP_PENDING`, `JOBCTL_TRAP_STOP`, `JOBCTL_TRAP_NOTIFY`, `JOBCTL_TRAP_FREEZE`.
const JOBCTL_PENDING: u64 = 1 << 17 | 1 << 19 | 1 << 20 | 1 << 23;

#[map]
static WAITS: PerCpuArray<WaitCounters> = PerCpuArray::with_max_entries(MAX_TARGETS, 0);
#[map]
static WAITS_TIMING: Array<Timing> = Array::with_max_entries(1, 0);
/// Waits that were timed, of all targets: by them user space chooses how many are.
#[map]
static WAITS_TIMED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// When all threads were last looked at, or the program was detached: monotonic nanoseconds.
#[map]
static WAITS_LOOKED: Array<u64> = Array::with_max_entries(1, 0);
/// By the low bits of the global tid.
#[map]
static SLEEPS: Array<Sleep> = Array::with_max_entries(MAX_SLEEPERS, 0);

#[btf_tracepoint(function = "sched_switch")]
pub fn waits(ctx: BtfTracePointContext) -> i32 {
    let preempted: usize = ctx.arg(0);
    let previous: *const c_void = ctx.arg(1);
    let next: *const c_void = ctx.arg(2);
    // One clock for both.
    let mut now = 0;
    // SAFETY: both are task pointers that the verifier knows as such.
    unsafe {
        if preempted & 1 == 0
            && let Some(target) = target::find(load(previous, offset!(task_tgid)))
            && leaves_asleep(&ctx, previous)
        {
            falls_asleep(previous, target, &mut now);
        }
        if let Some(target) = target::find(load(next, offset!(task_tgid))) {
            wakes(next, target, &mut now);
        }
    }
    0
}

/// What is noted of a thread. Only the CPU that it runs on writes it, unless two threads share the place.
#[inline(always)]
fn place(tid: u32) -> Option<*mut Sleep> {
    SLEEPS.get_ptr_mut(tid % MAX_SLEEPERS)
}

/// The thread that runs is about to be gone, or its program is.
#[inline(always)]
pub fn forget(target: Target, tid: u32) {
    if let Some(sleep) = place(tid) {
        // SAFETY: an element of the array.
        unsafe {
            if (*sleep).owner == target.owner(tid) {
                if (*sleep).since != 0 {
                    settle(sleep, target);
                }
                (*sleep).owner = 0;
            }
        }
    }
}

/// A wait that ended while nothing was attached: some time since all threads were last looked at. One that a signal
/// ended is no wait that ended.
#[inline(always)]
unsafe fn settle(sleep: *mut Sleep, target: Target) {
    // SAFETY: an element of the array, as the caller says; the helpers have no preconditions.
    unsafe {
        let since = (*sleep).since;
        (*sleep).since = 0;
        if (*sleep).interrupted_at != 0 {
            (*sleep).interrupted_at = 0;
            return;
        }
        let looked = WAITS_LOOKED.get(0).copied().unwrap_or(0);
        let least = looked.saturating_sub(since);
        let most = bpf_ktime_get_ns().saturating_sub(since);
        // In units of 65 µs, so that the product fits.
        let units = most.saturating_sub(least) >> 16;
        let waited = least + units * u64::from(bpf_get_prandom_u32() >> 16);
        count(target.slot(), waited, (*sleep).weight);
    }
}

/// Looks at every thread of a target, between windows: which of the waits that are timed have ended.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn waits_look(ctx: *mut TaskIterContext) -> i32 {
    // SAFETY: the kernel passes a valid context; `task` may be null and is checked.
    let task: *const c_void = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    let tid: u32 = read(task, offset!(task_pid));
    if let Some(target) = target::find(read(task, offset!(task_tgid)))
        && let Some(sleep) = place(tid)
    {
        let switches = read::<u64>(task, offset!(task_nvcsw)).wrapping_add(read(task, offset!(task_nivcsw)));
        // SAFETY: an element of the array.
        unsafe {
            // One that runs, or is about to, has been woken.
            let ended = (*sleep).switches != switches || read::<u32>(task, offset!(task_state)) == 0;
            if (*sleep).owner == target.owner(tid) && (*sleep).since != 0 && ended {
                settle(sleep, target);
            }
        }
    }
    0
}

/// Whether the thread that leaves the CPU sleeps, and is not just stopped by a signal. Its own state field may already say that it was woken.
#[inline(always)]
unsafe fn leaves_asleep(ctx: &BtfTracePointContext, previous: *const c_void) -> bool {
    let state: u32 = if offset!(switch_has_state) != 0 {
        ctx.arg(3)
    } else {
        // SAFETY: as the caller says.
        unsafe { load(previous, offset!(task_state)) }
    };
    state & (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE) != 0
}

#[inline(always)]
unsafe fn falls_asleep(task: *const c_void, target: Target, now: &mut u64) {
    // SAFETY: a task pointer, as the caller says; the helper gives a pointer the verifier knows.
    let (tid, regs) = unsafe {
        (load::<u32>(task, offset!(task_pid)), bpf_task_pt_regs(task.cast_mut().cast()) as *const c_void)
    };
    // SAFETY: the same pointer.
    let syscall = unsafe { registers::load_syscall(regs) };
    if syscall != RESTART_SYSCALL && !waits_on_futex(syscall) {
        return;
    }
    let Some(sleep) = place(tid) else { return };
    let owner = target.owner(tid);
    // SAFETY: an element of the array, and the task and its registers as above.
    unsafe {
        let own = (*sleep).owner == owner && (*sleep).since != 0;
        if own && (*sleep).interrupted_at != 0 {
            let same = (*sleep).interrupted_at == registers::load_sp(regs);
            (*sleep).interrupted_at = 0;
            if same {
                // Goes on with what a signal interrupted.
                (*sleep).switches = switches(task);
                return;
            }
            (*sleep).since = 0;
        } else if own {
            settle(sleep, target);
        }
        if syscall == RESTART_SYSCALL {
            // Goes on with what a signal interrupted, which was not a wait that is timed.
            return;
        }
        let Some(timing) = WAITS_TIMING.get(0) else { return };
        if timing.mask != 0 && bpf_get_prandom_u32() & timing.mask != 0 {
            return;
        }
        *now = bpf_ktime_get_ns();
        if *now < timing.from || *now >= timing.until {
            return;
        }
        if (*sleep).owner != owner && (*sleep).since != 0 && target::is_registered((*sleep).owner) {
            loss::count(Loss::WaitsThreadsFull);
        }
        if let Some(timed) = WAITS_TIMED.get_ptr_mut(0) {
            *timed = (*timed).wrapping_add(1);
        }
        (*sleep).owner = owner;
        (*sleep).since = *now;
        (*sleep).switches = switches(task);
        (*sleep).interrupted_at = 0;
        (*sleep).weight = timing.weight;
    }
}

/// How often the thread has left a CPU.
#[inline(always)]
unsafe fn switches(task: *const c_void) -> u64 {
    // SAFETY: a task pointer, as the caller says.
    unsafe { load::<u64>(task, offset!(task_nvcsw)).wrapping_add(load::<u64>(task, offset!(task_nivcsw))) }
}

#[inline(always)]
unsafe fn wakes(task: *const c_void, target: Target, now: &mut u64) {
    // SAFETY: a task pointer, as the caller says.
    let tid: u32 = unsafe { load(task, offset!(task_pid)) };
    let Some(sleep) = place(tid) else { return };
    // SAFETY: an element of the array; the task and its registers as above.
    unsafe {
        let since = (*sleep).since;
        if since == 0 || (*sleep).owner != target.owner(tid) || (*sleep).interrupted_at != 0 {
            return;
        }
        if signal_pending(task) {
            let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const c_void;
            (*sleep).interrupted_at = registers::load_sp(regs);
            return;
        }
        if (*sleep).switches != switches(task) {
            settle(sleep, target);
            return;
        }
        (*sleep).since = 0;
        if *now == 0 {
            *now = bpf_ktime_get_ns();
        }
        count(target.slot(), now.saturating_sub(since), (*sleep).weight);
    }
}

/// Whether a signal or a stop woke the thread, as the kernel's `recalc_sigpending` decides it. (The bit it
/// keeps of this, `TIF_SIGPENDING`, has no name in BTF and is another one on x86 since 6.18.)
#[inline(always)]
unsafe fn signal_pending(task: *const c_void) -> bool {
    // SAFETY: a task pointer, as the caller says, and its `signal_struct`.
    unsafe {
        let signal: *const c_void = load(task, offset!(task_signal));
        let pending: u64 =
            load::<u64>(task, offset!(task_pending)) | load::<u64>(signal, offset!(signal_pending));
        if pending != 0 && pending & !load::<u64>(task, offset!(task_blocked)) != 0 {
            return true;
        }
        load::<u64>(task, offset!(task_jobctl)) & JOBCTL_PENDING != 0
    }
}

#[inline(always)]
fn count(slot: u32, nanoseconds: u64, weight: u32) {
    if let Some(counters) = WAITS.get_ptr_mut(slot) {
        let bucket = log2(microseconds(nanoseconds)) as usize;
        if bucket < BUCKETS {
            // SAFETY: this CPU's counters.
            unsafe {
                let counter = &raw mut (*counters).log2_microseconds[bucket];
                *counter = (*counter).wrapping_add(u64::from(weight));
            }
        }
    }
}

/// A thousandth; by multiplication where that fits, as a division takes longer than all else here.
#[inline(always)]
fn microseconds(nanoseconds: u64) -> u64 {
    // 2^32 / 1000, rounded up: too much by less than one part in six million.
    if nanoseconds < 1 << 41 { (nanoseconds * 4_294_968) >> 32 } else { nanoseconds / 1000 }
}

/// Rounded down, at most the last bucket; of 0: 0.
#[inline(always)]
fn log2(mut value: u64) -> u32 {
    let mut log = 0;
    let mut shift = 32;
    while shift != 0 {
        if value >> shift != 0 {
            value >>= shift;
            log += shift;
        }
        shift >>= 1;
    }
    if log >= BUCKETS as u32 { BUCKETS as u32 - 1 } else { log }
}
