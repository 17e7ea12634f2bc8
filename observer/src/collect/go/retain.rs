//! Who keeps the heap: bytes that only the goroutines of one group keep reachable.
//!
//! Marks the live heap from outside while the target runs, in colours: first from everything that is not of the
//! groups asked about (global variables, all other goroutines), then from each group. What a group's members
//! reach and nothing before them did is theirs. Conservative: a word that looks like a pointer is one, and a
//! stack is read from its stack pointer up. A goroutine, and its place in a queue, is never walked through:
//! from there everything leads to everything.
//!
//! Costs a read of every reachable object that has pointers: about 0.3 s for 1 GiB of those, nothing for
//! strings and byte slices. Within the budget; where that ends before everything outside is marked, what the
//! members hold in common is taken for the outside's and the result says so.

mod heap;
mod mark;
mod members;

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::layout::Layout;
use super::spans::{SpanReader, word64};
use crate::sample::Retained;
use crate::target::memory::RemoteMemory;
use heap::Heap;
use mark::{Colour, Limit, Marker};
use members::{Members, Own};

pub use mark::MAX_GROUPS;

/// A stack is read so far; deeper ones are rare and counted.
const MAX_STACK: u64 = 1 << 20;
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

/// A goroutine that has a stack to read.
#[derive(Clone, Copy, Debug)]
struct Goroutine {
    address: u64,
    sp: u64,
    stack_bytes: u32,
    group: Option<u16>,
}

pub fn measure(
    memory: RemoteMemory,
    layout: &Layout,
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
    let (goroutines, sudogs) = read_goroutines(memory, layout, roots, &mut measured)?;
    let sudog_bytes_of = bar_sudogs(memory, layout, &mut marker, sudogs, groups)?;

    let g_size = u64::from(layout.g.size);
    let words = |goroutine: &Goroutine| {
        [(goroutine.address, g_size), (goroutine.sp, u64::from(goroutine.stack_bytes))]
    };
    let globals = roots.globals.iter().map(|range| (range.start, range.end.saturating_sub(range.start)));
    let others = goroutines.iter().filter(|goroutine| goroutine.group.is_none());
    marker.walk(Colour::Outside, globals.chain(others.flat_map(words)))?;
    measured.is_complete = !marker.is_exhausted();

    let mut of_group: Vec<Vec<Goroutine>> = vec![Vec::new(); groups];
    for goroutine in goroutines.iter().filter(|goroutine| goroutine.group.is_some()) {
        if let Some(members) = goroutine.group.and_then(|group| of_group.get_mut(usize::from(group))) {
            members.push(*goroutine);
        }
    }
    drop(goroutines);
    for (group, members) in of_group.iter().enumerate() {
        if measured.is_complete {
            marker.walk(Colour::Group(group), members.iter().flat_map(words))?;
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
        let chosen = (0..sample).map(|index| &members[index * count / sample]);
        let tasks: Vec<(u64, u64, u32)> = chosen
            .enumerate()
            .flat_map(|(member, goroutine)| {
                words(goroutine).map(|(address, bytes)| (address, bytes, member as u32))
            })
            .collect();
        let own = if is_marked { Own::Group(group) } else { Own::Unmarked };
        // Following some members is small beside marking, and worth it also when that took all the time.
        let limit = Limit { bytes: budget.bytes / 4, deadline: Instant::now() + budget.time / 4 };
        let (holdings, bytes_read) = Members::new(memory, &marker, own, sample, limit).follow(&tasks)?;
        measured.bytes_read += bytes_read;

        let fixed = g_bytes + sudog_bytes_of[group] / count as u64;
        let together = is_marked.then(|| marker.tally(group).own + fixed * count as u64);
        let shared = is_marked.then(|| marker.tally(group).shared);
        measured.groups.push(Some(summary(&holdings, count, fixed, together, shared)));
    }
    Ok(measured)
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
    let mean = |value: fn(&members::Holding) -> u64| {
        holdings.iter().map(|holding| value(holding) as f64).sum::<f64>() / sampled
    };
    let own = mean(|holding| holding.own);
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
        also_global_bytes_per_member: mean(|holding| holding.also_global),
        standard_error_bytes: (variance / sampled * correction).sqrt(),
        truncated_members: truncated,
        group_bytes: together,
        shared_with_groups_bytes: shared,
    }
}

/// Reads the stack bounds of every live goroutine, and where its list of queue places begins.
fn read_goroutines(
    memory: RemoteMemory,
    layout: &Layout,
    roots: &Roots<'_>,
    measured: &mut Measured,
) -> io::Result<(Vec<Goroutine>, Vec<Place>)> {
    const RUNNING: u32 = 2;
    const SYSCALL: u32 = 3;
    let at = &layout.g;
    let length =
        [at.stack_hi, at.sched_sp, at.syscallsp, at.atomicstatus, at.waiting].into_iter().max().unwrap_or(0)
            as usize
            + 8;
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
            let sp = match status {
                // Its stack pointer is in a register: all of its stack may be in use.
                RUNNING => low.max(high.saturating_sub(MAX_STACK)),
                SYSCALL => word(at.syscallsp),
                1 | 4 | 8 | 9 | 10 => word(at.sched_sp),
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
                stack_bytes: (high - sp).min(MAX_STACK) as u32,
                group,
            });
            if word(at.waiting) != 0 {
                sudogs.push(Place { sudog: word(at.waiting), goroutine: address, group });
            }
        })?;
    }
    Ok((goroutines, sudogs))
}

/// A goroutine's place in a queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    sudog: u64,
    goroutine: u64,
    group: Option<u16>,
}

/// Bars every goroutine's places in queues; their bytes, by group.
fn bar_sudogs(
    memory: RemoteMemory,
    layout: &Layout,
    marker: &mut Marker<'_>,
    mut places: Vec<Place>,
    groups: usize,
) -> io::Result<Vec<u64>> {
    let mut bytes_of = vec![0; groups];
    let length = layout.sudog.size as usize;
    let mut ranges = Vec::with_capacity(BATCH);
    let mut buffer = vec![0; length * BATCH.min(places.len())];
    for _ in 0..MAX_SUDOGS {
        let mut next = Vec::new();
        for batch in places.chunks(BATCH) {
            ranges.clear();
            ranges.extend(batch.iter().map(|place| (place.sudog, length)));
            memory.read_many(&ranges, &mut buffer, |index, sudog| {
                let (Some(sudog), place) = (sudog, batch[index]) else { return };
                // The list of a semaphore goes on to places of other goroutines.
                if word64(sudog, layout.sudog.g) != Some(place.goroutine) || marker.is_barred(place.sudog) {
                    return;
                }
                let bytes = marker.bar(place.sudog).unwrap_or(0);
                if let Some(sum) = place.group.and_then(|group| bytes_of.get_mut(usize::from(group))) {
                    *sum += bytes;
                }
                match word64(sudog, layout.sudog.waitlink) {
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
    Ok(bytes_of)
}

/// The bytes that an object of `size` takes, for the few sizes that matter here (multiples of 16 up to 256).
fn size_class(size: u32) -> u64 {
    u64::from(size).next_multiple_of(16)
}
