//! The number by which a task knows its group. Four bytes.

/// A group's place among [`Groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    /// In no group: ended, never seen, or the runtime's own.
    pub(crate) const NONE: Self = Self(u32::MAX);
    /// Alive, but there was no room for its group.
    pub(crate) const OTHER: Self = Self(u32::MAX - 1);

    pub(super) fn at(number: u32) -> Self {
        Self(number)
    }

    /// The number that [`Self::at`] was given, also of the two that are no groups.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn index(self) -> Option<usize> {
        (self.0 < Self::OTHER.0).then_some(self.0 as usize)
    }
}
