//! Groups with names: which of the raw groups are shown, and as what.
//!
//! Symbolizes at most some thousand stacks, those with most members and those that grow first, and joins
//! those that look the same (two calls on one line). A stack is symbolized once.

use std::collections::HashMap;
use std::sync::Arc;

use super::groups::{Groups, RawGroup, Shape};
use super::slot::Slot;
use crate::sample::group_id::Fnv;
use crate::sample::{Frame, Group, GroupId, GroupKind, Place};

/// Groups of one sample.
pub(crate) const MAX_SHOWN: usize = 2000;
/// Raw groups that are symbolized for it: some look the same.
const MAX_SYMBOLIZED: usize = 2 * MAX_SHOWN;

/// How a runtime names what its groups are made of.
pub(crate) trait Names {
    /// What its tasks are.
    fn kind(&self) -> GroupKind;
    /// The same in one word, which goes into the identity of its groups.
    fn noun(&self) -> &'static str;
    fn state(&self, status: u8) -> &'static str;
    /// Empty where there is none.
    fn reason(&self, reason: u8) -> String;
    /// Of a stack of return addresses, innermost first.
    fn frames(&mut self, stack: &[u64]) -> Vec<Frame>;
    /// The place that started a task, by an address in it.
    fn creator(&mut self, address: u64) -> Option<Place>;
}

pub(crate) struct Report {
    pub groups: Vec<Group>,
    /// The raw groups that each of `groups` is made of.
    pub slots: Vec<Vec<Slot>>,
    pub groups_total: u64,
    pub members_left_out: u64,
}

/// How much a group deserves its place: it should not lose it to one that is hardly larger.
fn weight(group: &RawGroup) -> u64 {
    let mut weight = u64::from(group.count) * 2;
    if group.shown {
        weight += weight / 2;
    }
    if group.joined > group.left {
        weight += weight / 2 + u64::from(group.joined - group.left);
    }
    weight
}

pub(crate) fn report(raw_groups: &mut Groups, names: &mut dyn Names) -> Report {
    let mut live: Vec<(u64, Slot)> = raw_groups.live().map(|(slot, group)| (weight(group), slot)).collect();
    let live_total = live.len();
    let all_members: u64 = raw_groups.live().map(|(_, group)| u64::from(group.count)).sum();
    if live.len() > MAX_SYMBOLIZED {
        live.select_nth_unstable_by(MAX_SYMBOLIZED, |left, right| right.cmp(left));
        live.truncate(MAX_SYMBOLIZED);
    }
    live.sort_unstable_by(|left, right| right.cmp(left));

    let mut groups: Vec<Group> = Vec::new();
    let mut slots: Vec<Vec<Slot>> = Vec::new();
    let mut by_id: HashMap<GroupId, usize> = HashMap::new();
    for &(_, slot) in &live {
        let Some(raw) = raw_groups.get(slot) else { continue };
        let shape = match &raw.shape {
            Some(shape) => Arc::clone(shape),
            None => Arc::new(shape(raw, raw_groups.pcs(slot), names)),
        };
        let index = *by_id.entry(shape.id).or_insert_with(|| {
            groups.push(Group {
                id: shape.id,
                kind: names.kind(),
                state: names.state(raw.key.status).into(),
                wait_reason: names.reason(raw.key.reason).into(),
                frames: Arc::clone(&shape.frames),
                created_by: shape.created_by.clone(),
                ..Group::default()
            });
            slots.push(Vec::new());
            groups.len() - 1
        });
        if let (Some(group), Some(slots)) = (groups.get_mut(index), slots.get_mut(index)) {
            add(group, raw);
            slots.push(slot);
        }
        if let Some(raw) = raw_groups.get_mut(slot) {
            raw.shape = Some(shape);
        }
    }
    // Who only went from one call to another on the same line has moved, not left.
    let group_of: HashMap<Slot, usize> = slots
        .iter()
        .enumerate()
        .flat_map(|(index, slots)| slots.iter().map(move |&slot| (slot, index)))
        .collect();
    for ((from, to), count) in raw_groups.transitions() {
        if let (Some(&from), Some(&to)) = (group_of.get(&from), group_of.get(&to))
            && from == to
            && let Some(group) = groups.get_mut(from)
        {
            let count = u64::from(count);
            group.joined = group.joined.saturating_sub(count);
            group.left = group.left.saturating_sub(count);
            group.moved += count;
        }
    }
    let merged = live.len() - groups.len();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&index| {
        groups.get(index).map(|group| (std::cmp::Reverse(group.count), group.id)).unwrap_or_default()
    });
    order.truncate(MAX_SHOWN);
    let (groups, slots): (Vec<Group>, Vec<Vec<Slot>>) = order
        .into_iter()
        .filter_map(|index| Some((groups.get(index)?.clone(), slots.get(index)?.clone())))
        .unzip();

    for raw in raw_groups.all_mut() {
        raw.shown = false;
    }
    for &slot in slots.iter().flatten() {
        if let Some(raw) = raw_groups.get_mut(slot) {
            raw.shown = true;
        }
    }
    // Names of groups that are not shown are found again when they are.
    for raw in raw_groups.all_mut().filter(|raw| !raw.shown) {
        raw.shape = None;
    }
    let shown_members: u64 = groups.iter().map(|group| group.count).sum();
    Report {
        groups,
        slots,
        groups_total: (live_total - merged) as u64 + u64::from(raw_groups.others > 0),
        members_left_out: all_members - shown_members + raw_groups.others,
    }
}

fn add(group: &mut Group, raw: &RawGroup) {
    group.count += u64::from(raw.count);
    group.joined += u64::from(raw.joined);
    group.left += u64::from(raw.left);
    group.ended = Some(group.ended.unwrap_or(0) + u64::from(raw.ended));
    group.moved += u64::from(raw.moved);
    group.stack_bytes += raw.stack_bytes;
    if raw.oldest > 0.0 {
        let oldest = f64::from(raw.oldest);
        group.oldest_wait_seconds = Some(group.oldest_wait_seconds.map_or(oldest, |known| known.max(oldest)));
    }
}

fn shape(raw: &RawGroup, pcs: &[u64], names: &mut dyn Names) -> Shape {
    let frames = names.frames(pcs);
    let created_by = names.creator(raw.key.creator);
    let mut hash = Fnv::new();
    text(&mut hash, names.noun());
    text(&mut hash, names.state(raw.key.status));
    text(&mut hash, &names.reason(raw.key.reason));
    for frame in &frames {
        text(&mut hash, &frame.function);
        number(&mut hash, u64::from(frame.line.unwrap_or(0)));
    }
    if let Some(created_by) = &created_by {
        text(&mut hash, &created_by.function);
        number(&mut hash, u64::from(created_by.line.unwrap_or(0)));
    }
    Shape { id: GroupId(hash.finish()), frames: frames.into(), created_by }
}

/// Each text with an end that no text has in it, so that they cannot run into each other.
fn text(hash: &mut Fnv, text: &str) {
    hash.write(text.as_bytes());
    hash.write(&[0xff]);
}

fn number(hash: &mut Fnv, number: u64) {
    hash.write(&number.to_le_bytes());
}
