//! What is known of the code of language runtimes in a process, beyond its memory map: where it lies, and what that
//! means to whoever walks native stacks, follows pages or looks for an allocator.
//!
//! Plain values, made by whoever reads the runtime. Costs nothing.

use std::ops::Range;

/// The code of the runtimes of one process image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeCode {
    pub text: Text,
    /// Every function keeps the frame pointer: the kernel's own walk gives whole stacks there.
    pub keeps_frame_pointers: bool,
    /// A thread that sleeps in this code carries no task: it waits for work, whatever its stack says.
    pub parks_carriers: bool,
    /// Set where it does not allocate by `malloc`.
    pub own_allocator: Option<OwnAllocator>,
}

/// Where the code lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Text {
    /// There is none.
    #[default]
    Absent,
    /// In these ranges of addresses; other code of the same file is none of it.
    Ranges(Vec<Range<u64>>),
    /// Somewhere in the executable: all of that counts.
    Executable,
}

impl Text {
    /// The ranges, where they are known.
    pub fn ranges(&self) -> &[Range<u64>] {
        match self {
            Self::Ranges(ranges) => ranges,
            Self::Absent | Self::Executable => &[],
        }
    }
}

/// An allocator that comes with a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAllocator {
    /// The runtime's name as people write it: `Go`.
    pub of: &'static str,
    /// What is said of its memory anyway.
    pub told_anyway: &'static str,
}

impl RuntimeCode {
    /// The code of two runtimes in one process.
    pub fn and(mut self, other: Self) -> Self {
        self.text = match (self.text, other.text) {
            (Text::Absent, text) | (text, Text::Absent) => text,
            (Text::Ranges(mut one), Text::Ranges(more)) => {
                one.extend(more);
                Text::Ranges(one)
            }
            (Text::Executable, _) | (_, Text::Executable) => Text::Executable,
        };
        self.keeps_frame_pointers &= other.keeps_frame_pointers;
        self.parks_carriers |= other.parks_carriers;
        self.own_allocator = self.own_allocator.or(other.own_allocator);
        self
    }
}
