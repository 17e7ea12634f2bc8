//! What is remembered of a task from one sample to the next, so that one that has not run since is not read again.
//!
//! 32 bytes a task.

use super::slot::Slot;

/// What tells whether a task has run since it was last seen, as its runtime keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Never used twice in one process.
    pub id: u64,
    /// One more each time it stopped running; modulo 256.
    pub sequence: u8,
    pub status: u8,
    pub reason: u8,
    /// A hash of where it stopped.
    pub context: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub mark: Mark,
    /// What it waits on, where that was read: an address.
    pub object: u64,
    /// When it was first seen in this wait, in the reader's seconds.
    pub since: f32,
    pub slot: Slot,
}

impl Default for Entry {
    fn default() -> Self {
        Self { mark: Mark::default(), object: 0, since: 0.0, slot: Slot::NONE }
    }
}

impl Entry {
    /// Whether `mark` is the same task in the same wait: it has not run since.
    ///
    /// The sequence is modulo 256; together with a place that is the same, that is as good as certain.
    pub(crate) fn is_unmoved(&self, mark: Mark) -> bool {
        self.slot != Slot::NONE && self.mark == mark
    }

    /// As [`Self::is_unmoved`], but its stack may have been moved elsewhere meanwhile.
    pub(crate) fn is_same_wait(&self, mark: Mark) -> bool {
        self.mark.id == mark.id && self.mark.sequence == mark.sequence
    }
}
