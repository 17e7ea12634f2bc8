//! Which processes the programs look at: a small map of targets, and in front of it a filter of bits.

/// Targets one loaded object can serve at a time.
pub const MAX_TARGETS: u32 = 256;

/// What the programs know of one target; the key is its global tgid.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Index of its counters in the arrays of the other sources, below `MAX_TARGETS`.
    pub slot: u32,
    /// `FLAG_...` bits.
    pub flags: u32,
}

/// Growth samples of this target carry a copy of the stack (code without frame pointers).
pub const FLAG_COPY_STACK: u32 = 1;
/// Of that copy, the larger one.
pub const FLAG_DEEP_STACK: u32 = 2;

/// Bits of the filter, one for each value of a tgid's low bits.
const FILTER_BITS: u32 = 4096;

/// Says cheaply that a process is no target; every process of the machine pays only for this test.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetFilter {
    pub words: [u64; (FILTER_BITS / 64) as usize],
}

impl TargetFilter {
    pub const EMPTY: Self = Self { words: [0; (FILTER_BITS / 64) as usize] };

    /// The word and the bit in it for a tgid.
    #[inline(always)]
    pub const fn place(tgid: u32) -> (usize, u64) {
        let bit = tgid % FILTER_BITS;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    /// Lets a tgid pass.
    pub fn insert(&mut self, tgid: u32) {
        let (word, bit) = Self::place(tgid);
        self.words[word] |= bit;
    }
}

const _: () = assert!(size_of::<Target>() == 8);
const _: () = assert!(size_of::<TargetFilter>() == 512);

crate::plain_data!(Target, TargetFilter);
