//! Groups with names: which of the raw groups are shown, and as what.
//!
//! Symbolizes at most some thousand stacks, those with most members and those that grow first, and joins
//! those that look the same (two calls on one line). A stack is symbolized once.

use std::collections::HashMap;
use std::sync::Arc;

use super::groups::{RawGroup, Registry, Shape, Slot};
use crate::runtime::go::status;
use crate::runtime::go::symbol::{GoSymbols, traceback};
use crate::sample::{Frame, Group, GroupId, GroupKind, Place};

/// Groups of one sample.
pub const MAX_SHOWN: usize = 2000;
/// Raw groups that are symbolized for it: some look the same.
const MAX_SYMBOLIZED: usize = 2 * MAX_SHOWN;

pub struct Report {
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

pub fn report(
    registry: &mut Registry,
    symbols: &mut GoSymbols,
    reasons: &[String],
    wrapper_id: u8,
) -> Report {
    let mut live: Vec<(u64, Slot)> = registry.live().map(|(slot, group)| (weight(group), slot)).collect();
    let live_total = live.len();
    let all_members: u64 = registry.live().map(|(_, group)| u64::from(group.count)).sum();
    if live.len() > MAX_SYMBOLIZED {
        live.select_nth_unstable_by(MAX_SYMBOLIZED, |left, right| right.cmp(left));
        live.truncate(MAX_SYMBOLIZED);
    }
    live.sort_unstable_by(|left, right| right.cmp(left));

    let mut groups: Vec<Group> = Vec::new();
    let mut slots: Vec<Vec<Slot>> = Vec::new();
    let mut by_id: HashMap<GroupId, usize> = HashMap::new();
    for &(_, slot) in &live {
        let Some(raw) = registry.get(slot) else { continue };
        let shape = match &raw.shape {
            Some(shape) => Arc::clone(shape),
            None => Arc::new(shape(raw, registry.pcs(slot), symbols, reasons, wrapper_id)),
        };
        let index = *by_id.entry(shape.id).or_insert_with(|| {
            groups.push(Group {
                id: shape.id,
                kind: GroupKind::Goroutine,
                state: status::name(u32::from(raw.key.status)).to_owned(),
                wait_reason: reason(raw, reasons),
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
        if let Some(raw) = registry.get_mut(slot) {
            raw.shape = Some(shape);
        }
    }
    // Who only went from one call to another on the same line has moved, not left.
    let group_of: HashMap<Slot, usize> = slots
        .iter()
        .enumerate()
        .flat_map(|(index, slots)| slots.iter().map(move |&slot| (slot, index)))
        .collect();
    for ((from, to), count) in registry.transitions() {
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

    for raw in registry.all_mut() {
        raw.shown = false;
    }
    for &slot in slots.iter().flatten() {
        if let Some(raw) = registry.get_mut(slot) {
            raw.shown = true;
        }
    }
    // Names of groups that are not shown are found again when they are.
    for raw in registry.all_mut().filter(|raw| !raw.shown) {
        raw.shape = None;
    }
    let shown_members: u64 = groups.iter().map(|group| group.count).sum();
    Report {
        groups,
        slots,
        groups_total: (live_total - merged) as u64 + u64::from(registry.others > 0),
        members_left_out: all_members - shown_members + registry.others,
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

fn reason(raw: &RawGroup, reasons: &[String]) -> String {
    if raw.key.reason == 0 {
        return String::new();
    }
    match reasons.get(usize::from(raw.key.reason)) {
        Some(name) => name.clone(),
        None => format!("wait reason {}", raw.key.reason),
    }
}

fn shape(raw: &RawGroup, pcs: &[u64], symbols: &mut GoSymbols, reasons: &[String], wrapper_id: u8) -> Shape {
    let frames = frames(pcs, symbols, wrapper_id);
    let created_by = symbols
        .creator(raw.key.creator)
        .filter(|creator| traceback::shown(&creator.function, creator.id == wrapper_id, false, ""))
        .map(|creator| Place {
            function: traceback::printed_name(&creator.function),
            file: creator.file,
            line: creator.line,
        });
    let mut hash = Fnv::new();
    hash.text("goroutine");
    hash.text(status::name(u32::from(raw.key.status)));
    hash.text(&reason(raw, reasons));
    for frame in &frames {
        hash.text(&frame.function);
        hash.number(u64::from(frame.line.unwrap_or(0)));
    }
    if let Some(created_by) = &created_by {
        hash.text(&created_by.function);
        hash.number(u64::from(created_by.line.unwrap_or(0)));
    }
    Shape { id: GroupId(hash.0), frames: frames.into(), created_by }
}

/// A stack as the program's own dump shows it.
fn frames(pcs: &[u64], symbols: &mut GoSymbols, wrapper_id: u8) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut callee = String::new();
    let mut is_exact = false;
    for &pc in pcs {
        let calls = symbols.locate(pc, is_exact);
        for call in calls.iter() {
            let is_shown =
                traceback::shown(&call.function, call.id == wrapper_id, frames.is_empty(), &callee);
            callee.clone_from(&call.function);
            if is_shown {
                frames.push(call.frame(pc));
            }
        }
        match calls.last() {
            // The last of them is the physical function.
            Some(function) => is_exact = traceback::is_injected(&function.function),
            None => {
                frames.push(Frame { address: pc, ..Frame::default() });
                is_exact = false;
            }
        }
    }
    frames
}

/// FNV-1a: the same in every release and on every machine.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn text(&mut self, text: &str) {
        for &byte in text.as_bytes().iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
