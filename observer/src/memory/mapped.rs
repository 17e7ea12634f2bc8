//! Bytes of address space that changed hands, as the difference of two memory maps.
//!
//! For where the calls themselves are not traced. What is mapped and unmapped again between two samples is
//! not seen, and which call did it is read off what became of the addresses. Pure; linear in the mappings.

use observer_common::mapped::Call;

use crate::process::maps::Mapping;
use crate::sample::{Mapped, MappedSource};

/// What a range of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Free,
    /// `PROT_NONE`: address space without memory.
    Reserved,
    Usable,
    Heap,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    kind: Kind,
}

/// Sums up the differences of a target's maps since the first.
#[derive(Clone, Debug, Default)]
pub(crate) struct MapsDifference {
    before: Option<Vec<Range>>,
    total: Mapped,
}

impl MapsDifference {
    /// Takes the target's map of now; the bytes since the first map.
    pub(crate) fn update(&mut self, maps: &[Mapping]) -> &Mapped {
        let now: Vec<Range> = maps.iter().map(range).collect();
        self.total.source = MappedSource::Maps;
        if let Some(before) = self.before.replace(now.clone()) {
            difference(&before, &now, |before, now, bytes| self.count(before, now, bytes));
        }
        &self.total
    }

    fn count(&mut self, before: Kind, now: Kind, bytes: u64) {
        let (call, mapped) = match (before, now) {
            (Kind::Free, Kind::Reserved) => (Call::MmapReserve, true),
            (Kind::Free, Kind::Usable) => (Call::Mmap, true),
            (Kind::Free, Kind::Heap) => (Call::Brk, true),
            (Kind::Reserved, Kind::Usable | Kind::Heap) => (Call::Mprotect, true),
            (Kind::Usable | Kind::Heap, Kind::Reserved) => (Call::Mprotect, false),
            (Kind::Heap, Kind::Free) => (Call::Brk, false),
            (Kind::Usable | Kind::Reserved, Kind::Free) => (Call::Munmap, false),
            _ => return,
        };
        let sums = if mapped { &mut self.total.mapped_bytes } else { &mut self.total.unmapped_bytes };
        let sum = sums.entry(call.name().into()).or_default();
        *sum = sum.saturating_add(bytes);
    }
}

fn range(mapping: &Mapping) -> Range {
    let usable = mapping.readable || mapping.writable || mapping.executable;
    let kind = match mapping.path.as_str() {
        "[heap]" => Kind::Heap,
        _ if usable => Kind::Usable,
        _ => Kind::Reserved,
    };
    Range { start: mapping.start, end: mapping.end, kind }
}

/// Goes through both lists by address and names every stretch with what it was and what it is.
fn difference(before: &[Range], now: &[Range], mut stretch: impl FnMut(Kind, Kind, u64)) {
    let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
    let mut at = 0u64;
    while old.peek().is_some() || new.peek().is_some() {
        // What holds at `at`, and how far.
        let mut end = u64::MAX;
        let mut kind_at = |next: Option<&&Range>| match next {
            Some(range) if range.start > at => {
                end = end.min(range.start);
                Kind::Free
            }
            Some(range) => {
                end = end.min(range.end);
                range.kind
            }
            None => Kind::Free,
        };
        let (was, is) = (kind_at(old.peek()), kind_at(new.peek()));
        // A list out of order cannot take us back.
        if end > at {
            if was != is {
                stretch(was, is, end - at);
            }
            at = end;
        }
        while old.next_if(|range| range.end <= at).is_some() {}
        while new.next_if(|range| range.end <= at).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::process::maps;
    use crate::sample::MappedCall;

    fn bytes(list: &[(&str, u64)]) -> BTreeMap<MappedCall, u64> {
        list.iter().map(|&(name, bytes)| (name.into(), bytes)).collect()
    }

    #[test]
    fn every_change_has_its_call() {
        let mut mapped = MapsDifference::default();
        let first = maps::parse(
            b"1000-3000 rw-p 0 00:00 0 [heap]\n\
              10000-14000 rw-p 0 00:00 0\n\
              20000-30000 ---p 0 00:00 0\n\
              40000-41000 r--p 0 00:00 7 /lib/x\n",
        );
        assert_eq!(mapped.update(&first).mapped_bytes, bytes(&[]));
        assert_eq!(*mapped.update(&first), Mapped { source: "maps".into(), ..Mapped::default() });
        let second = maps::parse(
            b"1000-5000 rw-p 0 00:00 0 [heap]\n\
              12000-14000 rw-p 0 00:00 0\n\
              20000-24000 rw-p 0 00:00 0\n\
              24000-30000 ---p 0 00:00 0\n\
              40000-41000 r-xp 0 00:00 7 /lib/x\n\
              50000-58000 rw-p 0 00:00 0\n\
              60000-70000 ---p 0 00:00 0\n",
        );
        let seen = mapped.update(&second);
        let expected = [("brk", 0x2000), ("mprotect", 0x4000), ("mmap", 0x8000), ("mmap_reserve", 0x10000)];
        assert_eq!(seen.mapped_bytes, bytes(&expected));
        assert_eq!(seen.unmapped_bytes, bytes(&[("munmap", 0x2000)]));
        // And back again: what was mapped is given back by the same calls, but for the heap's and the rest.
        let seen = mapped.update(&first);
        let expected = [("brk", 0x2000), ("mprotect", 0x4000), ("munmap", 0x2000 + 0x8000 + 0x10000)];
        assert_eq!(seen.unmapped_bytes, bytes(&expected));
        assert_eq!(seen.mapped_bytes["mmap"], 0x8000 + 0x2000);
    }

    #[test]
    fn ends_on_lists_out_of_order() {
        let mapped = &mut MapsDifference::default();
        let text = b"5000-9000 rw-p 0 0:0 0\n1000-2000 rw-p 0 0:0 0\n1000-1000 rw-p 0 0:0 0\n\
            fffffffffffff000-ffffffffffffffff rw-p 0 0:0 0\n0-ffffffffffffffff ---p 0 0:0 0\n";
        mapped.update(&maps::parse(text));
        mapped.update(&[]);
        mapped.update(&maps::parse(text));
    }
}
