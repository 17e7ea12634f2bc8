//! What is remembered of a target to be shown: memory and its largest groups over hours, over restarts.
//!
//! Not what the verdict rests on (that is `diagnose::History`). Bounded: full detail lately, thinned later.

use std::collections::BTreeMap;

use crate::sample::{Group, GroupId, Sample};

/// Groups of one moment that are kept.
const GROUPS: usize = 30;
/// Moments kept.
const POINTS: usize = 2_000;

/// One moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Unix seconds.
    pub at: f64,
    /// Which life of the target.
    pub generation: u32,
    pub resident_bytes: u64,
    pub anonymous_bytes: u64,
    pub heap_in_use_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// The largest groups.
    pub groups: Vec<GroupAt>,
}

/// A group at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupAt {
    pub id: GroupId,
    pub count: u64,
    /// Stacks, and what they retain where it was measured.
    pub bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Timeline {
    points: Vec<Point>,
    /// Each group of the points, as it was when last seen.
    groups: BTreeMap<GroupId, Group>,
}

impl Timeline {
    /// Adds a moment; `at` in unix seconds.
    pub fn push(&mut self, at: f64, sample: &Sample) {
        let bytes = |group: &Group| group.stack_bytes.saturating_add(group.retained_bytes.unwrap_or(0));
        let mut largest: Vec<&Group> = sample.groups.iter().collect();
        largest.sort_by_key(|group| std::cmp::Reverse((bytes(group), group.count)));
        largest.truncate(GROUPS);
        for group in &largest {
            self.groups.insert(group.id, (*group).clone());
        }
        self.points.push(Point {
            at,
            generation: sample.generation,
            resident_bytes: sample.memory.resident_bytes,
            anonymous_bytes: sample.memory.anonymous_bytes,
            heap_in_use_bytes: sample.memory.go.as_ref().map(|go| go.heap_in_use_bytes),
            limit_bytes: sample.memory.limit_bytes,
            groups: largest
                .iter()
                .map(|group| GroupAt { id: group.id, count: group.count, bytes: bytes(group) })
                .collect(),
        });
        if self.points.len() > POINTS {
            self.points.remove(0);
        }
    }

    /// The moments at or after `from` (unix seconds), oldest first, at most `most` of them, evenly chosen; the last
    /// one is always among them.
    pub fn points(&self, from: f64, most: usize) -> Vec<Point> {
        let wanted: Vec<&Point> = self.points.iter().filter(|point| point.at >= from).collect();
        let step = wanted.len().div_ceil(most.max(1)).max(1);
        let mut chosen: Vec<Point> = wanted.iter().rev().step_by(step).map(|&point| point.clone()).collect();
        chosen.reverse();
        chosen
    }

    /// What is known of a group that some point names.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }
}
