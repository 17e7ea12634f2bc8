//! Lifecycle: a target executes another program, ends, has a child.
//! A thread that ends leaves no state behind.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_ringbuf_output};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use observer_common::lifecycle::{EXEC, EXIT, Event, FORK};
use observer_common::loss::Loss;
use observer_common::target::Target;

use crate::layout::{load, offset};
use crate::{loss, target, waits};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(64 << 10, 0);

/// The current thread's global tid and tgid, and the target it belongs to.
#[inline(always)]
fn current() -> Option<(u32, u32, Target)> {
    // SAFETY: no preconditions.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let tgid = (pid_tgid >> 32) as u32;
    Some((pid_tgid as u32, tgid, target::find(tgid)?))
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn lifecycle_exec(ctx: BtfTracePointContext) -> i32 {
    if let Some((tid, tgid, target)) = current() {
        debug!(&ctx, "target {} executes another program", tgid);
        waits::forget(target, tid);
        tell(EXEC, tgid, target, 0);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn lifecycle_exit(ctx: BtfTracePointContext) -> i32 {
    let Some((tid, tgid, target)) = current() else { return 0 };
    waits::forget(target, tid);
    let task: *const c_void = ctx.arg(0);
    // SAFETY: a task pointer that the verifier knows as such, and what it points to.
    let (live, code) = unsafe {
        let signal: *const c_void = load(task, offset!(task_signal));
        (load::<u32>(signal, offset!(signal_live)), load::<u32>(task, offset!(task_exit_code)))
    };
    // Two threads that end at once may both see the last one gone: user space takes the first event.
    if live == 0 {
        debug!(&ctx, "target {} ends with status {}", tgid, code);
        tell(EXIT, tgid, target, code);
    }
    0
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn lifecycle_fork(ctx: BtfTracePointContext) -> i32 {
    let Some((_, tgid, target)) = current() else { return 0 };
    let child: *const c_void = ctx.arg(1);
    // SAFETY: a task pointer that the verifier knows as such.
    let child: u32 = unsafe { load(child, offset!(task_tgid)) };
    if child != tgid {
        tell(FORK, tgid, target, child);
    }
    0
}

#[inline(always)]
fn tell(kind: u32, global_tgid: u32, target: Target, detail: u32) {
    // SAFETY: no preconditions.
    let time = unsafe { bpf_ktime_get_ns() };
    let mut event = Event { time, kind, global_tgid, slot: target.slot(), detail };
    // SAFETY: the helper copies the event, which has no padding.
    let full = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            (&raw mut event).cast(),
            size_of::<Event>() as u64,
            0,
        )
    };
    if full != 0 {
        loss::count(Loss::LifecycleRingFull);
    }
}
