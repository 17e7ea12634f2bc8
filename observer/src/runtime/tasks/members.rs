//! Follows the tasks of a runtime by their places in its list: who is in which group, who came, left or ran in between.
//!
//! A runtime's scanner tells what it sees at each place; the counts of the groups come from that. A task that did not
//! move costs a comparison.

use super::entry::{Entry, Mark};
use super::groups::{Groups, Key, RawGroup};
use super::slot::Slot;

/// One task as it is seen now, beyond its [`Mark`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub stack_bytes: u64,
    /// Whether it waits, so that its wait has an age.
    pub waits: bool,
    /// Seconds that it has waited by the runtime's own clock; 0 where that does not say.
    pub waited: f32,
}

/// Tasks by place, and their groups.
#[derive(Debug, Default)]
pub(crate) struct Members {
    entries: Vec<Entry>,
    groups: Groups,
    /// The reader's clock at this sample, in seconds.
    now: f32,
    /// There was a sample before: who is new has come since.
    later: bool,
}

impl Members {
    /// Begins a sample at `now` on the reader's clock; whether slots that others remember are void from here on.
    pub(crate) fn begin(&mut self, now: f64) -> bool {
        let compacted = self.groups.is_stale();
        if compacted {
            self.groups.compact(&mut self.entries);
        }
        self.groups.begin();
        self.now = now as f32;
        compacted
    }

    /// Ends a sample that is whole.
    pub(crate) fn finish(&mut self) {
        self.later = true;
    }

    /// The list has `length` places now; `same` says that it is the old one with more or fewer at its end.
    pub(crate) fn resize(&mut self, length: usize, same: bool) {
        for place in if same { length } else { 0 }..self.entries.len() {
            self.vacate(place);
        }
        if !same {
            self.entries.clear();
        }
        self.entries.resize(length, Entry::default());
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(crate) fn groups_mut(&mut self) -> &mut Groups {
        &mut self.groups
    }

    /// A task's entry; the default one for a place that has none.
    pub(crate) fn entry(&self, place: usize) -> Entry {
        self.entries.get(place).copied().unwrap_or_default()
    }

    /// Counts a task that has not run since the last sample, in the group that it was in.
    pub(crate) fn stay(&mut self, place: usize, seen: Seen) {
        let entry = self.entry(place);
        self.count(entry, seen);
    }

    /// Puts a task into the group of its stack.
    pub(crate) fn join(&mut self, place: usize, mark: Mark, key: Key, stack: &[u64], seen: Seen) {
        let slot = self.groups.slot(key, stack);
        let Some(entry) = self.entries.get_mut(place) else { return };
        let old = *entry;
        let is_same = old.slot != Slot::NONE && old.mark.id == mark.id;
        *entry = Entry { mark, object: 0, since: self.now, slot };
        if is_same && old.slot == slot {
            if old.is_same_wait(mark) {
                (entry.since, entry.object) = (old.since, old.object);
            } else if let Some(group) = self.groups.get_mut(slot) {
                group.moved += 1;
                group.changed = true;
            }
        } else {
            leave(&mut self.groups, old.slot, !is_same);
            if self.later
                && let Some(group) = self.groups.get_mut(slot)
            {
                group.joined += 1;
            }
            if is_same {
                self.groups.transition(old.slot, slot);
            }
        }
        let entry = self.entry(place);
        self.count(entry, seen);
    }

    /// No task is there any more.
    pub(crate) fn vacate(&mut self, place: usize) {
        if let Some(entry) = self.entries.get_mut(place)
            && entry.slot != Slot::NONE
        {
            leave(&mut self.groups, entry.slot, true);
            *entry = Entry::default();
        }
    }

    /// Notes what a task waits on.
    pub(crate) fn set_object(&mut self, place: usize, object: u64) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        entry.object = object;
        if let Some(group) = self.groups.get_mut(entry.slot) {
            group.changed = true;
        }
    }

    fn count(&mut self, entry: Entry, seen: Seen) {
        let Some(group) = self.groups.get_mut(entry.slot) else {
            self.groups.others += 1;
            return;
        };
        group.count += 1;
        group.stack_bytes += seen.stack_bytes;
        if seen.waits {
            // Our own clock begins when we did; the runtime's may begin late or be missing.
            age(group, seen.waited.max(self.now - entry.since));
        }
    }
}

fn age(group: &mut RawGroup, waited: f32) {
    if waited > group.oldest {
        group.oldest = waited;
    }
}

/// A task is no longer in the group: it ended, or it waits elsewhere.
fn leave(groups: &mut Groups, slot: Slot, ended: bool) {
    if let Some(group) = groups.get_mut(slot) {
        group.left += 1;
        group.changed = true;
        group.ended += u32::from(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: u64, sequence: u8) -> Mark {
        Mark { id, sequence, ..Mark::default() }
    }

    fn counts(members: &Members) -> Vec<(u32, u32, u32, u32, u32)> {
        let live = members.groups().live();
        live.map(|(_, group)| (group.count, group.joined, group.left, group.ended, group.moved)).collect()
    }

    #[test]
    fn tasks_are_followed_by_place_and_id() {
        let (mut members, seen) = (Members::default(), Seen { waits: true, ..Seen::default() });
        let key = |stack: &[u64]| Key::new(4, 1, 0, stack);
        let join = |members: &mut Members, place, mark, stack: &[u64]| {
            members.join(place, mark, key(stack), stack, seen);
        };
        members.begin(0.0);
        members.resize(3, true);
        for place in 0..3 {
            join(&mut members, place, mark(place as u64 + 1, 0), &[7]);
        }
        assert_eq!(counts(&members), [(3, 0, 0, 0, 0)], "nobody came: they were there");
        members.finish();
        members.begin(1.0);
        assert!(members.entry(0).is_unmoved(mark(1, 0)) && !members.entry(1).is_unmoved(mark(2, 1)));
        members.stay(0, seen);
        join(&mut members, 1, mark(2, 1), &[7]);
        // Another task took the place of the third.
        join(&mut members, 2, mark(9, 0), &[8]);
        assert_eq!(counts(&members), [(2, 0, 1, 1, 1), (1, 1, 0, 0, 0)]);
        let oldest: Vec<f32> = members.groups().live().map(|(_, group)| group.oldest).collect();
        assert_eq!(oldest, [1.0, 0.0], "the first has waited since we came");
        members.finish();
        members.begin(2.0);
        members.resize(1, true);
        members.stay(0, seen);
        assert_eq!(counts(&members), [(1, 0, 1, 1, 0)]);
    }
}
