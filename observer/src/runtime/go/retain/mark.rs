//! Marks what is reachable, in colours: by anything outside the groups looked at, by one group, by several.
//!
//! A byte an object. Grey objects wait by span, so that those of one span are read together and the queue is
//! never longer than the list of spans. Reads each reachable object with pointers once a colour; objects
//! without pointers are never read. Costs about 3 ms for 1 MiB read where every word is a pointer, until the
//! budget is used up.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::heap::{Heap, Object};
use crate::process::memory::{MAX_RANGES, RemoteMemory};

/// Groups that have a colour.
pub const MAX_GROUPS: usize = 60;

const BUFFER: u64 = 1 << 20;
const PIECE: u64 = 256 << 10;

/// Sizes that an object with a `runtime.p` may have.
const PROCESSOR_BYTES: std::ops::RangeInclusive<u64> = 8193..=16384;
/// What a `wbBuf` holds, 512 pointers.
const BUFFERED_BYTES: u64 = 4096;

const WHITE: u8 = 0;
/// Reached by something outside the groups: globals, other goroutines.
const OUTSIDE: u8 = 1;
/// Goroutines and their places in queues: they lead everywhere and are never walked through.
const BARRIER: u8 = 2;
const OWN: u8 = 3;
const SHARED: u8 = OWN + MAX_GROUPS as u8;
/// Reached, its words not read yet.
const GREY: u8 = 0x80;

/// Who marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Outside,
    Group(usize),
}

/// What reaches an object, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    Nothing,
    Outside,
    Barrier,
    Group(usize),
    Groups,
}

/// What a walk may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub bytes: u64,
    pub deadline: Instant,
}

impl Limit {
    pub(super) fn is_reached(&self, bytes: u64) -> bool {
        bytes >= self.bytes || Instant::now() >= self.deadline
    }
}

/// Bytes of the objects that only one group reaches, and of those that it reaches together with other groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub own: u64,
    pub shared: u64,
}

#[derive(Debug)]
pub(super) struct Marker<'h> {
    memory: RemoteMemory,
    heap: &'h Heap,
    state: Vec<u8>,
    queue: VecDeque<u32>,
    is_queued: Vec<bool>,
    /// What is left to read of large objects: address and bytes.
    large: Vec<(u64, u64)>,
    colour: Colour,
    tallies: Vec<Tally>,
    /// Bytes of an object that holds a `sudog`.
    sudog_bytes: u64,
    buffer: Vec<u8>,
    limit: Limit,
    bytes_read: u64,
    is_exhausted: bool,
}

impl<'h> Marker<'h> {
    pub(super) fn new(
        memory: RemoteMemory,
        heap: &'h Heap,
        groups: usize,
        sudog_bytes: u64,
        limit: Limit,
    ) -> Self {
        Self {
            memory,
            heap,
            state: vec![WHITE; heap.objects() as usize],
            queue: VecDeque::new(),
            is_queued: vec![false; heap.spans() as usize],
            large: Vec::new(),
            colour: Colour::Outside,
            tallies: vec![Tally::default(); groups.min(MAX_GROUPS)],
            sudog_bytes,
            buffer: Vec::new(),
            limit,
            bytes_read: 0,
            is_exhausted: false,
        }
    }

    pub(super) fn heap(&self) -> &'h Heap {
        self.heap
    }

    /// Whether the budget ended a walk before everything reachable was reached.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    pub(super) fn tally(&self, group: usize) -> Tally {
        self.tallies.get(group).copied().unwrap_or_default()
    }

    pub(super) fn reached(&self, number: u32) -> Reached {
        match self.state.get(number as usize).map_or(WHITE, |state| state & !GREY) {
            WHITE => Reached::Nothing,
            OUTSIDE => Reached::Outside,
            BARRIER => Reached::Barrier,
            state if state < SHARED => Reached::Group(usize::from(state - OWN)),
            _ => Reached::Groups,
        }
    }

    /// Makes the object at `address` one that no walk goes through; its size.
    pub(super) fn bar(&mut self, address: u64) -> Option<u64> {
        let object = self.heap.find(address)?;
        let state = self.state.get_mut(self.heap.number(object) as usize)?;
        *state = BARRIER;
        Some(self.heap.span(object.span).elemsize)
    }

    pub(super) fn is_barred(&self, address: u64) -> bool {
        self.heap
            .find(address)
            .is_some_and(|object| self.reached(self.heap.number(object)) == Reached::Barrier)
    }

    /// Whether bytes of an object are a `sudog` in a queue that its goroutine does not list (a semaphore's up
    /// to 1.25): the queue leads from each waiter to all others.
    pub(super) fn is_sudog(&self, object: &[u8]) -> bool {
        object.len() as u64 == self.sudog_bytes
            && object.first_chunk().is_some_and(|word| self.is_barred(u64::from_le_bytes(*word)))
    }

    /// From here on what is reached has this colour.
    pub(super) fn begin(&mut self, colour: Colour) {
        self.colour = colour;
    }

    /// Marks what `address` points to; what that leads to follows with the next [`Self::walk`].
    #[inline]
    pub(super) fn point(&mut self, address: u64) {
        if let Some(object) = self.heap.find(address) {
            self.mark(object);
        }
    }

    /// Counts what was read elsewhere for this walk.
    pub(super) fn charge(&mut self, bytes: u64, is_complete: bool) {
        self.bytes_read += bytes;
        self.is_exhausted |= !is_complete;
    }

    pub(super) fn limit(&self) -> Limit {
        self.limit
    }

    /// Marks everything reachable from what was pointed to and from the words in `roots` (address, bytes).
    pub(super) fn walk(&mut self, roots: impl Iterator<Item = (u64, u64)>) -> io::Result<()> {
        let mut ranges = Vec::new();
        let mut bytes = 0;
        for (mut address, mut left) in roots {
            while left > 0 {
                let piece = left.min(PIECE);
                if bytes + piece > BUFFER || ranges.len() >= MAX_RANGES {
                    self.read(&mut ranges, &[])?;
                    bytes = 0;
                    if self.is_over() {
                        return Ok(());
                    }
                }
                ranges.push((address, piece as usize));
                bytes += piece;
                address = address.saturating_add(piece);
                left -= piece;
            }
        }
        self.read(&mut ranges, &[])?;
        self.drain()
    }

    fn is_over(&mut self) -> bool {
        self.is_exhausted |= self.limit.is_reached(self.bytes_read);
        self.is_exhausted
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut ranges = Vec::new();
        let mut looked_at = Vec::new();
        while !(self.queue.is_empty() && self.large.is_empty()) {
            if self.is_over() {
                return Ok(());
            }
            let mut bytes = 0;
            looked_at.clear();
            while bytes < BUFFER - PIECE
                && let Some((address, left)) = self.large.pop()
            {
                let piece = left.min(PIECE);
                ranges.push((address, piece as usize));
                looked_at.push(0);
                bytes += piece;
                if left > piece {
                    self.large.push((address + piece, left - piece));
                }
            }
            while bytes < BUFFER - PIECE
                && ranges.len() < MAX_RANGES
                && let Some(span) = self.queue.pop_front()
            {
                bytes += self.take_grey(span, &mut ranges, &mut looked_at);
            }
            self.read(&mut ranges, &looked_at)?;
        }
        Ok(())
    }

    /// Takes the grey objects of a span as ranges to read; their bytes.
    fn take_grey(&mut self, number: u32, ranges: &mut Vec<(u64, usize)>, looked_at: &mut Vec<usize>) -> u64 {
        self.is_queued[number as usize] = false;
        let span = *self.heap.span(number);
        let first = span.first as usize;
        let Some(states) = self.state.get_mut(first..first + span.nelems as usize) else { return 0 };
        if span.elemsize > PIECE {
            for (index, state) in states.iter_mut().enumerate().filter(|(_, state)| **state & GREY != 0) {
                *state &= !GREY;
                self.large.push((span.start + index as u64 * span.elemsize, span.elemsize));
            }
            return 0;
        }
        let mut bytes = 0;
        let mut end_of_last = 0;
        for (index, state) in states.iter_mut().enumerate().filter(|(_, state)| **state & GREY != 0) {
            *state &= !GREY;
            let address = span.start + index as u64 * span.elemsize;
            match ranges.last_mut() {
                Some((_, length)) if address == end_of_last => *length += span.elemsize as usize,
                _ => {
                    ranges.push((address, span.elemsize as usize));
                    // Objects that may be of a kind to be read with care; 0 for none of them.
                    let is_special =
                        span.elemsize == self.sudog_bytes || PROCESSOR_BYTES.contains(&span.elemsize);
                    looked_at.push(if is_special { span.elemsize as usize } else { 0 });
                }
            }
            end_of_last = address + span.elemsize;
            bytes += span.elemsize;
        }
        bytes
    }

    fn read(&mut self, ranges: &mut Vec<(u64, usize)>, looked_at: &[usize]) -> io::Result<()> {
        let bytes: usize = ranges.iter().map(|(_, length)| length).sum();
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        let memory = self.memory;
        let result = memory.read_many(ranges, &mut buffer, |index, words| {
            // An object that is gone leads nowhere.
            let Some(words) = words else { return };
            let size = looked_at.get(index).copied().unwrap_or(0);
            if size == 0 {
                return self.scan(words);
            }
            let first = ranges.get(index).map_or(0, |&(address, _)| address);
            for (number, object) in words.chunks_exact(size).enumerate() {
                if self.is_sudog(object) {
                    continue;
                }
                let start = processor_timers(first + (number * size) as u64, object).unwrap_or(0);
                self.scan(object.get(start..).unwrap_or_default());
            }
        });
        self.bytes_read += bytes as u64;
        self.buffer = buffer;
        ranges.clear();
        result
    }

    fn scan(&mut self, words: &[u8]) {
        for word in words.as_chunks::<8>().0 {
            self.point(u64::from_le_bytes(*word));
        }
    }

    #[inline]
    fn mark(&mut self, object: Object) {
        let number = self.heap.number(object) as usize;
        let Some(state) = self.state.get_mut(number) else { return };
        let old = *state & !GREY;
        let span = self.heap.span(object.span);
        let new = match self.colour {
            Colour::Outside if old == WHITE => OUTSIDE,
            Colour::Outside => return,
            Colour::Group(group) => {
                let (own, shared) = (OWN + group as u8, SHARED + group as u8);
                let bytes = span.elemsize;
                if old == OUTSIDE || old == BARRIER || old == own || old == shared {
                    return;
                }
                if old == WHITE {
                    self.tallies[group].own += bytes;
                    own
                } else {
                    if old < SHARED {
                        let other = &mut self.tallies[usize::from(old - OWN)];
                        other.own = other.own.saturating_sub(bytes);
                        other.shared += bytes;
                    }
                    self.tallies[group].shared += bytes;
                    shared
                }
            }
        };
        if span.noscan {
            *state = new;
            return;
        }
        *state = new | GREY;
        if !std::mem::replace(&mut self.is_queued[object.span as usize], true) {
            self.queue.push_back(object.span);
        }
    }
}

/// Where in an object that holds a `runtime.p` its timers and little else follow.
///
/// What lies before them holds nothing and looks as if it did: free pages by address, and what the write
/// barrier has noted, which is never cleared. Told by the two words in front of that buffer: where its next
/// entry goes, and where it ends.
fn processor_timers(address: u64, object: &[u8]) -> Option<usize> {
    if !PROCESSOR_BYTES.contains(&(object.len() as u64)) {
        return None;
    }
    let words = object.as_chunks::<8>().0;
    words.windows(2).enumerate().find_map(|(index, pair)| {
        let [next, end] = [pair[0], pair[1]].map(u64::from_le_bytes);
        let start = index * 8 + 16;
        let begins_at = address.checked_add(start as u64)?;
        let is_it = begins_at.checked_add(BUFFERED_BYTES) == Some(end) && (begins_at..=end).contains(&next);
        let after = start + BUFFERED_BYTES as usize;
        (is_it && after <= object.len()).then_some(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_told_by_its_pointers_to_itself() {
        let address = 0xc0_0000_2000u64;
        let mut object = vec![0x11u8; 9472];
        assert_eq!(processor_timers(address, &object), None);
        let starts_at = address + 4680 + 16;
        object[4680..4688].copy_from_slice(&(starts_at + 80).to_le_bytes());
        object[4688..4696].copy_from_slice(&(starts_at + 4096).to_le_bytes());
        assert_eq!(processor_timers(address, &object), Some(4696 + 4096));
        assert_eq!(processor_timers(address + 8, &object), None);
        // One that would reach over the end of the object.
        let mut cut = object[..8200].to_vec();
        cut[8000..8016].copy_from_slice(&object[4680..4696]);
        cut[4680..4696].fill(0);
        assert_eq!(processor_timers(address - 3320, &cut), None);
    }
}
