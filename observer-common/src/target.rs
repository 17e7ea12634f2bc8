//! Which processes the programs look at: an open hash table of eight bytes a target, small enough to be searched at
//! every context switch of the machine.

/// Targets one loaded object can serve at a time.
pub const MAX_TARGETS: u32 = 256;

/// Entries of the table, a power of two. At most one in 16 is used.
pub const TABLE: u32 = 4096;
/// An entry lies at most so many places, itself included, from where its hash points.
pub const SEARCHED: u32 = 8;

/// Growth samples of this target carry a copy of the stack (code without frame pointers).
pub const FLAG_COPY_STACK: u8 = 1;
/// Of that copy, the larger one.
pub const FLAG_DEEP_STACK: u8 = 2;
/// No target, but the search goes on behind it.
const FLAG_REMOVED: u8 = 4;

/// What the programs know of one target: an entry of the table, one word, so that nobody reads half of it.
///
/// From the low end: 32 bits global tgid (0: no target), 8 flags, 8 slot, 16 generation.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target(u64);

impl Target {
    /// Ends a search.
    pub const NONE: Self = Self(0);
    /// No target, but the search goes on behind it.
    pub const REMOVED: Self = Self((FLAG_REMOVED as u64) << 32);

    /// `generation` counts the registrations of the slot: what was noted for an earlier one is not this one's.
    pub const fn new(global_tgid: u32, slot: u8, flags: u8, generation: u16) -> Self {
        Self(global_tgid as u64 | (flags as u64) << 32 | (slot as u64) << 40 | (generation as u64) << 48)
    }

    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn global_tgid(self) -> u32 {
        self.0 as u32
    }

    /// Index of its counters in the arrays of the other sources, below [`MAX_TARGETS`].
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> 40) as u32 & (MAX_TARGETS - 1)
    }

    /// `FLAG_...` bits.
    #[inline(always)]
    pub const fn flags(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// Identifies a thread of this registration: what is noted of it is good as long as both are.
    #[inline(always)]
    pub const fn owner(self, global_tid: u32) -> u64 {
        (self.0 >> 40) << 40 | global_tid as u64
    }

    /// Where the search for a tgid begins; it goes on upwards, from the last entry to the first.
    #[inline(always)]
    pub const fn place(global_tgid: u32) -> u32 {
        // Fibonacci hashing: pids in a row are spread.
        global_tgid.wrapping_mul(0x9e37_79b1) >> (32 - TABLE.trailing_zeros())
    }

    #[inline(always)]
    pub const fn next(place: u32) -> u32 {
        (place + 1) % TABLE
    }
}

const _: () = assert!(size_of::<Target>() == 8);
const _: () = assert!(TABLE.is_power_of_two() && TABLE >= 16 * MAX_TARGETS && MAX_TARGETS == 256);

crate::plain_data!(Target);
