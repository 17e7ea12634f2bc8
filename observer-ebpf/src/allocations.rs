//! Allocations: one of many bytes that a target's own allocator hands out, with the stack that asked for it, and
//! when it is freed. Runs on breakpoints in the allocator, only where somebody asked for that.
//!
//! One program for the beginning and the return of a call. As a session (Linux 6.13) what it says at the beginning
//! decides whether the return stops as well; elsewhere every return does, and finds nothing pending. A thread can be
//! moved or preempted in here: nothing of a CPU's own is relied on beyond one statement, and a draw that two threads
//! race for costs a little of its randomness.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{
    bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_get_func_ip, bpf_get_prandom_u32, bpf_ktime_get_ns,
    bpf_probe_read_user, bpf_ringbuf_output,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::ProbeContext;
use observer_common::allocations::{
    AllocationHeader, AllocationRecord, Block, Counter, FreeRecord, MAX_LIVE, MAX_STACK_BYTES, interval, kind,
};
use observer_common::loss::Loss;

use crate::{loss, stack, target};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;
const BPF_RB_NO_WAKEUP: u64 = 1;
/// What a session's beginning answers: do not stop at the return.
const NO_RETURN: u32 = 1;
const AND_RETURN: u32 = 0;
/// Calls that are followed to their return at a time.
const MAX_PENDING: u32 = 4096;

/// Mean bytes to a sample.
#[map]
static ALLOCATION_PERIOD: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static ALLOCATION_COUNTER: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1, 0);
#[map]
static ALLOCATION_OUTER: PerCpuArray<Outer> = PerCpuArray::with_max_entries(1, 0);
#[map]
static ALLOCATION_PENDING: LruHashMap<Call, Pending> = LruHashMap::with_max_entries(MAX_PENDING, 0);
/// When each sampled block that is alive was allocated.
#[map]
static ALLOCATION_LIVE: HashMap<Block, u64> = HashMap::with_max_entries(MAX_LIVE, 0);
#[map]
static ALLOCATIONS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
#[map]
static ALLOCATION_FREES: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// The last call of a function that may be written as a call of another one.
#[repr(C)]
#[derive(Clone, Copy)]
struct Outer {
    pid_tgid: u64,
    entry: u64,
    function_bytes: u64,
    sp: u64,
    back: u64,
}

/// A call that has not returned: its thread, and where its return address lies.
#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    pid_tgid: u64,
    sp: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Pending {
    /// 0: not drawn.
    period: u64,
    size: u64,
    /// The block that is reallocated, if it is a sampled one; for `posix_memalign` where the address goes.
    old: u64,
    /// When that was allocated; 0: none.
    born: u64,
    kind: u64,
}

/// The registers of a call, by what they mean.
struct Registers {
    ip: u64,
    sp: u64,
    bp: u64,
    result: u64,
}

/// Written out, as aya's macro for it drops what the function returns: the answer to a session's beginning.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub extern "C" fn allocation(ctx: *mut c_void) -> u32 {
    let ctx = ProbeContext::new(ctx);
    // SAFETY: no preconditions.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let Some(target) = target::find((pid_tgid >> 32) as u32) else { return NO_RETURN };
    let registers = registers(&ctx);
    // SAFETY: the context is the program's own.
    let entry = unsafe { bpf_get_func_ip(ctx.as_ptr()) };
    if entry == registers.ip {
        entered(&ctx, pid_tgid, target.slot(), &registers)
    } else {
        returned(pid_tgid, target.slot(), &registers);
        AND_RETURN
    }
}

#[inline(always)]
fn entered(ctx: &ProbeContext, pid_tgid: u64, slot: u32, registers: &Registers) -> u32 {
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let (what, function_bytes) = (cookie as u32 & 0xff, cookie >> 8);
    let argument = |n: usize| ctx.arg::<u64>(n).unwrap_or(0);
    if what == kind::FREE {
        free(pid_tgid, slot, argument(0));
        return NO_RETURN;
    }
    let (old, size) = match what {
        kind::MALLOC => (0, argument(0)),
        kind::CALLOC => (0, argument(0).wrapping_mul(argument(1))),
        kind::REALLOC => (argument(0), argument(1)),
        kind::REALLOCARRAY => (argument(0), argument(1).wrapping_mul(argument(2))),
        kind::MEMALIGN => (0, argument(1)),
        _ => (argument(0), argument(2)),
    };
    let call = Call { pid_tgid, sp: registers.sp };
    if is_inner(&call, registers.ip) {
        return NO_RETURN;
    }
    if what != kind::MALLOC {
        note_outer(&call, registers, function_bytes);
    }
    let mut pending = Pending { period: draw(size), size, old, born: 0, kind: u64::from(what) };
    if old != 0 && (what == kind::REALLOC || what == kind::REALLOCARRAY) {
        // Taken out before the allocator can hand its address to another thread.
        pending.born = take(pid_tgid, old);
    }
    if pending.period == 0 && pending.born == 0 {
        return NO_RETURN;
    }
    if ALLOCATION_PENDING.insert(call, pending, BPF_ANY).is_err() {
        loss::count(Loss::AllocationsPendingFull);
        return NO_RETURN;
    }
    AND_RETURN
}

/// Whether the call was made by another function of the allocator that has been counted.
#[inline(always)]
fn is_inner(call: &Call, entry: u64) -> bool {
    let Some(outer) = ALLOCATION_OUTER.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's value, read once; another thread's is told by its number.
    let outer = unsafe { outer.read_volatile() };
    // The same place calls the same function again and again: that is no jump.
    if outer.pid_tgid != call.pid_tgid || outer.entry == entry {
        return false;
    }
    let back = word(call.sp);
    // From within it, or by a jump at its end.
    let called = back.wrapping_sub(outer.entry) < outer.function_bytes;
    let jumped = outer.sp == call.sp && outer.back == back;
    // A jump at the end of one that is followed finds the kernel's return address in place of the caller's.
    // SAFETY: only whether there is one is asked.
    called || jumped || outer.sp == call.sp && unsafe { ALLOCATION_PENDING.get(call) }.is_some()
}

#[inline(always)]
fn note_outer(call: &Call, registers: &Registers, function_bytes: u64) {
    if let Some(outer) = ALLOCATION_OUTER.get_ptr_mut(0) {
        let (sp, back) = (registers.sp, word(registers.sp));
        // SAFETY: this CPU's value; a torn one fits no call.
        unsafe { *outer = Outer { pid_tgid: call.pid_tgid, entry: registers.ip, function_bytes, sp, back } };
    }
}

/// The period, if these bytes reach the next sample; else 0.
#[inline(always)]
fn draw(size: u64) -> u64 {
    let Some(counter) = ALLOCATION_COUNTER.get_ptr_mut(0) else { return 0 };
    let period = ALLOCATION_PERIOD.get(0).copied().unwrap_or(0);
    if period == 0 {
        return 0;
    }
    // SAFETY: this CPU's counter, in a map value that lives as long as the program; the helper has no preconditions.
    unsafe {
        if (*counter).drawn == 0 {
            *counter = Counter { left: interval(bpf_get_prandom_u32(), period), drawn: 1 };
        }
        let size = if size > 1 << 48 { 1 << 48 } else { size as i64 };
        let left = (*counter).left - size;
        if left > 0 {
            (*counter).left = left;
            return 0;
        }
        (*counter).left = interval(bpf_get_prandom_u32(), period);
    }
    period
}

/// Takes a block out of those that are alive: when it was allocated, 0 for one that is not sampled.
#[inline(always)]
fn take(pid_tgid: u64, address: u64) -> u64 {
    let block = block(pid_tgid, address);
    // SAFETY: a value that nobody changes, copied at once.
    let Some(born) = (unsafe { ALLOCATION_LIVE.get(block) }).copied() else { return 0 };
    // Of two threads that free it at once, which is a fault of theirs, one wins.
    if ALLOCATION_LIVE.remove(block).is_ok() { born } else { 0 }
}

#[inline(always)]
fn free(pid_tgid: u64, slot: u32, address: u64) {
    let born = if address == 0 { 0 } else { take(pid_tgid, address) };
    if born != 0 {
        tell_freed(pid_tgid, slot, address, born);
    }
}

#[inline(always)]
fn tell_freed(pid_tgid: u64, slot: u32, address: u64, born: u64) {
    let record = FreeRecord { address, born, global_tgid: (pid_tgid >> 32) as u32, slot };
    // SAFETY: the helper copies a whole record of ours.
    let full = unsafe {
        bpf_ringbuf_output(
            (&raw const ALLOCATION_FREES).cast_mut().cast(),
            (&raw const record).cast_mut().cast(),
            size_of::<FreeRecord>() as u64,
            BPF_RB_NO_WAKEUP,
        )
    };
    if full != 0 {
        loss::count(Loss::AllocationsFreeRingFull);
    }
}

#[inline(always)]
fn returned(pid_tgid: u64, slot: u32, registers: &Registers) {
    // The return address has been taken off the stack since.
    let call = Call { pid_tgid, sp: registers.sp - RETURN_ADDRESS_BYTES };
    // SAFETY: written by this thread when it began the call; copied at once.
    let Some(pending) = (unsafe { ALLOCATION_PENDING.get(call) }).copied() else { return };
    let _ = ALLOCATION_PENDING.remove(call);
    let address = if pending.kind == u64::from(kind::POSIX_MEMALIGN) {
        if registers.result as u32 == 0 { word(pending.old) } else { 0 }
    } else {
        registers.result
    };
    if pending.born != 0 {
        if address == 0 && pending.size != 0 {
            // It could not be reallocated, and is still there.
            let _ = ALLOCATION_LIVE.insert(block(pid_tgid, pending.old), pending.born, BPF_NOEXIST);
        } else {
            tell_freed(pid_tgid, slot, pending.old, pending.born);
        }
    }
    if pending.period != 0 && address != 0 {
        tell(pid_tgid, slot, address, &pending, registers);
    }
}

/// Hands a sampled block over, with a copy of the stack.
#[inline(always)]
fn tell(pid_tgid: u64, slot: u32, address: u64, pending: &Pending, registers: &Registers) {
    let Some(mut entry) = ALLOCATIONS.reserve::<AllocationRecord>(0) else {
        loss::count(Loss::AllocationsRingFull);
        return;
    };
    // SAFETY: no preconditions.
    let time = unsafe { bpf_ktime_get_ns() };
    let live = ALLOCATION_LIVE.insert(block(pid_tgid, address), time, BPF_ANY).is_ok();
    if !live {
        loss::count(Loss::AllocationsLiveFull);
        entry.discard(BPF_RB_NO_WAKEUP);
        return;
    }
    let record = entry.as_mut_ptr();
    let header = AllocationHeader {
        time,
        address,
        size: pending.size,
        period: pending.period,
        ip: registers.ip,
        sp: registers.sp,
        bp: registers.bp,
        global_tgid: (pid_tgid >> 32) as u32,
        global_tid: pid_tgid as u32,
        slot,
        stack_bytes: 0,
    };
    // SAFETY: the entry has room for a record; what is not copied into it is not said to be good.
    let copied = unsafe {
        (&raw mut (*record).header).write(header);
        let room = (&raw mut (*record).stack).cast();
        let copied = stack::copy::<MAX_STACK_BYTES>(room, registers.sp, MAX_STACK_BYTES);
        (*record).header.stack_bytes = copied as u32;
        copied
    };
    if copied == 0 {
        loss::count(Loss::AllocationsStackUnreadable);
    }
    entry.submit(BPF_RB_NO_WAKEUP);
}

#[inline(always)]
fn block(pid_tgid: u64, address: u64) -> Block {
    Block { address, global_tgid: (pid_tgid >> 32) as u32, padding: 0 }
}

/// A word of the target's memory; 0 where it cannot be read.
#[inline(always)]
fn word(address: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: the helper writes one word of ours and checks the source.
    unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const _) };
    word
}

#[cfg(bpf_target_arch = "x86_64")]
const RETURN_ADDRESS_BYTES: u64 = 8;
#[cfg(bpf_target_arch = "aarch64")]
const RETURN_ADDRESS_BYTES: u64 = 0;

#[inline(always)]
#[cfg(bpf_target_arch = "x86_64")]
fn registers(ctx: &ProbeContext) -> Registers {
    // SAFETY: the context of a probe is the registers it stopped with.
    let regs = unsafe { &*ctx.regs };
    Registers { ip: regs.rip, sp: regs.rsp, bp: regs.rbp, result: regs.rax }
}

#[inline(always)]
#[cfg(bpf_target_arch = "aarch64")]
fn registers(ctx: &ProbeContext) -> Registers {
    // SAFETY: the context of a probe is the registers it stopped with.
    let regs = unsafe { &*ctx.regs.cast::<aya_ebpf::bindings::user_pt_regs>() };
    Registers { ip: regs.pc, sp: regs.sp, bp: regs.regs[29], result: regs.regs[0] }
}
