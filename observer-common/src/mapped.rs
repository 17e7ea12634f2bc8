//! Bytes of address space that changed hands, by call, counted exactly.

/// A way to get or give back address space.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Mmap = 0,
    /// `mmap` with `PROT_NONE`: address space, no memory yet.
    MmapReserve = 1,
    Munmap = 2,
    Mremap = 3,
    Brk = 4,
    /// Mapped: made accessible. Unmapped: made `PROT_NONE`.
    Mprotect = 5,
    /// Memory given back, address space kept: `MADV_DONTNEED`, `MADV_FREE`, `MADV_REMOVE`.
    Madvise = 6,
}

pub const CALLS: usize = 7;

impl Call {
    pub const ALL: [Self; CALLS] =
        [Self::Mmap, Self::MmapReserve, Self::Munmap, Self::Mremap, Self::Brk, Self::Mprotect, Self::Madvise];

    /// As it stands in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mmap => "mmap",
            Self::MmapReserve => "mmap_reserve",
            Self::Munmap => "munmap",
            Self::Mremap => "mremap",
            Self::Brk => "brk",
            Self::Mprotect => "mprotect",
            Self::Madvise => "madvise",
        }
    }
}

/// Bytes of one target on one CPU, since it became a target, by [`Call`]; only calls that succeeded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MappedCounters {
    pub mapped: [u64; CALLS],
    pub unmapped: [u64; CALLS],
}

const _: () = assert!(size_of::<MappedCounters>() == 112);

crate::plain_data!(MappedCounters);
