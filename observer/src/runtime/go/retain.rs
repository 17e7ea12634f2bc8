//! Who keeps the heap: bytes that only the goroutines of one group keep reachable.
//!
//! Marks the live heap from outside while the target runs, in colours: first from everything that is not of the
//! groups asked about (global variables, all other goroutines), then from each group. What a group's members
//! reach and nothing before them did is theirs. A word of the heap that looks like a pointer is one; of a stack
//! only those that the program's stack maps call live. A goroutine, and its place in a queue, is never walked through:
//! from there everything leads to everything.
//!
//! Costs a read of every reachable object that has pointers: 0.1 s where those are 44 MiB, 1.1 s for 400 MiB,
//! 4.7 s for 1.4 GiB of nothing but pointers; nothing for strings and byte slices. Within the budget; where that ends before everything outside is marked, what the
//! members hold in common is taken for the outside's and the result says so.

mod heap;
mod mark;
mod members;
mod stack;

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::layout::Layout;
use super::spans::{SpanReader, word64};
use crate::process::memory::RemoteMemory;
use crate::runtime::go::symbol::GoSymbols;
use crate::sample::Retained;
use heap::Heap;
use mark::{Colour, Limit, Marker};
use members::{Members, Own};
use stack::{Goroutine, MAX_STACK};

pub use mark::MAX_GROUPS;

/// Places in queues that one goroutine has (a select with many cases).
const MAX_SUDOGS: usize = 1024;
const BATCH: usize = 1 << 14;

/// What measuring may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetainBudget {
    /// Members of each group that are followed one by one.
    pub members: usize,
    /// Bytes read from the target.
    pub bytes: u64,
    pub time: Duration,
}

impl Default for RetainBudget {
    fn default() -> Self {
        Self { members: 64, bytes: 4 << 30, time: Duration::from_secs(3) }
    }
}

/// Where marking starts: what the caller knows of the target.
pub struct Roots<'a> {
    /// Global variables with pointers (data, bss) of every module.
    pub globals: &'a [Range<u64>],
    /// Every `g` of `runtime.allgs`.
    pub goroutines: &'a [u64],
    /// For each of them the group asked about that it belongs to, by number; as long as `goroutines`.
    pub group_of: &'a [Option<u16>],
    /// Groups asked about.
    pub groups: usize,
}

/// What measuring found, and what it cost.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// By group number; `None` for a group without a member whose stack could be read.
    pub groups: Vec<Option<Retained>>,
    pub bytes_read: u64,
    /// Everything outside the groups was marked.
    pub is_complete: bool,
    pub stacks_truncated: u64,
    pub spans_left_out: u64,
}

pub fn measure(
    memory: RemoteMemory,
    layout: &Layout,
    symbols: &mut GoSymbols,
    spans: &mut SpanReader,
    roots: &Roots<'_>,
    budget: RetainBudget,
) -> io::Result<Measured> {
    let limit = Limit { bytes: budget.bytes, deadline: Instant::now() + budget.time };
    let groups = roots.groups.min(MAX_GROUPS);
    let heap = Heap::read(memory, spans)?;
    let sudog_bytes = size_class(layout.sudog.size);
    let mut marker = Marker::new(memory, &heap, groups, sudog_bytes, limit);
    let mut measured = Measured { spans_left_out: heap.losses.spans_left_out, ..Measured::default() };

    let mut g_bytes = 0;
    for &goroutine in roots.goroutines {
        g_bytes = marker.bar(goroutine).unwrap_or(g_bytes);
    }
    let (goroutines, places, mut held) = read_goroutines(memory, layout, &heap, roots, &mut measured)?;
    bar_sudogs(memory, layout, &mut marker, places, &mut held)?;
    held.sort_unstable_by_key(|held| held.goroutine);

    let (others, members): (Vec<_>, Vec<_>) =
        goroutines.into_iter().partition(|goroutine| goroutine.group.is_none());
    let mut of_group: Vec<Vec<Goroutine>> = vec![Vec::new(); groups];
    for goroutine in members {
        if let Some(members) = goroutine.group.and_then(|group| of_group.get_mut(usize::from(group))) {
            members.push(goroutine);
        }
    }
    let holds = |marker: &mut Marker<'_>, group| {
        for held in held.iter().filter(|held| held.group == group) {
            marker.point(held.pointer);
        }
    };

    marker.begin(Colour::Outside);
    mark_stacks(memory, symbols, &mut marker, &others)?;
    drop(others);
    holds(&mut marker, None);
    marker.walk(roots.globals.iter().map(|range| (range.start, range.end.saturating_sub(range.start))))?;
    measured.is_complete = !marker.is_exhausted();

    for (group, members) in of_group.iter().enumerate() {
        if measured.is_complete {
            marker.begin(Colour::Group(group));
            mark_stacks(memory, symbols, &mut marker, members)?;
            holds(&mut marker, Some(group as u16));
            marker.walk(std::iter::empty())?;
        }
    }
    let is_marked = measured.is_complete && !marker.is_exhausted();
    measured.bytes_read = marker.bytes_read();

    for (group, members) in of_group.iter().enumerate() {
        let count = members.len();
        if count == 0 {
            measured.groups.push(None);
            continue;
        }
        // Spread over the group: old members and new ones.
        let sample = budget.members.clamp(1, count);
        let chosen: Vec<Goroutine> = (0..sample).map(|index| members[index * count / sample]).collect();
        let mut pointers = Vec::new();
        // Following some members is small beside marking, and worth it also when that took all the time.
        let limit = Limit { bytes: budget.bytes / 4, deadline: Instant::now() + budget.time / 4 };
        let done = stack::each(memory, symbols, &chosen, limit, |member, live| {
            pointers.extend(live.iter().map(|&pointer| (pointer, member as u32)));
        })?;
        measured.bytes_read += done.bytes;
        for (member, goroutine) in chosen.iter().enumerate() {
            let first = held.partition_point(|held| held.goroutine < goroutine.address);
            let its = held[first..].iter().take_while(|held| held.goroutine == goroutine.address);
            pointers.extend(its.map(|held| (held.pointer, member as u32)));
        }
        let own = if is_marked { Own::Group(group) } else { Own::Unmarked };
        let (holdings, bytes_read) = Members::new(memory, &marker, own, sample, limit).follow(&pointers)?;
        measured.bytes_read += bytes_read;

        let places = held.iter().filter(|held| held.group == Some(group as u16));
        let fixed = g_bytes + places.map(|held| held.bytes).sum::<u64>() / count as u64;
        let together = is_marked.then(|| marker.tally(group).own + fixed * count as u64);
        let shared = is_marked.then(|| marker.tally(group).shared);
        measured.groups.push(Some(summary(&holdings, count, fixed, together, shared)));
    }
    Ok(measured)
}

/// Marks what the live pointers of stacks point to.
fn mark_stacks(
    memory: RemoteMemory,
    symbols: &mut GoSymbols,
    marker: &mut Marker<'_>,
    goroutines: &[Goroutine],
) -> io::Result<()> {
    let done = stack::each(memory, symbols, goroutines, marker.limit(), |_, pointers| {
        pointers.iter().for_each(|&pointer| marker.point(pointer));
    })?;
    marker.charge(done.bytes, done.is_complete);
    Ok(())
}

/// Puts what single members hold, and what all of them do, into figures.
fn summary(
    holdings: &[members::Holding],
    count: usize,
    fixed: u64,
    together: Option<u64>,
    shared: Option<u64>,
) -> Retained {
    let sampled = holdings.len().max(1) as f64;
    let truncated = holdings.iter().filter(|holding| holding.is_truncated).count() as u64;
    let own = holdings.iter().map(|holding| holding.own as f64).sum::<f64>() / sampled;
    let sound = holdings.iter().filter(|holding| !holding.is_astray);
    let also_global =
        sound.clone().map(|holding| holding.also_global as f64).sum::<f64>() / sound.count().max(1) as f64;
    let variance = if holdings.len() > 1 {
        holdings.iter().map(|holding| (holding.own as f64 - own).powi(2)).sum::<f64>() / (sampled - 1.0)
    } else {
        0.0
    };
    // Of a population of `count`, of which `sampled` were looked at.
    let correction = if count > 1 { (1.0 - sampled / count as f64).max(0.0) } else { 0.0 };
    let mut exclusive = own + fixed as f64;
    if let Some(together) = together {
        let all = together as f64 / count as f64;
        // Members that share with a few others look alone in a sample; and a walk that ended early saw too little.
        if exclusive > all || truncated > 0 {
            exclusive = all;
        }
    }
    Retained {
        sampled_members: holdings.len() as u64,
        exclusive_bytes_per_member: exclusive,
        also_global_bytes_per_member: also_global,
        standard_error_bytes: (variance / sampled * correction).sqrt(),
        truncated_members: truncated,
        group_bytes: together,
        shared_with_groups_bytes: shared,
    }
}

/// Reads the stack bounds of every live goroutine, where its list of queue places begins, and what else it holds.
///
/// Only the pointers of a `g` count: the end of its stack, for one, is also where the next span begins.
fn read_goroutines(
    memory: RemoteMemory,
    layout: &Layout,
    heap: &Heap,
    roots: &Roots<'_>,
    measured: &mut Measured,
) -> io::Result<(Vec<Goroutine>, Vec<Place>, Vec<Held>)> {
    const RUNNING: u32 = 2;
    const SYSCALL: u32 = 3;
    let at = &layout.g;
    let length = at.size as usize;
    // From there on nothing but pointers and small numbers.
    let tail = at.waiting + 8..at.size;
    let mut held = Vec::new();
    let mut goroutines = Vec::new();
    let mut sudogs = Vec::new();
    let mut ranges = Vec::with_capacity(BATCH);
    let mut buffer = vec![0; length * BATCH.min(roots.goroutines.len())];
    for (batch, addresses) in roots.goroutines.chunks(BATCH).enumerate() {
        ranges.clear();
        ranges.extend(addresses.iter().map(|&address| (address, length)));
        memory.read_many(&ranges, &mut buffer, |index, g| {
            let Some(g) = g else { return };
            let word = |offset| word64(g, offset).unwrap_or(0);
            // Without the bit that says a collector looks at it.
            let status = word(at.atomicstatus) as u32 & !0x1000;
            let (low, high) = (word(at.stack_lo), word(at.stack_hi));
            let (sp, pc) = match status {
                // Its stack pointer is in a register: all of its stack may be in use.
                RUNNING => (low.max(high.saturating_sub(MAX_STACK)), 0),
                SYSCALL => (word(at.syscallsp), word(at.syscallpc)),
                1 | 4 | 8 | 9 | 10 => (word(at.sched_sp), word(at.sched_pc)),
                _ => return,
            };
            if !(low <= sp && sp < high) {
                return;
            }
            if high - sp > MAX_STACK {
                measured.stacks_truncated += 1;
            }
            let address = addresses[index];
            let group = roots.group_of.get(batch * BATCH + index).copied().flatten();
            goroutines.push(Goroutine {
                address,
                sp: sp & !7,
                pc,
                stack_bytes: (high - sp).min(MAX_STACK) as u32,
                is_syscall: status == SYSCALL,
                group,
                deferred: word(at.defer)
                    .checked_sub(sp)
                    .filter(|_| word(at.defer) < high)
                    .and_then(|offset| u32::try_from(offset).ok()),
            });
            let pointers = [at.panic, at.defer, at.sched_ctxt].into_iter().chain(tail.clone().step_by(8));
            for pointer in pointers.map(word).filter(|&pointer| heap.find(pointer).is_some()) {
                held.push(Held { goroutine: address, group, pointer, bytes: 0 });
            }
            if word(at.waiting) != 0 {
                sudogs.push(Place { sudog: word(at.waiting), goroutine: address, group });
            }
        })?;
    }
    Ok((goroutines, sudogs, held))
}

/// A goroutine's place in a queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    sudog: u64,
    goroutine: u64,
    group: Option<u16>,
}

/// What a goroutine holds besides its stack: by its `g`, or by a place in a queue.
#[derive(Clone, Copy, Debug)]
struct Held {
    goroutine: u64,
    group: Option<u16>,
    pointer: u64,
    /// Of the place in a queue itself.
    bytes: u64,
}

/// Bars every goroutine's places in queues, and adds what they hold: the channel, and what is sent or received.
fn bar_sudogs(
    memory: RemoteMemory,
    layout: &Layout,
    marker: &mut Marker<'_>,
    mut places: Vec<Place>,
    held: &mut Vec<Held>,
) -> io::Result<()> {
    let at = &layout.sudog;
    let length = at.size as usize;
    let mut ranges = Vec::with_capacity(BATCH.min(places.len()));
    let mut buffer = vec![0; length * BATCH.min(places.len())];
    for _ in 0..MAX_SUDOGS {
        let mut next = Vec::new();
        for batch in places.chunks(BATCH) {
            ranges.clear();
            ranges.extend(batch.iter().map(|place| (place.sudog, length)));
            memory.read_many(&ranges, &mut buffer, |index, sudog| {
                let (Some(sudog), Some(&place)) = (sudog, batch.get(index)) else { return };
                // The list of a semaphore goes on to places of other goroutines.
                if word64(sudog, at.g) != Some(place.goroutine) || marker.is_barred(place.sudog) {
                    return;
                }
                let Place { goroutine, group, .. } = place;
                let bytes = marker.bar(place.sudog).unwrap_or(0);
                for (offset, bytes) in [(at.c, bytes), (at.elem, 0)] {
                    let pointer = word64(sudog, offset).unwrap_or(0);
                    // What is sent mostly lies on the stack.
                    if bytes == 0 && marker.heap().find(pointer).is_none() {
                        continue;
                    }
                    held.push(Held { goroutine, group, pointer, bytes });
                }
                match word64(sudog, at.waitlink) {
                    Some(link) if link != 0 => next.push(Place { sudog: link, ..place }),
                    _ => {}
                }
            })?;
        }
        if next.is_empty() {
            break;
        }
        places = next;
    }
    Ok(())
}

/// The bytes that an object of `size` takes, for the few sizes that matter here (multiples of 16 up to 256).
fn size_class(size: u32) -> u64 {
    u64::from(size).next_multiple_of(16)
}
