//! Waits: at each context switch of a target, stamps the thread that goes to sleep in a futex call and adds
//! the time to a histogram when it comes back. No stacks, no events; other processes pay two tests of a bit.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_task_pt_regs};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use observer_common::loss::Loss;
use observer_common::syscall::{RESTART_SYSCALL, waits_on_futex};
use observer_common::target::MAX_TARGETS;
use observer_common::waits::{BUCKETS, MAX_SLEEPERS, Sleep, WaitCounters};

use crate::layout::{load, offset};
use crate::{loss, registers, target};

const TASK_INTERRUPTIBLE: u32 = 1;
const TASK_UNINTERRUPTIBLE: u32 = 2;

/// `JOBCTL_STOP_PENDING`, `JOBCTL_TRAP_STOP`, `JOBCTL_TRAP_NOTIFY`, `JOBCTL_TRAP_FREEZE`.
const JOBCTL_PENDING: u64 = 1 << 17 | 1 << 19 | 1 << 20 | 1 << 23;

#[map]
static WAITS: PerCpuArray<WaitCounters> = PerCpuArray::with_max_entries(MAX_TARGETS, 0);
#[map]
pub static SLEEPS: HashMap<u32, Sleep> = HashMap::with_max_entries(MAX_SLEEPERS, 0);

#[btf_tracepoint(function = "sched_switch")]
pub fn waits(ctx: BtfTracePointContext) -> i32 {
    let preempted: usize = ctx.arg(0);
    let previous: *const c_void = ctx.arg(1);
    let next: *const c_void = ctx.arg(2);
    // SAFETY: both are task pointers that the verifier knows as such.
    unsafe {
        if preempted & 1 == 0 {
            let tgid: u32 = load(previous, offset!(task_tgid));
            if target::passes(tgid) && leaves_asleep(&ctx, previous) {
                falls_asleep(previous, tgid);
            }
        }
        let tgid: u32 = load(next, offset!(task_tgid));
        if target::passes(tgid) {
            wakes(next, tgid);
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
unsafe fn falls_asleep(task: *const c_void, global_tgid: u32) {
    // SAFETY: a task pointer, as the caller says; the helper gives a pointer the verifier knows.
    let (tid, regs) = unsafe {
        (load::<u32>(task, offset!(task_pid)), bpf_task_pt_regs(task.cast_mut().cast()) as *const c_void)
    };
    // SAFETY: the same pointer.
    let (syscall, sp) = unsafe { (registers::load_syscall(regs), registers::load_sp(regs)) };
    if syscall != RESTART_SYSCALL && !waits_on_futex(syscall) {
        return;
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(sleep) = SLEEPS.get_ptr_mut(tid) {
        // SAFETY: an element of a preallocated map, written by the one CPU that this thread is on.
        let sleep = unsafe { &mut *sleep };
        // An entry is only made for a target's thread, and goes with the thread or the target.
        if sleep.global_tgid == global_tgid {
            let interrupted = sleep.since != 0 && sleep.interrupted != 0 && sleep.sp == sp;
            if syscall == RESTART_SYSCALL {
                // Goes on with whatever a signal interrupted; ours only if that was a futex wait.
                if interrupted {
                    sleep.interrupted = 0;
                }
                return;
            }
            if !interrupted {
                sleep.since = now;
            }
            sleep.interrupted = 0;
            sleep.sp = sp;
            return;
        }
    }
    if syscall == RESTART_SYSCALL {
        return;
    }
    let Some(target) = target::find(global_tgid) else { return };
    let sleep =
        Sleep { since: now, interrupted: 0, sp, global_tgid, slot: target.slot, restarts: 0, padding: 0 };
    if SLEEPS.insert(tid, sleep, 0).is_err() {
        loss::count(Loss::WaitsThreadsFull);
    }
}

#[inline(always)]
unsafe fn wakes(task: *const c_void, global_tgid: u32) {
    // SAFETY: a task pointer, as the caller says.
    let tid: u32 = unsafe { load(task, offset!(task_pid)) };
    let Some(sleep) = SLEEPS.get_ptr_mut(tid) else { return };
    // SAFETY: an element of a preallocated map, written by the one CPU that this thread is on.
    unsafe {
        if (*sleep).since == 0 || (*sleep).global_tgid != global_tgid || (*sleep).interrupted != 0 {
            return;
        }
        let now = bpf_ktime_get_ns();
        if signal_pending(task) {
            (*sleep).interrupted = now;
            return;
        }
        let waited = now.saturating_sub((*sleep).since);
        (*sleep).since = 0;
        count((*sleep).slot, waited);
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
        let blocked: u64 = load(task, offset!(task_blocked));
        pending & !blocked != 0 || load::<u64>(task, offset!(task_jobctl)) & JOBCTL_PENDING != 0
    }
}

#[inline(always)]
fn count(slot: u32, nanoseconds: u64) {
    if let Some(counters) = WAITS.get_ptr_mut(slot) {
        let bucket = log2(nanoseconds / 1000) as usize;
        if bucket < BUCKETS {
            // SAFETY: this CPU's counters.
            unsafe {
                let counter = &raw mut (*counters).log2_microseconds[bucket];
                *counter = (*counter).wrapping_add(1);
            }
        }
    }
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
