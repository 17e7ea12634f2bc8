//! Exact: every mapping call of a target when it returns. By fexit only those calls pay; by tracepoints (`--exact`)
//! every system call of the machine does, so it is off unless asked for.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::{btf_tracepoint, fexit, map, tracepoint};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, TracePointContext};
use observer_common::mapped::{Call, MappedCounters};
use observer_common::syscall::{BRK, MADVISE, MMAP, MPROTECT, MREMAP, MUNMAP};
use observer_common::target::MAX_TARGETS;

use crate::registers::{self, Registers};
use crate::target;

const PAGE: u64 = 4096;
const PROT_NONE: u64 = 0;
/// A result in this range is an error number.
const MAX_ERROR: u64 = 4095;

#[map]
static MAPPED: PerCpuArray<MappedCounters> = PerCpuArray::with_max_entries(MAX_TARGETS, 0);
/// The program break of each target by slot, first as user space found it.
#[map]
static BREAKS: Array<u64> = Array::with_max_entries(MAX_TARGETS, 0);

#[btf_tracepoint(function = "sys_exit")]
pub fn exact_btf(ctx: BtfTracePointContext) -> i32 {
    let regs: *const c_void = ctx.arg(0);
    let result: usize = ctx.arg(1);
    // Most system calls are none of ours: told apart before anything dear.
    // SAFETY: an argument of the tracepoint that the verifier knows as `pt_regs`.
    let syscall = unsafe { registers::load_syscall(regs) };
    if matches!(syscall, MMAP | MUNMAP | MREMAP | BRK | MPROTECT | MADVISE) {
        returned(regs, result as i64);
    }
    0
}

/// On `syscalls:sys_exit_...`, whose record is a header of 8 bytes, the number and the result.
#[tracepoint]
pub fn exact_tracepoint(ctx: TracePointContext) -> u32 {
    // SAFETY: inside the record of these tracepoints.
    if let Ok(result) = unsafe { ctx.read_at::<i64>(16) } {
        // SAFETY: current is a task; the helper gives a pointer to its saved user registers.
        let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const c_void;
        returned(regs, result);
    }
    0
}

/// On a syscall's entry function, which takes the saved user registers and returns the result.
macro_rules! exact_fexit {
    ($($name:ident)+) => {
        $(
            #[fexit]
            pub fn $name(ctx: FExitContext) -> i32 {
                let regs: *const c_void = ctx.arg(0);
                let result: usize = ctx.arg(1);
                returned(regs, result as i64);
                0
            }
        )+
    };
}
exact_fexit!(exact_fexit_mmap exact_fexit_munmap exact_fexit_mremap exact_fexit_brk exact_fexit_mprotect
    exact_fexit_madvise);

#[inline(always)]
fn returned(regs: *const c_void, result: i64) {
    // SAFETY: no preconditions.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let Some(target) = target::find((pid_tgid >> 32) as u32) else { return };
    mapping(target.slot(), &Registers::read(regs), result);
}

#[inline(always)]
fn mapping(slot: u32, registers: &Registers, result: i64) {
    if result as u64 > u64::MAX - MAX_ERROR {
        return;
    }
    let arguments = registers.arguments();
    let length = pages(arguments[1]);
    match registers.syscall {
        MMAP if arguments[2] == PROT_NONE => add(slot, Call::MmapReserve, length, true),
        MMAP => add(slot, Call::Mmap, length, true),
        MUNMAP => add(slot, Call::Munmap, length, false),
        MREMAP => change(slot, Call::Mremap, length, pages(arguments[2])),
        MPROTECT => add(slot, Call::Mprotect, length, arguments[2] != PROT_NONE),
        // MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTNEED_LOCKED
        MADVISE if matches!(arguments[2], 4 | 8 | 9 | 24) => add(slot, Call::Madvise, length, false),
        BRK => {
            if let Some(known) = BREAKS.get_ptr_mut(slot) {
                let now = pages(result as u64);
                // SAFETY: a map value; the kernel serializes brk by process, and its writer is this process.
                let before = unsafe { core::mem::replace(&mut *known, now) };
                if before != 0 {
                    change(slot, Call::Brk, before, now);
                }
            }
        }
        _ => {}
    }
}

/// Rounded up to whole pages.
#[inline(always)]
fn pages(bytes: u64) -> u64 {
    bytes.wrapping_add(PAGE - 1) & !(PAGE - 1)
}

#[inline(always)]
fn change(slot: u32, call: Call, before: u64, now: u64) {
    if now > before {
        add(slot, call, now - before, true);
    } else if before > now {
        add(slot, call, before - now, false);
    }
}

#[inline(always)]
fn add(slot: u32, call: Call, bytes: u64, mapped: bool) {
    if let Some(counters) = MAPPED.get_ptr_mut(slot) {
        // SAFETY: this CPU's counters; every `Call` is an index of the arrays.
        unsafe {
            let counter = if mapped {
                &raw mut (*counters).mapped[call as usize]
            } else {
                &raw mut (*counters).unmapped[call as usize]
            };
            *counter = (*counter).wrapping_add(bytes);
        }
    }
}
