//! Groups of tasks by raw stack, over the samples: how many, who came, who left.
//!
//! A group here is state, wait reason, creator and the list of return addresses; what it is called is
//! found out later, for those that are shown. Bounded: 2^18 groups and 6 million addresses of stacks;
//! what comes beyond that is counted, without a stack.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::entry::Entry;
use super::slot::Slot;
use crate::sample::{Frame, GroupId, Place};
use crate::symbol::address_hash::{AddressHasher, mix};

const MAX_GROUPS: usize = 1 << 18;
const MAX_ADDRESSES: usize = 6 << 20;
/// Of a stack that comes when there is no room left.
const SHORT: usize = 8;

/// What members of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub stack: u64,
    pub creator: u64,
    pub status: u8,
    pub reason: u8,
}

impl Key {
    pub(crate) fn new(status: u8, reason: u8, creator: u64, pcs: &[u64]) -> Self {
        let stack = pcs.iter().fold(pcs.len() as u64, |hash, &pc| mix(hash ^ pc));
        Self { stack, creator, status, reason }
    }

    fn hash(&self) -> u64 {
        mix(mix(self.stack ^ self.creator) ^ u64::from(self.status) << 8 ^ u64::from(self.reason))
    }
}

/// What a group is called.
#[derive(Debug)]
pub(crate) struct Shape {
    pub id: GroupId,
    pub frames: Arc<[Frame]>,
    pub created_by: Option<Place>,
}

/// A group, with the numbers of the current sample.
#[derive(Debug)]
pub(crate) struct RawGroup {
    pub key: Key,
    pcs: (u32, u16),
    pub count: u32,
    pub joined: u32,
    pub left: u32,
    /// Of those that left, how many are no more.
    pub ended: u32,
    pub moved: u32,
    pub stack_bytes: u64,
    /// Seconds, of the member that has waited longest.
    pub oldest: f32,
    pub shape: Option<Arc<Shape>>,
    pub shown: bool,
    /// Somebody came, left, moved, or is now known to wait on something.
    pub changed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Vec<RawGroup>,
    slots: HashMap<u64, u32, BuildHasherDefault<AddressHasher>>,
    addresses: Vec<u64>,
    /// Members that went from one group to another since the last sample.
    transitions: HashMap<(u32, u32), u32>,
    /// Members of [`Slot::OTHER`] in this sample.
    pub others: u64,
    /// Stacks that were kept only in part, since the last sample.
    pub shortened: u64,
}

const MAX_TRANSITIONS: usize = 1 << 16;

impl Groups {
    /// Begins a sample: all members are counted anew.
    pub(crate) fn begin(&mut self) {
        for group in &mut self.groups {
            (group.count, group.joined, group.moved) = (0, 0, 0);
            (group.left, group.ended) = (0, 0);
            (group.stack_bytes, group.oldest, group.changed) = (0, 0.0, false);
        }
        self.transitions.clear();
        (self.others, self.shortened) = (0, 0);
    }

    /// The slot of a group, made when it is new.
    pub(crate) fn slot(&mut self, key: Key, pcs: &[u64]) -> Slot {
        if let Some(&slot) = self.slots.get(&key.hash()) {
            // Two groups with one 64-bit hash are taken for one.
            return Slot::at(slot);
        }
        if self.groups.len() >= MAX_GROUPS {
            return Slot::OTHER;
        }
        let room = MAX_ADDRESSES.saturating_sub(self.addresses.len());
        let kept = if pcs.len() <= room {
            pcs
        } else {
            pcs.get(..SHORT.min(room).min(pcs.len())).unwrap_or_default()
        };
        if kept.len() < pcs.len() {
            self.shortened += 1;
        }
        let start = self.addresses.len() as u32;
        self.addresses.extend_from_slice(kept);
        let slot = self.groups.len() as u32;
        self.groups.push(RawGroup {
            key,
            pcs: (start, kept.len() as u16),
            count: 0,
            joined: 0,
            left: 0,
            ended: 0,
            moved: 0,
            stack_bytes: 0,
            oldest: 0.0,
            shape: None,
            shown: false,
            changed: true,
        });
        self.slots.insert(key.hash(), slot);
        Slot::at(slot)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&RawGroup> {
        self.groups.get(slot.index()?)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut RawGroup> {
        self.groups.get_mut(slot.index()?)
    }

    pub(crate) fn pcs(&self, slot: Slot) -> &[u64] {
        let Some(group) = self.get(slot) else { return &[] };
        let (start, length) = (group.pcs.0 as usize, usize::from(group.pcs.1));
        self.addresses.get(start..start + length).unwrap_or_default()
    }

    /// Groups that have members now.
    pub(crate) fn live(&self) -> impl Iterator<Item = (Slot, &RawGroup)> {
        self.groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.count > 0)
            .map(|(index, group)| (Slot::at(index as u32), group))
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut RawGroup> {
        self.groups.iter_mut()
    }

    pub(crate) fn transition(&mut self, from: Slot, to: Slot) {
        let key = (from.number(), to.number());
        if let Some(count) = self.transitions.get_mut(&key) {
            *count += 1;
        } else if self.transitions.len() < MAX_TRANSITIONS {
            self.transitions.insert(key, 1);
        }
    }

    pub(crate) fn transitions(&self) -> impl Iterator<Item = ((Slot, Slot), u32)> {
        self.transitions.iter().map(|(&(from, to), &count)| ((Slot::at(from), Slot::at(to)), count))
    }

    /// Whether so much in it is of the past that [`Groups::compact`] is worth its while.
    pub(crate) fn is_stale(&self) -> bool {
        let half_full = self.groups.len() > MAX_GROUPS / 2 || self.addresses.len() > MAX_ADDRESSES / 2;
        half_full && self.groups.iter().filter(|group| group.count == 0).count() > self.groups.len() / 4
    }

    /// Forgets groups that no task is in. `entries` are the only ones to keep slots over
    /// samples.
    pub(crate) fn compact(&mut self, entries: &mut [Entry]) {
        let mut used = vec![false; self.groups.len()];
        for entry in &*entries {
            if let Some(used) = entry.slot.index().and_then(|index| used.get_mut(index)) {
                *used = true;
            }
        }
        let mut map = vec![u32::MAX; self.groups.len()];
        let old = std::mem::take(&mut self.groups);
        let old_addresses = std::mem::take(&mut self.addresses);
        self.slots.clear();
        for (index, mut group) in old.into_iter().enumerate() {
            if used.get(index) != Some(&true) {
                continue;
            }
            let (start, length) = (group.pcs.0 as usize, usize::from(group.pcs.1));
            group.pcs.0 = self.addresses.len() as u32;
            self.addresses.extend_from_slice(old_addresses.get(start..start + length).unwrap_or_default());
            let slot = self.groups.len() as u32;
            if let Some(entry) = map.get_mut(index) {
                *entry = slot;
            }
            self.slots.insert(group.key.hash(), slot);
            self.groups.push(group);
        }
        for entry in entries {
            if let Some(index) = entry.slot.index() {
                entry.slot = Slot::at(map.get(index).copied().unwrap_or(u32::MAX));
            }
        }
    }
}
