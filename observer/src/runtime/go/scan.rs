//! One pass over all goroutines: who is where, and which stacks have to be read for that.
//!
//! Goes through `runtime.allgs` in order of address, a thousand at a time: reads the `g` structs,
//! then the stacks of those that ran since the last pass, then those structs again. What changed between
//! is torn: tried once more, then counted and left out. Costs about 0.1 µs a goroutine that did not move
//! and 1 µs one that did; memory 44 bytes a goroutine, with its entry among the members.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io;

use super::g::{self, G};
use super::layout::{GLayout, SudogLayout};
use super::symbol::GoSymbols;
use super::symbol::traceback::{is_system, runs_finalizers};
use super::unwind::{self, Context, End, Window};
use super::{coalesced, status, waits_on};
use crate::process::memory::RemoteMemory;
use crate::runtime::tasks::groups::Key;
use crate::runtime::tasks::members::{Members, Seen};
use crate::symbol::address_hash::AddressHasher;

/// Goroutines of one round.
const BATCH: usize = 1024;
/// The part of each stack that is read at first; it grows where that is seldom enough.
const FIRST_WINDOW: u64 = 768;
const MAX_FIRST_WINDOW: u64 = 8 << 10;
const SECOND_WINDOW: u64 = 16 << 10;
/// Of one stack, at most.
const MAX_WINDOW: u64 = 4 << 20;
/// Of all stacks deeper than the second window, in one pass.
const MAX_DEEP_BYTES: u64 = 128 << 20;
/// Stacks of the second window that are read in one call.
const SECOND_BATCH: usize = 128;
const MAX_STARTS: usize = 1 << 16;
/// Channels and locks that are asked for in one pass; the rest is in the next.
const MAX_OBJECTS: usize = 1 << 18;

/// What one pass saw, beyond what is among the members.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass {
    pub goroutines: u64,
    /// Changed while they were read, twice.
    pub torn: u64,
    /// No valid goroutine where one should be.
    pub invalid: u64,
    /// Stacks that end in what is no Go code, or whose end was not reached.
    pub incomplete: u64,
    /// Deeper than what is kept of a stack.
    pub shortened: u64,
}

#[derive(Debug)]
pub(super) struct AllgsScanner {
    memory: RemoteMemory,
    /// System calls do not count as moves since 1.26, so their stacks are read each time.
    counts_syscalls: bool,
    /// By place in allgs.
    pointers: Vec<u64>,
    /// Places in allgs, by address.
    order: Vec<u32>,
    owners: HashMap<u64, Owner, BuildHasherDefault<AddressHasher>>,
    /// Wait reasons of a finalizer's or cleanup's goroutine that has nothing to do.
    idle_reasons: Vec<u8>,
    window: u64,
    head_buffer: Vec<u8>,
    stack_buffer: Vec<u8>,
    /// Places whose object is not known yet, with the sudog that names it.
    unnamed: Vec<(u32, u64)>,
}

/// Whose goroutine it is, by the function that it began in.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Program,
    Runtime,
    /// The runtime's, but it calls the program's functions.
    Finalizers,
}

/// A goroutine whose stack has to be read.
struct Pending {
    place: u32,
    head: G,
    pcs: std::ops::Range<usize>,
    end: End,
}

impl AllgsScanner {
    pub(super) fn new(memory: RemoteMemory, minor: u32, reasons: &[String]) -> Self {
        let is_idle = |reason: &str| matches!(reason, "finalizer wait" | "cleanup wait");
        Self {
            memory,
            counts_syscalls: minor < 26,
            pointers: Vec::new(),
            order: Vec::new(),
            owners: HashMap::default(),
            idle_reasons: (0..=u8::MAX)
                .filter(|&number| reasons.get(usize::from(number)).is_some_and(|reason| is_idle(reason)))
                .collect(),
            window: FIRST_WINDOW,
            head_buffer: Vec::new(),
            stack_buffer: Vec::new(),
            unnamed: Vec::new(),
        }
    }

    /// Addresses of the `g` structs, in the order of allgs, as members have their places.
    pub(super) fn pointers(&self) -> &[u64] {
        &self.pointers
    }

    /// Takes a new list of goroutines. It is the old one with more at its end.
    pub(super) fn set_pointers(&mut self, pointers: Vec<u64>, members: &mut Members) {
        let stable = pointers.starts_with(&self.pointers);
        if stable && pointers.len() == self.pointers.len() {
            return;
        }
        members.resize(pointers.len(), stable);
        self.order = (0..pointers.len() as u32).collect();
        self.order.sort_unstable_by_key(|&place| pointers.get(place as usize).copied());
        self.pointers = pointers;
    }

    /// Looks at every goroutine.
    pub(super) fn pass(
        &mut self,
        g: &GLayout,
        symbols: &mut GoSymbols,
        members: &mut Members,
        monotonic_nanos: u64,
    ) -> io::Result<Pass> {
        let mut pass = Pass::default();
        let mut deep_bytes = MAX_DEEP_BYTES;
        let order = std::mem::take(&mut self.order);
        let mut torn = Vec::new();
        let result = (|| {
            for places in order.chunks(BATCH) {
                self.round(
                    g,
                    symbols,
                    members,
                    monotonic_nanos,
                    places,
                    &mut torn,
                    &mut deep_bytes,
                    &mut pass,
                )?;
            }
            let again = std::mem::take(&mut torn);
            for places in again.chunks(BATCH) {
                self.round(
                    g,
                    symbols,
                    members,
                    monotonic_nanos,
                    places,
                    &mut torn,
                    &mut deep_bytes,
                    &mut pass,
                )?;
            }
            Ok(())
        })();
        self.order = order;
        // Those stay in the group they were in, uncounted, so that they do not seem to leave and come back.
        pass.torn = torn.len() as u64;
        pass.goroutines += pass.torn;
        result.map(|()| pass)
    }

    #[expect(clippy::too_many_arguments, reason = "one pass's state, borrowed apart")]
    fn round(
        &mut self,
        g: &GLayout,
        symbols: &mut GoSymbols,
        members: &mut Members,
        monotonic_nanos: u64,
        places: &[u32],
        torn: &mut Vec<u32>,
        deep_bytes: &mut u64,
        pass: &mut Pass,
    ) -> io::Result<()> {
        let addresses = self.addresses(places.iter().copied());
        let mut heads = Vec::with_capacity(places.len());
        let mut buffer = std::mem::take(&mut self.head_buffer);
        let read = g::read(self.memory, g, &addresses, &mut buffer, |index, head| heads.push((index, head)));
        self.head_buffer = buffer;
        read?;

        let mut pending = Vec::new();
        for (index, head) in heads {
            let Some(&place) = places.get(index) else { continue };
            let Some(head) = head else {
                pass.invalid += 1;
                members.vacate(place as usize);
                continue;
            };
            if let Some(head) = self.settle(place, head, symbols, members, monotonic_nanos, pass) {
                pending.push(Pending { place, head, pcs: 0..0, end: End::Lost });
            }
        }
        if pending.is_empty() {
            return Ok(());
        }
        let mut pcs = Vec::new();
        self.read_stacks(&mut pending, symbols, deep_bytes, &mut pcs)?;

        // What ran while its stack was read is torn.
        let addresses = self.addresses(pending.iter().map(|pending| pending.place));
        let mut still = vec![false; pending.len()];
        let mut buffer = std::mem::take(&mut self.head_buffer);
        let read = g::read(self.memory, g, &addresses, &mut buffer, |index, head| {
            if let (Some(still), Some(pending), Some(head)) = (still.get_mut(index), pending.get(index), head)
            {
                *still = head.is_still(&pending.head);
            }
        });
        self.head_buffer = buffer;
        read?;
        for (pending, still) in pending.into_iter().zip(still) {
            if !still {
                torn.push(pending.place);
                continue;
            }
            let mut stack = pcs.get(pending.pcs).unwrap_or_default().to_vec();
            if pending.end != End::Top {
                pass.incomplete += 1;
            }
            if unwind::shorten(&mut stack) {
                pass.shortened += 1;
            }
            self.join(pending.place, &pending.head, &stack, members, monotonic_nanos, pass);
        }
        Ok(())
    }

    fn addresses(&self, places: impl Iterator<Item = u32>) -> Vec<u64> {
        places.map(|place| self.pointers.get(place as usize).copied().unwrap_or(0)).collect()
    }

    /// Counts a goroutine whose stack need not be read; gives the others back.
    fn settle(
        &mut self,
        place: u32,
        head: G,
        symbols: &mut GoSymbols,
        members: &mut Members,
        monotonic_nanos: u64,
        pass: &mut Pass,
    ) -> Option<G> {
        if status::is_dead(head.status) {
            members.vacate(place as usize);
            return None;
        }
        let entry = members.entry(place as usize);
        let same_stack = self.counts_syscalls || head.status != status::SYSCALL;
        if same_stack && entry.is_unmoved(head.mark()) {
            pass.goroutines += 1;
            members.stay(place as usize, seen(&head, monotonic_nanos));
            self.ask_object(place, entry.object, &head);
            return None;
        }
        if self.is_system(&head, symbols) {
            members.vacate(place as usize);
            return None;
        }
        if !status::has_readable_stack(head.status) {
            self.join(place, &head, &[], members, monotonic_nanos, pass);
            return None;
        }
        Some(head)
    }

    /// Whether it belongs to the runtime. A finalizer's or cleanup's does while it waits for work.
    fn is_system(&mut self, head: &G, symbols: &mut GoSymbols) -> bool {
        if self.owners.len() >= MAX_STARTS {
            self.owners.clear();
        }
        let owner =
            *self.owners.entry(head.start).or_insert_with(|| match symbols.function_name(head.start) {
                Some(name) if runs_finalizers(&name) => Owner::Finalizers,
                Some(name) if is_system(&name) => Owner::Runtime,
                _ => Owner::Program,
            });
        match owner {
            Owner::Program => false,
            Owner::Runtime => true,
            Owner::Finalizers => head.status == status::WAITING && self.idle_reasons.contains(&head.reason),
        }
    }

    /// Puts a goroutine into the group of its stack.
    fn join(
        &mut self,
        place: u32,
        head: &G,
        stack: &[u64],
        members: &mut Members,
        monotonic_nanos: u64,
        pass: &mut Pass,
    ) {
        let reason = if has_reason(head) { head.reason } else { 0 };
        let key = Key::new(head.status as u8, reason, head.creator, stack);
        pass.goroutines += 1;
        members.join(place as usize, head.mark(), key, stack, seen(head, monotonic_nanos));
        self.ask_object(place, members.entry(place as usize).object, head);
    }

    /// Notes that what a goroutine waits on is still to be read.
    fn ask_object(&mut self, place: u32, object: u64, head: &G) {
        if object == 0 && head.waiting != 0 && self.unnamed.len() < MAX_OBJECTS {
            self.unnamed.push((place, head.waiting));
        }
    }

    /// Lets go of what is only needed while reading.
    pub(super) fn rest(&mut self) {
        self.head_buffer = Vec::new();
        self.stack_buffer = Vec::new();
    }

    /// Reads what the goroutines wait on of which that is not known.
    pub(super) fn name_objects(&mut self, layout: &SudogLayout, members: &mut Members) -> io::Result<()> {
        let unnamed = std::mem::take(&mut self.unnamed);
        let mut buffer = std::mem::take(&mut self.head_buffer);
        for some in unnamed.chunks(BATCH) {
            let sudogs: Vec<(u64, u64)> = some
                .iter()
                .map(|&(place, sudog)| (self.pointers.get(place as usize).copied().unwrap_or(0), sudog))
                .collect();
            waits_on::read_objects(self.memory, layout, &sudogs, &mut buffer, |index, object| {
                if let Some(&(place, _)) = some.get(index) {
                    members.set_object(place as usize, object);
                }
            })?;
        }
        self.head_buffer = buffer;
        Ok(())
    }

    /// Copies the stacks of `pending` and walks them into `pcs`.
    fn read_stacks(
        &mut self,
        pending: &mut [Pending],
        symbols: &mut GoSymbols,
        deep_bytes: &mut u64,
        pcs: &mut Vec<u64>,
    ) -> io::Result<()> {
        let all: Vec<usize> = (0..pending.len()).collect();
        let asked = all.len();
        let more = self.read_windows(pending, &all, self.window, symbols, pcs)?;
        if more.len() * 4 > asked {
            self.window = (self.window * 2).min(MAX_FIRST_WINDOW);
        } else if more.is_empty() && self.window > FIRST_WINDOW {
            self.window -= self.window / 8;
        }
        let mut deep = Vec::new();
        for some in more.chunks(SECOND_BATCH) {
            deep.extend(self.read_windows(pending, some, SECOND_WINDOW, symbols, pcs)?);
        }
        for index in deep {
            let mut window = SECOND_WINDOW;
            while window < MAX_WINDOW {
                window = (window * 4).min(MAX_WINDOW);
                let Some(rest) = deep_bytes.checked_sub(window) else { break };
                *deep_bytes = rest;
                if self.read_windows(pending, &[index], window, symbols, pcs)?.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Walks the stacks of some of `pending` in copies of so many bytes each; those that need more.
    fn read_windows(
        &mut self,
        pending: &mut [Pending],
        indices: &[usize],
        window: u64,
        symbols: &mut GoSymbols,
        pcs: &mut Vec<u64>,
    ) -> io::Result<Vec<usize>> {
        let ranges: Vec<(u64, usize)> = indices
            .iter()
            .filter_map(|&index| pending.get(index))
            .map(|pending| stack_range(&pending.head, window))
            .collect();
        let mut buffer = std::mem::take(&mut self.stack_buffer);
        let mut more = Vec::new();
        let read = coalesced::read(self.memory, &ranges, &mut buffer, |index, bytes| {
            let Some(&index) = indices.get(index) else { return };
            let Some(pending) = pending.get_mut(index) else { return };
            let context: Context = pending.head.context();
            let bytes = bytes.unwrap_or_default();
            let window = Window { start: context.sp, bytes, high: pending.head.stack_high };
            // The last attempt's pcs stay behind unused until the round is over.
            let start = pcs.len();
            pending.end = unwind::walk(symbols, context, window, pcs);
            pending.pcs = start..pcs.len();
            if pending.end == End::NeedsMore && !bytes.is_empty() {
                more.push(index);
            }
        });
        // One deep stack must not hold megabytes for good.
        if buffer.capacity() as u64 > 2 * MAX_WINDOW {
            buffer = Vec::new();
        }
        self.stack_buffer = buffer;
        read.map(|()| more)
    }
}

/// The part of a stack to copy. Empty, and so not walked far, where the registers point elsewhere.
fn stack_range(head: &G, window: u64) -> (u64, usize) {
    let sp = head.context().sp;
    if sp < head.stack_low || sp >= head.stack_high {
        return (0, 0);
    }
    (sp, (head.stack_high - sp).min(window) as usize)
}

/// Whether the runtime keeps a wait reason, and the time since when, of a goroutine in this state.
fn has_reason(head: &G) -> bool {
    matches!(head.status, status::WAITING | status::LEAKED)
}

fn seen(head: &G, monotonic_nanos: u64) -> Seen {
    // Stamped by the garbage collector, so it begins late or is missing.
    let waited = match head.wait_since {
        since if since > 0 && since <= monotonic_nanos => (monotonic_nanos - since) as f32 / 1e9,
        _ => 0.0,
    };
    Seen { stack_bytes: head.stack_bytes(), waits: has_reason(head), waited }
}
