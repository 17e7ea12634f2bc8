//! The `g` structs of many goroutines, read in few calls.
//!
//! They lie one behind the other in spans of the heap, so neighbours are read as one range: about 50 ns
//! each instead of the 300 of a range of its own.

use std::io;

use super::bytes::{u8_at, u32_at, u64_at};
use super::layout::GLayout;
use super::status;
use super::unwind::Context;
use crate::target::memory::RemoteMemory;

/// Copying so many bytes that nobody asked for is cheaper than one more range.
const MAX_GAP: u64 = 1024;
const MAX_RANGE: u64 = 64 << 10;
/// No stack is larger (`runtime.maxstacksize` is 1 GB, and it doubles).
const MAX_STACK: u64 = 2 << 30;

/// What is looked at of a `g`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
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

impl Head {
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

    pub fn stack_bytes(&self) -> u64 {
        self.stack_high - self.stack_low
    }

    /// Where it stopped.
    pub fn context(&self) -> Context {
        if self.syscall_sp != 0 {
            Context { pc: self.syscall_pc, sp: self.syscall_sp, lr: 0, is_syscall: true }
        } else {
            Context { pc: self.pc, sp: self.sp, lr: self.lr, is_syscall: false }
        }
    }

    /// Whether it has not run since `earlier` was read of it.
    pub fn is_still(&self, earlier: &Self) -> bool {
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

/// Bytes of a `g` that [`Head`] needs.
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

/// Reads the heads at `addresses`, best in ascending order; `done(index, head)` for each, in that order.
pub fn read(
    memory: RemoteMemory,
    g: &GLayout,
    addresses: &[u64],
    buffer: &mut Vec<u8>,
    mut done: impl FnMut(usize, Option<Head>),
) -> io::Result<()> {
    let need = head_bytes(g);
    // Ranges, and how many of the addresses each holds.
    let mut ranges: Vec<(u64, usize)> = Vec::new();
    let mut counts: Vec<usize> = Vec::new();
    for &address in addresses {
        let end = address.saturating_add(need as u64);
        if let (Some((start, length)), Some(count)) = (ranges.last_mut(), counts.last_mut())
            && address >= *start
            && address <= start.saturating_add(*length as u64).saturating_add(MAX_GAP)
            && end - *start <= MAX_RANGE
        {
            *length = (*length).max((end - *start) as usize);
            *count += 1;
            continue;
        }
        ranges.push((address, need));
        counts.push(1);
    }
    let total = ranges.iter().map(|range| range.1).sum();
    if buffer.len() < total {
        buffer.resize(total, 0);
    }
    let mut next = 0;
    let mut alone = Vec::new();
    memory.read_many(&ranges, buffer, |index, bytes| {
        let (Some(&(start, _)), Some(&count)) = (ranges.get(index), counts.get(index)) else { return };
        for position in next..next + count {
            let Some(&address) = addresses.get(position) else { break };
            match bytes {
                Some(bytes) => {
                    let offset = (address - start) as usize;
                    let head =
                        bytes.get(offset..offset + need).and_then(|bytes| Head::parse(address, bytes, g));
                    done(position, head);
                }
                None if count == 1 => done(position, None),
                // A hole between two of them, or one that is gone: each for itself.
                None => alone.push(position),
            }
        }
        next += count;
    })?;
    let mut one = vec![0; need];
    for position in alone {
        let Some(&address) = addresses.get(position) else { continue };
        let head = memory.read_exact(address, &mut one).ok().and_then(|()| Head::parse(address, &one, g));
        done(position, head);
    }
    Ok(())
}
