//! Who each goroutine was at the last sample, by its place in `runtime.allgs` (which only grows).
//!
//! This is what makes sampling cheap: a goroutine that has not run since keeps its group, and its stack
//! is not read again. 32 bytes a goroutine.

use super::groups::Slot;
use crate::runtime::go::g::G;
use crate::runtime::go::symbol::mix;

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub goid: u64,
    /// The channel or lock it waits on, where that was read.
    pub object: u64,
    /// When it was first seen in this wait, in the reader's seconds.
    pub since: f32,
    pub slot: Slot,
    context: u32,
    sequence: u8,
    status: u8,
    reason: u8,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            goid: 0,
            object: 0,
            since: 0.0,
            slot: Slot::NONE,
            context: 0,
            sequence: 0,
            status: 0,
            reason: 0,
        }
    }
}

fn fold(head: &G) -> u32 {
    let context = head.context();
    mix(mix(context.pc) ^ context.sp) as u32
}

impl Entry {
    pub fn new(head: &G, slot: Slot, since: f32) -> Self {
        Self {
            goid: head.goid,
            object: 0,
            since,
            slot,
            context: fold(head),
            sequence: head.sequence,
            status: head.status as u8,
            reason: head.reason,
        }
    }

    /// Whether `head` is the same goroutine in the same wait: it has not run since.
    ///
    /// The runtime counts how often a goroutine stopped running, modulo 256; together with a stack
    /// pointer and a pc that are the same, that is as good as certain.
    pub fn is_unmoved(&self, head: &G) -> bool {
        self.is_same_wait(head)
            && u32::from(self.status) == head.status
            && self.reason == head.reason
            && self.context == fold(head)
    }

    /// As [`Self::is_unmoved`], but its stack may have been moved elsewhere meanwhile.
    pub fn is_same_wait(&self, head: &G) -> bool {
        self.goid == head.goid && self.sequence == head.sequence
    }
}
