//! How the memory that a page lies in was asked for, told from the kind of its mapping.

use crate::process::code::RuntimeCode;
use crate::process::maps::{self, Mapping};
use crate::process::memory::huge::HUGE_BYTES;

/// glibc reserves each arena but the first so large, so aligned, and opens it bit by bit.
const ARENA_BYTES: u64 = 64 << 20;

/// The call that made room for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// The heap that grows at its end.
    Brk,
    /// Mapped for itself: large blocks, thread stacks, other allocators.
    Mmap,
    /// Opened for writing within a reservation: a glibc arena.
    Mprotect,
    /// A page of a file, of the main stack, or of a mapping that is gone.
    Fault,
}

impl Via {
    pub fn name(self) -> &'static str {
        match self {
            Self::Brk => "brk",
            Self::Mmap => "mmap",
            Self::Mprotect => "mprotect",
            Self::Fault => "fault",
        }
    }
}

/// Whether a huge page may lie at an address: all of it is one anonymous mapping.
pub(super) fn may_be_huge(maps: &[Mapping], address: u64) -> bool {
    let start = address & !(HUGE_BYTES - 1);
    maps::at(maps, address).is_some_and(|mapping| {
        !mapping.is_file() && mapping.start <= start && mapping.end - start >= HUGE_BYTES
    })
}

/// For room in whole huge pages the kernel looks for one more than it takes, and aligns what it found.
pub(super) fn is_padded(room: u64) -> bool {
    room.is_multiple_of(HUGE_BYTES)
}

/// Where a mapping came to lie that was given a place, as the maps show it.
pub(super) fn landed(maps: &[Mapping], to: u64, room: u64) -> u64 {
    if !is_padded(room) || maps::index_of(maps, to).is_some() {
        return to;
    }
    let next = maps.get(maps.partition_point(|mapping| mapping.start <= to));
    next.map(|mapping| mapping.start).filter(|start| start - to <= HUGE_BYTES).unwrap_or(to)
}

pub(super) fn of(maps: &[Mapping], address: u64, code: &RuntimeCode) -> Via {
    let Some(index) = maps::index_of(maps, address) else { return Via::Fault };
    let mapping = &maps[index];
    if mapping.path == "[heap]" {
        return Via::Brk;
    }
    let named = mapping.path.starts_with('[') && !mapping.path.starts_with("[anon");
    if mapping.is_file() || named {
        return Via::Fault;
    }
    // A runtime with an allocator of its own reserves likewise, and what it reserves is no arena of glibc.
    if code.own_allocator.is_none() && is_arena(mapping, maps.get(index + 1), address) {
        Via::Mprotect
    } else {
        Via::Mmap
    }
}

/// The open part of an arena is followed by the rest of its reservation, unless all of it is open.
///
/// Below, the kernel may have merged it with a neighbour. It grows while the maps are read, in pieces: then the rest
/// begins behind where the open part is said to end.
fn is_arena(mapping: &Mapping, next: Option<&Mapping>, address: u64) -> bool {
    let start = address & !(ARENA_BYTES - 1);
    let end = start.saturating_add(ARENA_BYTES);
    let rest = |next: &Mapping| {
        next.start >= mapping.end && next.end == end && !(next.readable || next.writable || next.is_file())
    };
    (mapping.start, mapping.end) == (start, end) || mapping.start <= start && next.is_some_and(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::code::OwnAllocator;
    use crate::process::maps;

    #[test]
    fn tells_the_kinds_of_mapping_apart() {
        let maps = maps::parse(
            b"00400000-00500000 r-xp 00000000 fe:00 77 /bin/x\n\
            01000000-02000000 rw-p 00000000 00:00 0 [heap]\n\
            7efffff00000-7f0000100000 rw-p 00000000 00:00 0 \n\
            7f0000100000-7f0004000000 ---p 00000000 00:00 0 \n\
            7f1000001000-7f1000100000 rw-p 00000000 00:00 0 \n\
            7f2000000000-7f2000100000 rw-p 00000000 00:00 0 [anon: glibc: malloc]\n\
            7f3000000000-7f3000021000 rw-p 00000000 00:00 0 \n\
            7f3000043000-7f3004000000 ---p 00000000 00:00 0 \n\
            7ffc00000000-7ffc00100000 rw-p 00000000 00:00 0 [stack]\n",
        );
        let via = |address| of(&maps, address, &RuntimeCode::default());
        assert_eq!(via(0x0100_1000), Via::Brk);
        assert_eq!(via(0x7f00_0000_5000), Via::Mprotect);
        let own_allocator = Some(OwnAllocator { of: "Go", told_anyway: "" });
        let reserves = RuntimeCode { own_allocator, ..RuntimeCode::default() };
        assert_eq!(of(&maps, 0x7f00_0000_5000, &reserves), Via::Mmap, "Go reserves likewise");
        assert_eq!(via(0x7eff_fff0_5000), Via::Mmap, "merged with the arena, but before it");
        assert_eq!(via(0x7f10_0000_5000), Via::Mmap);
        assert_eq!(via(0x7f30_0000_5000), Via::Mprotect, "read while it grew");
        assert_eq!(via(0x7f20_0000_5000), Via::Mmap);
        assert_eq!(
            (via(0x40_1000), via(0x7ffc_0000_1000), via(0x9999_0000_0000)),
            (Via::Fault, Via::Fault, Via::Fault)
        );
    }
}
