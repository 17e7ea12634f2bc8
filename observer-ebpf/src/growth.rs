//! Growth: one page fault of many of a target, with the address, the user registers and the user stack.
//! Runs on a software perf event of each CPU; a process that does not fault pays nothing. Beside it, mappings that
//! `mremap` moves, as a growing `realloc` does: their pages are touched once and live elsewhere.

use core::ffi::c_void;
use core::mem::offset_of;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_stack, bpf_ktime_get_ns, bpf_ringbuf_output,
    bpf_task_pt_regs,
};
use aya_ebpf::macros::{btf_tracepoint, map, perf_event};
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use aya_ebpf::programs::{BtfTracePointContext, PerfEventContext};
use observer_common::growth::{
    FAULT, FaultHeader, FaultRecord, MAX_FRAMES, MAX_STACK_BYTES, MOVED, STACK_BYTES,
};
use observer_common::loss::Loss;
use observer_common::target::{FLAG_COPY_STACK, FLAG_DEEP_STACK};

use crate::registers::Registers;
use crate::{bound, loss, stack, target};

const BPF_F_USER_STACK: u64 = 1 << 8;
const BPF_RB_NO_WAKEUP: u64 = 1;
/// All bits of a number of bytes of frames.
const FRAMES_MASK: u64 = (MAX_FRAMES as u64 * 8).next_power_of_two() - 1;
/// The call that moves mappings.
const MREMAP: i64 = if cfg!(bpf_target_arch = "x86_64") { 25 } else { 216 };
const PAGE_MASK: u64 = 4095;

#[map]
static FAULTS: RingBuf = RingBuf::with_byte_size(2 << 20, 0);
#[map]
static FAULT_SCRATCH: PerCpuArray<FaultRecord> = PerCpuArray::with_max_entries(1, 0);
/// Samples of every process of the machine: what the period costs them.
#[map]
static FAULTS_SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[perf_event]
pub fn growth(ctx: PerfEventContext) -> u32 {
    if let Some(seen) = FAULTS_SEEN.get_ptr_mut(0) {
        // SAFETY: this CPU's counter.
        unsafe { *seen = (*seen).wrapping_add(1) };
    }
    // SAFETY: no preconditions.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let tgid = (pid_tgid >> 32) as u32;
    if let Some(target) = target::find(tgid)
        && let Some(record) = FAULT_SCRATCH.get_ptr_mut(0)
    {
        // SAFETY: this CPU's scratch; a fault of a program's own read does not come here.
        let record = unsafe { &mut *record };
        let header = &mut record.header;
        header.global_tgid = tgid;
        header.global_tid = pid_tgid as u32;
        header.slot = target.slot();
        let copied = match target.flags() & (FLAG_COPY_STACK | FLAG_DEEP_STACK) {
            0 => 0,
            FLAG_COPY_STACK => STACK_BYTES,
            _ => MAX_STACK_BYTES,
        };
        sample(&ctx, record, copied);
    }
    0
}

#[inline(always)]
fn sample(ctx: &PerfEventContext, record: &mut FaultRecord, copied: usize) {
    // The event's own registers are the kernel's when the kernel touched the page.
    // SAFETY: current is a task; the helper gives a pointer to its saved user registers.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const c_void;
    let registers = Registers::read(regs);
    let header = &mut record.header;
    // SAFETY: fields of the context that perf event programs may read.
    unsafe {
        header.time = bpf_ktime_get_ns();
        header.address = (*ctx.ctx).addr;
        header.weight = (*ctx.ctx).sample_period;
    }
    header.ip = registers.ip();
    header.sp = registers.sp();
    header.bp = registers.bp();
    header.kind = FAULT;
    // SAFETY: the helper writes at most the size of `frames`.
    let bytes = unsafe {
        bpf_get_stack(
            ctx.as_ptr(),
            record.frames.as_mut_ptr().cast(),
            (MAX_FRAMES * 8) as u32,
            BPF_F_USER_STACK,
        )
    };
    let mut frames = 0usize;
    if bytes > 0 && bytes as usize <= MAX_FRAMES * 8 {
        frames = (bound::unknown(bytes as u64) & FRAMES_MASK) as usize / 8;
    } else {
        loss::count(Loss::GrowthStackUnreadable);
    }
    record.header.frames = frames as u32;
    record.header.stack_bytes = 0;
    let mut length = size_of::<FaultHeader>() + frames * 8;
    if copied != 0 {
        // SAFETY: `stack` has room for so much.
        let bytes = unsafe {
            stack::copy::<MAX_STACK_BYTES>((&raw mut record.stack).cast(), record.header.sp, copied)
        };
        let bytes = bound::unknown(bytes as u64).min(MAX_STACK_BYTES as u64) as usize;
        record.header.stack_bytes = bytes as u32;
        length = offset_of!(FaultRecord, stack) + bytes;
    }
    // SAFETY: the record holds `length` bytes; the helper copies them.
    let full = unsafe {
        bpf_ringbuf_output(
            (&raw const FAULTS).cast_mut().cast(),
            core::ptr::from_mut(record).cast(),
            length as u64,
            BPF_RB_NO_WAKEUP,
        )
    };
    if full != 0 {
        loss::count(Loss::GrowthRingFull);
    }
}

/// A place was found for a mapping: where `mremap` asked for it, what was mapped moves there.
#[btf_tracepoint(function = "vm_unmapped_area")]
pub fn growth_moves(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: no preconditions.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let tgid = (pid_tgid >> 32) as u32;
    let Some(target) = target::find(tgid) else { return 0 };
    // SAFETY: current is a task; the helper gives a pointer to its saved user registers.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const c_void;
    let registers = Registers::read(regs);
    let address: u64 = ctx.arg(0);
    if registers.syscall != MREMAP || address & PAGE_MASK != 0 {
        return 0;
    }
    let [from, bytes, room, ..] = registers.arguments();
    let mut header = FaultHeader {
        // SAFETY: no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        address,
        ip: from,
        sp: bytes,
        bp: room,
        weight: 0,
        global_tgid: tgid,
        global_tid: pid_tgid as u32,
        slot: target.slot(),
        frames: 0,
        stack_bytes: 0,
        kind: MOVED,
    };
    // SAFETY: the helper copies the header, which has no padding.
    let full = unsafe {
        bpf_ringbuf_output(
            (&raw const FAULTS).cast_mut().cast(),
            (&raw mut header).cast(),
            size_of::<FaultHeader>() as u64,
            BPF_RB_NO_WAKEUP,
        )
    };
    if full != 0 {
        loss::count(Loss::GrowthRingFull);
    }
    0
}
