//! The `g` structs of many goroutines: what is needed of them, checked for sense.
//!
//! They lie one behind the other in spans of the heap, so reading one costs about 50 ns.

use std::io;

use super::bytes::{u8_at, u32_at, u64_at};
use super::coalesced;
use super::layout::GLayout;
use super::status;
use super::unwind::Context;
use crate::process::memory::RemoteMemory;
use crate::runtime::tasks::entry::Mark;
use crate::symbol::address_hash::mix;

/// No stack is larger (`runtime.maxstacksize` is 1 GB, and it doubles).
const MAX_STACK: u64 = 2 << 30;

/// What is looked at of a `g`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct G {
    /// Without the scan bit.
    pub status: u32,
    pub goid: u64,
    /// One more each time it stopped running; modulo 256.
    pub sequence: u8,
    pub reason: u8,
    pub pc: u64,
    pub sp: u64,
    lr: u64,
    syscall_pc: u64,
    syscall_sp: u64,
    pub stack_low: u64,
    pub stack_high: u64,
    pub wait_since: u64,
    pub creator: u64,
    pub start: u64,
    /// The first sudog.
    pub waiting: u64,
}

impl G {
    /// `None` for what cannot be a goroutine.
    fn parse(address: u64, bytes: &[u8], g: &GLayout) -> Option<Self> {
        let own = u64_at(bytes, g.sched_g)?;
        let head = Self {
            status: u32_at(bytes, g.atomicstatus)? & !status::SCAN,
            goid: u64_at(bytes, g.goid)?,
            sequence: u8_at(bytes, g.tracking_seq)?,
            reason: u8_at(bytes, g.waitreason)?,
            pc: u64_at(bytes, g.sched_pc)?,
            sp: u64_at(bytes, g.sched_sp)?,
            lr: u64_at(bytes, g.sched_lr)?,
            syscall_pc: u64_at(bytes, g.syscallpc)?,
            syscall_sp: u64_at(bytes, g.syscallsp)?,
            stack_low: u64_at(bytes, g.stack_lo)?,
            stack_high: u64_at(bytes, g.stack_hi)?,
            wait_since: u64_at(bytes, g.waitsince)?,
            creator: u64_at(bytes, g.gopc)?,
            start: u64_at(bytes, g.startpc)?,
            waiting: u64_at(bytes, g.waiting)?,
        };
        let valid = (own == address || own == 0)
            && head.status <= status::LAST
            && head.stack_low <= head.stack_high
            && head.stack_high - head.stack_low <= MAX_STACK
            && (head.stack_low != 0 || status::is_dead(head.status));
        valid.then_some(head)
    }

    pub(crate) fn stack_bytes(&self) -> u64 {
        self.stack_high - self.stack_low
    }

    /// Whether nothing is saved of a system call.
    pub(crate) fn is_outside_system_call(&self) -> bool {
        self.syscall_sp == 0
    }

    /// Where it stopped.
    pub(crate) fn context(&self) -> Context {
        if self.syscall_sp != 0 {
            Context { pc: self.syscall_pc, sp: self.syscall_sp, lr: 0, is_syscall: true }
        } else {
            Context { pc: self.pc, sp: self.sp, lr: self.lr, is_syscall: false }
        }
    }

    /// What tells whether it has run since.
    pub(crate) fn mark(&self) -> Mark {
        let context = self.context();
        Mark {
            id: self.goid,
            sequence: self.sequence,
            status: self.status as u8,
            reason: self.reason,
            context: mix(mix(context.pc) ^ context.sp) as u32,
        }
    }

    /// Whether it has not run since `earlier` was read of it.
    pub(crate) fn is_still(&self, earlier: &Self) -> bool {
        let key = |head: &Self| {
            (
                head.status,
                head.goid,
                head.sequence,
                head.reason,
                head.context(),
                head.stack_low,
                head.stack_high,
            )
        };
        key(self) == key(earlier)
    }
}

/// Bytes of a `g` that [`G`] needs.
fn head_bytes(g: &GLayout) -> usize {
    let last_words = [
        g.sched_g,
        g.sched_pc,
        g.sched_sp,
        g.sched_lr,
        g.syscallpc,
        g.syscallsp,
        g.waitsince,
        g.gopc,
        g.startpc,
        g.waiting,
        g.goid,
        g.atomicstatus,
        g.tracking_seq,
        g.waitreason,
        g.stack_hi,
    ];
    last_words.into_iter().max().unwrap_or(0) as usize + 8
}

/// Reads the heads at `addresses`; `done(index, head)` for each, in order of address.
pub(crate) fn read(
    memory: RemoteMemory,
    g: &GLayout,
    addresses: &[u64],
    buffer: &mut Vec<u8>,
    mut done: impl FnMut(usize, Option<G>),
) -> io::Result<()> {
    let need = head_bytes(g);
    let pieces: Vec<(u64, usize)> = addresses.iter().map(|&address| (address, need)).collect();
    coalesced::read(memory, &pieces, buffer, |index, bytes| {
        let address = addresses.get(index).copied().unwrap_or(0);
        done(index, bytes.and_then(|bytes| G::parse(address, bytes, g)));
    })
}
