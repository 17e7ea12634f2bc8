//! The groups that moments name: each once, as it was when last seen, under a small number.
//!
//! Bounded in groups and in bytes. Those that no moment names are forgotten at once; beyond the bounds, those that were
//! not seen for the longest time: moments that still name them then do not show them.

use std::collections::{BTreeMap, HashMap};

use crate::sample::{Frame, Group, GroupId, GroupState, ObjectKind, WaitReason};

/// Groups of one moment that are kept.
pub(super) const GROUPS: usize = 24;
/// Groups that [`Timeline::prefer`] keeps beside the largest.
pub(super) const PREFERRED: usize = 8;

/// Groups that are known at once.
const MOST: usize = 160;
/// What they may cost together. Counted as if nobody else held the stacks, though for groups that are alive the last
/// sample does.
const BYTES: usize = 96 << 10;
/// Frames of a stack: the innermost, where it waits.
const FRAMES: usize = 32;
/// A stack that costs more is cut further.
const GROUP_BYTES: usize = 8 << 10;

/// Never given twice.
pub(super) type Number = u32;

#[derive(Clone, Debug)]
struct Known {
    group: Group,
    bytes: usize,
    /// Moments that name it.
    named: u32,
    /// The latest moment that does.
    seen_millis: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    known: BTreeMap<Number, Known>,
    numbers: HashMap<GroupId, Number>,
    next: Number,
    bytes: usize,
    /// Left out of the picture though moments name them.
    evicted: u64,
}

impl Groups {
    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        Some(&self.known.get(self.numbers.get(&id)?)?.group)
    }

    pub(super) fn id(&self, number: Number) -> Option<GroupId> {
        Some(self.known.get(&number)?.group.id)
    }

    pub(super) fn contains(&self, id: GroupId) -> bool {
        self.numbers.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The number of a group that a moment is about to name; what was known of it is replaced.
    pub(super) fn put(&mut self, group: &Group, at_millis: u64) -> Number {
        let group = cut(group);
        let bytes = weight(&group);
        if let Some(number) = self.numbers.get(&group.id).copied()
            && let Some(known) = self.known.get_mut(&number)
        {
            self.bytes = self.bytes.saturating_sub(known.bytes).saturating_add(bytes);
            known.group = group;
            known.bytes = bytes;
            known.seen_millis = at_millis;
            return number;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.numbers.insert(group.id, number);
        self.bytes = self.bytes.saturating_add(bytes);
        self.known.insert(number, Known { group, bytes, named: 0, seen_millis: at_millis });
        number
    }

    pub(super) fn name(&mut self, number: Number) {
        if let Some(known) = self.known.get_mut(&number) {
            known.named = known.named.saturating_add(1);
        }
    }

    /// A moment that named it was forgotten.
    pub(super) fn unname(&mut self, number: Number) {
        if let Some(known) = self.known.get_mut(&number) {
            known.named = known.named.saturating_sub(1);
            if known.named == 0 {
                self.remove(number);
            }
        }
    }

    /// Forgets until the bounds hold; those seen at `now_millis` stay, as they are in the picture's last moment.
    pub(super) fn bound(&mut self, now_millis: u64) {
        if self.known.len() <= MOST && self.bytes <= BYTES {
            return;
        }
        let mut oldest: Vec<(u64, usize, Number)> = self
            .known
            .iter()
            .filter(|(_, known)| known.seen_millis != now_millis)
            .map(|(&number, known)| (known.seen_millis, usize::MAX - known.bytes, number))
            .collect();
        oldest.sort_unstable();
        for (_, _, number) in oldest {
            if self.known.len() <= MOST * 7 / 8 && self.bytes <= BYTES * 7 / 8 {
                break;
            }
            self.remove(number);
            self.evicted = self.evicted.saturating_add(1);
        }
    }

    fn remove(&mut self, number: Number) {
        if let Some(known) = self.known.remove(&number) {
            self.numbers.remove(&known.group.id);
            self.bytes = self.bytes.saturating_sub(known.bytes);
        }
    }
}

/// A group whose stack is no larger than a picture needs; shared with the sample where it is not.
fn cut(group: &Group) -> Group {
    let mut bytes = 0;
    let fitting = group.frames.iter().take(FRAMES).take_while(|frame| {
        bytes += frame_weight(frame);
        bytes <= GROUP_BYTES
    });
    let length = fitting.count();
    let mut group = group.clone();
    if length < group.frames.len() {
        group.frames = group.frames.iter().take(length).cloned().collect();
    }
    if let GroupState::Other(text) = &mut group.state {
        shorten(text);
    }
    if let WaitReason::Other(text) = &mut group.wait_reason {
        shorten(text);
    }
    if let Some(place) = &mut group.created_by {
        shorten(&mut place.function);
        place.file.as_mut().map(shorten);
    }
    if let Some(on) = &mut group.waits_on {
        // Who holds it is a matter of the moment, and `owner` says it.
        on.holders = Vec::new();
        if let ObjectKind::Other(text) = &mut on.kind {
            shorten(text);
        }
        for text in
            [&mut on.element_type, &mut on.owner, &mut on.note, &mut on.operation].into_iter().flatten()
        {
            shorten(text);
        }
    }
    group
}

/// No name that a person reads is longer.
fn shorten(text: &mut String) {
    const LONGEST: usize = 512;
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.shrink_to_fit();
    }
}

pub(super) fn weight(group: &Group) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let created = group.created_by.as_ref().map_or(0, |at| at.function.len() + text(&at.file));
    let on = group.waits_on.as_ref().map_or(0, |on| {
        let told = [&on.element_type, &on.owner, &on.note, &on.operation];
        on.kind.len() + told.into_iter().map(text).sum::<usize>()
    });
    let frames: usize = group.frames.iter().map(frame_weight).sum();
    size_of::<Known>() + group.state.len() + group.wait_reason.len() + created + on + frames
}

fn frame_weight(frame: &Frame) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    size_of::<Frame>() + frame.function.len() + text(&frame.file) + text(&frame.module)
}
