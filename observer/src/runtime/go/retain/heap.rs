//! The heap as a map: which object an address lies in, and whether that object is allocated.
//!
//! Reads the spans and the bits that say which of their objects are allocated. Costs 56 bytes a span, 32 KiB for
//! each 64 MiB of heap and up to 128 bytes of bits for a span that is not full.

use std::io;

use super::super::layout::PAGE_SIZE;
use super::super::spans::{Span, SpanReader};
use crate::process::memory::{RemoteMemory, USER_ADDRESSES};

/// 64 MiB, what the runtime reserves at a time.
const ARENA_SHIFT: u32 = 26;
const PAGES_IN_ARENA: usize = 1 << (ARENA_SHIFT - PAGE_SIZE.trailing_zeros());
/// 4 TiB between the lowest and the highest span.
const MAX_ARENAS: usize = 1 << 16;
/// Arenas that hold a span, 256 GiB: bounds the memory for a target that lies.
const MAX_TABLES: usize = 1 << 12;
/// Objects with an identity: a byte each in the table of marks.
const MAX_OBJECTS: u64 = 1 << 26;
/// In place of an offset into the bits.
const FULL: u32 = u32::MAX;

/// A span in use by objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeapSpan {
    pub start: u64,
    pub bytes: u64,
    pub elemsize: u64,
    pub nelems: u32,
    /// Number of its first object, counted over all spans.
    pub first: u32,
    pub noscan: bool,
    /// `offset / elemsize == offset * reciprocal >> 32` within a span of several objects.
    reciprocal: u32,
    freeindex: u32,
    bits: u32,
}

/// An object by its span and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub span: u32,
    pub index: u32,
}

/// What of the heap could not be taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeapLosses {
    pub spans_left_out: u64,
}

#[derive(Debug, Default)]
pub(super) struct Heap {
    spans: Vec<HeapSpan>,
    low: u64,
    length: u64,
    /// Number of the arena that `low` lies in.
    first_arena: u64,
    /// Index into `tables` plus one.
    arenas: Vec<u32>,
    /// Index into `spans` plus one, for each page of an arena.
    tables: Vec<Box<[u32]>>,
    bits: Vec<u8>,
    objects: u32,
    pub losses: HeapLosses,
}

impl Heap {
    pub(super) fn read(memory: RemoteMemory, reader: &mut SpanReader) -> io::Result<Self> {
        let mut spans = Vec::new();
        reader.each(|span| {
            if span.state == Span::HEAP {
                spans.push(*span);
            }
        })?;
        let mut heap = Self::of_spans(&spans);
        heap.read_bits(memory, &spans)?;
        Ok(heap)
    }

    /// Lays out the map; every object counts as allocated.
    fn of_spans(spans: &[Span]) -> Self {
        let mut heap = Self::default();
        let low = spans.iter().map(|span| span.start).min().unwrap_or(0);
        let high = spans.iter().map(Span::end).max().unwrap_or(0).min(USER_ADDRESSES.end);
        heap.first_arena = low >> ARENA_SHIFT;
        let arenas = (high >> ARENA_SHIFT).saturating_sub(heap.first_arena) + 1;
        heap.low = low;
        heap.length = high.saturating_sub(low);
        heap.arenas = vec![0; usize::try_from(arenas).unwrap_or(MAX_ARENAS).min(MAX_ARENAS)];
        let mut objects = 0u64;
        for span in spans {
            let nelems = u32::try_from(span.nelems).unwrap_or(u32::MAX);
            let fits = objects + u64::from(nelems) <= MAX_OBJECTS && heap.enter(span);
            if !fits {
                heap.losses.spans_left_out += 1;
                // Keeps the spans in step with the caller's; nothing leads to this one.
                heap.spans.push(HeapSpan::of(span, 0, objects as u32));
                continue;
            }
            heap.spans.push(HeapSpan::of(span, nelems, objects as u32));
            objects += u64::from(nelems);
        }
        heap.objects = objects as u32;
        heap
    }

    /// Writes a span that comes next into the tables of pages.
    fn enter(&mut self, span: &Span) -> bool {
        let entry = self.spans.len() as u32 + 1;
        let mut page = span.start / PAGE_SIZE;
        let end = page.saturating_add(span.pages);
        while page < end {
            let arena = (page / PAGES_IN_ARENA as u64).wrapping_sub(self.first_arena);
            let Some(slot) = usize::try_from(arena).ok().and_then(|arena| self.arenas.get_mut(arena)) else {
                return false;
            };
            if *slot == 0 {
                if self.tables.len() >= MAX_TABLES {
                    return false;
                }
                self.tables.push(vec![0; PAGES_IN_ARENA].into_boxed_slice());
                *slot = self.tables.len() as u32;
            }
            let from = page as usize % PAGES_IN_ARENA;
            let to = (from as u64 + (end - page)).min(PAGES_IN_ARENA as u64) as usize;
            self.tables[*slot as usize - 1][from..to].fill(entry);
            page += (to - from) as u64;
        }
        true
    }

    /// Reads which objects are allocated, for spans that are not full.
    fn read_bits(&mut self, memory: RemoteMemory, spans: &[Span]) -> io::Result<()> {
        let mut ranges = Vec::new();
        let mut of = Vec::new();
        let mut length = 0usize;
        for (index, (span, heap_span)) in spans.iter().zip(&self.spans).enumerate() {
            let bytes = heap_span.nelems.div_ceil(8) as usize;
            if span.freeindex < span.nelems && span.alloc_bits != 0 && bytes <= 1024 && heap_span.nelems != 0
            {
                ranges.push((span.alloc_bits, bytes));
                of.push(index);
                length += bytes;
            }
        }
        self.bits = vec![0; length];
        let mut bits = vec![0; length];
        let mut next = 0;
        memory.read_many(&ranges, &mut bits, |range, read| {
            // What cannot be read counts as allocated.
            let Some(read) = read else { return };
            self.bits[next..next + read.len()].copy_from_slice(read);
            self.spans[of[range]].bits = next as u32;
            next += read.len();
        })
    }

    pub(super) fn objects(&self) -> u32 {
        self.objects
    }

    pub(super) fn spans(&self) -> u32 {
        self.spans.len() as u32
    }

    pub(super) fn span(&self, span: u32) -> &HeapSpan {
        &self.spans[span as usize]
    }

    /// The number of an object, unique over the heap.
    pub(super) fn number(&self, object: Object) -> u32 {
        self.spans[object.span as usize].first + object.index
    }

    /// Bytes of the object with a number; 0 for a number that no object has.
    pub(super) fn size_of(&self, number: u32) -> u64 {
        let after = self.spans.partition_point(|span| span.first <= number);
        let span = after.checked_sub(1).and_then(|index| self.spans.get(index));
        span.filter(|span| number - span.first < span.nelems).map_or(0, |span| span.elemsize)
    }

    pub(super) fn address(&self, object: Object) -> u64 {
        let span = self.span(object.span);
        span.start + u64::from(object.index) * span.elemsize
    }

    /// The allocated object that `address` points to or into.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<Object> {
        if address.wrapping_sub(self.low) >= self.length {
            return None;
        }
        let arena = (address >> ARENA_SHIFT) - self.first_arena;
        let table = *self.arenas.get(arena as usize)?;
        let table = self.tables.get((table as usize).wrapping_sub(1))?;
        let span = table[(address / PAGE_SIZE) as usize % PAGES_IN_ARENA].wrapping_sub(1);
        let found = self.spans.get(span as usize)?;
        let offset = address.wrapping_sub(found.start);
        if offset >= found.bytes {
            return None;
        }
        let index = if found.nelems == 1 { 0 } else { (offset * u64::from(found.reciprocal)) >> 32 } as u32;
        (index < found.nelems && self.is_allocated(found, index)).then_some(Object { span, index })
    }

    fn is_allocated(&self, span: &HeapSpan, index: u32) -> bool {
        index < span.freeindex
            || span.bits == FULL
            || self.bits.get((span.bits + index / 8) as usize).is_none_or(|bits| bits >> (index % 8) & 1 == 1)
    }
}

impl HeapSpan {
    fn of(span: &Span, nelems: u32, first: u32) -> Self {
        Self {
            start: span.start,
            bytes: span.bytes(),
            elemsize: span.elemsize,
            nelems,
            first,
            noscan: span.noscan,
            // As the runtime's `divMul`, exact for offsets in spans of several objects.
            reciprocal: u32::try_from(u64::from(u32::MAX) / span.elemsize.max(1) + 1).unwrap_or(u32::MAX),
            freeindex: u32::try_from(span.freeindex).unwrap_or(u32::MAX),
            bits: FULL,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn span(start: u64, pages: u64, elemsize: u64) -> Span {
        let nelems = pages * PAGE_SIZE / elemsize;
        Span {
            start,
            pages,
            state: Span::HEAP,
            noscan: false,
            elemsize,
            nelems,
            freeindex: nelems,
            allocated: nelems,
            sweepgen: 6,
            alloc_bits: 0,
        }
    }

    #[test]
    fn an_address_finds_the_object_around_it() {
        let spans = [
            span(0xc0_0000_0000, 1, 48),
            span(0xc0_0000_2000, 1, 8192),
            span(0xc0_03ff_e000, 40_000, 40_000 * PAGE_SIZE),
            span(0x1c0_0000_0000, 4, 10_240),
        ];
        let heap = Heap::of_spans(&spans);
        assert_eq!(heap.objects(), 170 + 1 + 1 + 3);
        for (number, span) in spans.iter().enumerate() {
            for index in 0..span.nelems {
                for inside in [0, 1, span.elemsize / 2, span.elemsize - 1] {
                    let found = heap.find(span.start + index * span.elemsize + inside);
                    assert_eq!(found, Some(Object { span: number as u32, index: index as u32 }));
                }
                assert_eq!(
                    heap.address(Object { span: number as u32, index: index as u32 }),
                    span.start + index * span.elemsize
                );
            }
            assert_eq!(heap.find(span.start - 1), None);
        }
        // The rest behind the last object, pages of no span, and the ends of the address space.
        for address in [0xc0_0000_0000 + 170 * 48, 0xc0_0000_4000, 0, 1, u64::MAX, 0x1c0_0000_8000] {
            assert_eq!(heap.find(address), None, "{address:#x}");
        }
    }

    #[test]
    fn what_is_not_allocated_is_not_found() {
        let bits = [0b0000_0101u8; 128];
        let mut with_bits = span(0xc0_0000_0000, 1, 64);
        with_bits.freeindex = 2;
        with_bits.alloc_bits = bits.as_ptr() as u64;
        let unreadable = Span { alloc_bits: 0x1000, freeindex: 0, ..span(0xc0_0000_2000, 1, 64) };
        let spans = [with_bits, unreadable];
        let mut heap = Heap::of_spans(&spans);
        heap.read_bits(RemoteMemory::new(std::process::id()), &spans).unwrap();
        let found: Vec<u64> =
            (0..16).filter(|index| heap.find(0xc0_0000_0000 + index * 64).is_some()).collect();
        assert_eq!(found, [0, 1, 2, 8, 10]);
        assert!((0..128).all(|index| heap.find(0xc0_0000_2000 + index * 64).is_some()));
    }

    #[test]
    fn spans_of_a_liar_are_left_out_and_counted() {
        let spans = [
            span(0x2000, 1, 8),
            span(0x7fff_ffff_0000, 1, 8),
            span(0x4000, (1 << 24) - 1, 8),
            Span { nelems: u64::MAX, ..span(0x8000, 1, 8) },
        ];
        let heap = Heap::of_spans(&spans);
        assert!(heap.losses.spans_left_out >= 2, "{:?}", heap.losses);
        assert!(heap.find(0x2000).is_some());
        for address in (0..1 << 20).step_by(4096) {
            let _ = heap.find(address);
        }
        assert_eq!(Heap::of_spans(&[]).find(0), None);
    }
}
