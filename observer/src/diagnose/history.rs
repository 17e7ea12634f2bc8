//! What is remembered of the samples of one target: the memory curve and, for each group, its counts.
//!
//! Reads samples, keeps the current life of the target only (an exec or restart begins a new one).
//! Bounded whatever the target does: long series are thinned from their old end (counters are cumulative, so a
//! thinned series still adds up), a steady group costs two points, and the smallest groups are forgotten first.
//! At its bounds it is about 5 MB.

use std::collections::{BTreeMap, HashMap};

use crate::sample::{
    Allocations, Deadlock, Degraded, Group, GroupId, Growth, Losses, Memory, Sample, Totals, Waits,
};

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// What is older than this many seconds is forgotten.
    pub window_seconds: f64,
    /// Points of the memory curve.
    pub memory_points: usize,
    /// Groups followed at once.
    pub groups: usize,
    /// Points of one group.
    pub group_points: usize,
    /// Points of all groups together.
    pub points: usize,
}

impl Default for Bounds {
    /// One target, watched for as long as somebody sits before it.
    fn default() -> Self {
        Self {
            window_seconds: f64::INFINITY,
            memory_points: 1_000,
            groups: 3_000,
            group_points: 240,
            points: 60_000,
        }
    }
}

impl Bounds {
    /// One of many targets, watched for months: a leak of hours shows, and all of it is below 1 MB.
    pub const RESIDENT: Self = Self {
        window_seconds: 6.0 * 3600.0,
        memory_points: 600,
        groups: 1_000,
        group_points: 120,
        points: 10_000,
    };
}

/// No observation lasts longer (30 years); a time beyond it is none.
const LATEST: f64 = 1e9;
/// Names of losses kept: a fixed set in practice, bounded because recordings are read too.
const LOSS_NAMES: usize = 64;
/// Deadlocks kept of the last moment.
const DEADLOCKS: usize = 16;

/// The memory of one moment.
#[derive(Clone, Debug)]
pub struct MemoryPoint {
    pub at: f64,
    pub memory: Memory,
}

/// A group's count at one moment, with counters since the group was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupPoint {
    pub at: f64,
    pub count: u64,
    pub joined: u64,
    pub left: u64,
    pub moved: u64,
    /// Of those that left, how many ended; as many as left where the source does not say.
    pub ended: u64,
}

/// All that is remembered of one group.
#[derive(Clone, Debug)]
pub struct GroupSeries {
    /// As it was when last seen.
    pub group: Group,
    pub points: Vec<GroupPoint>,
    /// Part of the latest sample.
    pub present: bool,
    /// The source tells members that ended from members that went elsewhere.
    pub knows_ended: bool,
}

impl GroupSeries {
    pub fn last(&self) -> GroupPoint {
        self.points.last().copied().unwrap_or_default()
    }

    fn push(&mut self, point: GroupPoint, most: usize) {
        if let [.., before, last] = self.points.as_mut_slice()
            && (before.count, before.joined, before.left) == (last.count, last.joined, last.left)
            && (last.count, last.joined, last.left) == (point.count, point.joined, point.left)
        {
            *last = point;
            return;
        }
        self.points.push(point);
        if self.points.len() > most {
            thin(&mut self.points);
        }
    }
}

/// The samples of one target, condensed.
#[derive(Clone, Debug, Default)]
pub struct History {
    bounds: Bounds,
    memory: Vec<MemoryPoint>,
    groups: HashMap<GroupId, GroupSeries>,
    points: usize,
    samples: u64,
    first_at: f64,
    last_at: f64,
    generation: u32,
    restarts: u32,
    earlier_seconds: f64,
    exited: bool,
    losses: Losses,
    degraded: Vec<Degraded>,
    growth: Option<Growth>,
    totals: Totals,
    waits: Option<Waits>,
    deadlocks: Vec<Deadlock>,
    allocations: Option<Allocations>,
}

impl History {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn within(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Adds a moment. One that is not later than the last is counted as lost, not believed.
    pub fn push(&mut self, sample: Sample) {
        if sample.at_seconds.is_nan()
            || sample.at_seconds.abs() > LATEST
            || (self.samples > 0 && sample.at_seconds <= self.last_at)
        {
            self.lose("samples_out_of_order", 1);
            return;
        }
        for (name, lost) in &sample.losses {
            self.lose(name, *lost);
        }
        if self.samples > 0 && (sample.generation != self.generation || self.everybody_is_new(&sample)) {
            self.begin_new_life();
        }
        if self.samples == 0 {
            self.first_at = sample.at_seconds;
        }
        let Sample {
            at_seconds,
            generation,
            memory,
            groups,
            totals,
            waits,
            growth,
            deadlocks,
            degraded,
            allocations,
            ..
        } = sample;
        self.generation = generation;
        self.memory.push(MemoryPoint { at: at_seconds, memory });
        if self.memory.len() > self.bounds.memory_points {
            thin_memory(&mut self.memory);
        }
        let truncated = totals.members_left_out > 0 || totals.groups > groups.len() as u64;
        self.push_groups(at_seconds, groups, truncated);
        self.totals = totals;
        self.waits = waits.or(self.waits.take());
        self.growth = growth.or(self.growth.take());
        self.allocations = allocations.or(self.allocations.take());
        self.deadlocks = deadlocks;
        self.deadlocks.truncate(DEADLOCKS);
        self.degraded = degraded;
        self.last_at = at_seconds;
        self.samples += 1;
        self.forget_old();
    }

    /// The target is gone; what was seen stands.
    pub fn mark_exited(&mut self) {
        self.exited = true;
    }

    pub fn exited(&self) -> bool {
        self.exited
    }

    /// Samples of the current life.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Seconds that the samples of the current life span.
    pub fn window_seconds(&self) -> f64 {
        (self.last_at - self.first_at).max(0.0)
    }

    pub fn first_at(&self) -> f64 {
        self.first_at
    }

    pub fn last_at(&self) -> f64 {
        self.last_at
    }

    /// Lives of the target that ended while it was observed.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Seconds of earlier lives, which are not judged.
    pub fn earlier_seconds(&self) -> f64 {
        self.earlier_seconds
    }

    pub fn memory(&self) -> &[MemoryPoint] {
        &self.memory
    }

    pub fn groups(&self) -> impl Iterator<Item = &GroupSeries> {
        self.groups.values()
    }

    pub fn group(&self, id: GroupId) -> Option<&GroupSeries> {
        self.groups.get(&id)
    }

    /// Everything lost since observation began, by name.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }

    /// What the target's allocator handed out and did not get back, where that is tracked.
    pub fn allocations(&self) -> Option<&Allocations> {
        self.allocations.as_ref()
    }

    pub fn growth(&self) -> Option<&Growth> {
        self.growth.as_ref()
    }

    pub fn waits(&self) -> Option<&Waits> {
        self.waits.as_ref()
    }

    /// Deadlocks of the latest sample.
    pub fn deadlocks(&self) -> &[Deadlock] {
        &self.deadlocks
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    fn lose(&mut self, name: &str, lost: u64) {
        if lost == 0 || (self.losses.len() >= LOSS_NAMES && !self.losses.contains_key(name)) {
            return;
        }
        let sum = self.losses.entry(name.to_owned()).or_default();
        *sum = sum.saturating_add(lost);
    }

    fn begin_new_life(&mut self) {
        self.earlier_seconds += self.window_seconds();
        self.restarts = self.restarts.saturating_add(1);
        self.memory.clear();
        self.groups.clear();
        self.points = 0;
        self.samples = 0;
        self.growth = None;
        self.allocations = None;
        self.waits = None;
        self.deadlocks.clear();
    }

    /// Not one member of any group stayed: the same pid, but another image (or a restart that nobody reported).
    /// A burst that drains is not one: the few others stay.
    fn everybody_is_new(&self, sample: &Sample) -> bool {
        let before: u64 = self.groups.values().fold(0, |sum, g| sum.saturating_add(g.last().count));
        let told = sample.groups.iter().any(|g| g.joined > 0 || g.left > 0);
        let stayed = sample
            .groups
            .iter()
            .filter(|g| self.groups.contains_key(&g.id))
            .fold(0u64, |sum, g| sum.saturating_add(g.count.saturating_sub(g.joined)));
        before >= 10 && self.groups.len() >= 3 && (told || sample.groups.is_empty()) && stayed == 0
    }

    fn push_groups(&mut self, at: f64, groups: Vec<Group>, truncated: bool) {
        let first_sample = self.samples == 0;
        let previous_at = self.last_at;
        let most = self.bounds.group_points;
        for series in self.groups.values_mut() {
            series.present = false;
        }
        // Recordings may hold the same group twice: merged, so that its series stays one.
        let mut merged: BTreeMap<GroupId, Group> = BTreeMap::new();
        for group in groups {
            match merged.get_mut(&group.id) {
                None => {
                    merged.insert(group.id, group);
                }
                Some(same) => {
                    same.count = same.count.saturating_add(group.count);
                    same.joined = same.joined.saturating_add(group.joined);
                    same.left = same.left.saturating_add(group.left);
                    same.moved = same.moved.saturating_add(group.moved);
                    same.stack_bytes = same.stack_bytes.saturating_add(group.stack_bytes);
                }
            }
        }
        for (id, group) in merged {
            match self.groups.get_mut(&id) {
                Some(series) => {
                    let length = series.points.len();
                    series.push(next_point(at, series.last(), &group), most);
                    self.points = (self.points + series.points.len()).saturating_sub(length);
                    series.present = true;
                    series.knows_ended |= group.ended.is_some();
                    let before = std::mem::replace(&mut series.group, group);
                    if series.group.retained.is_none() {
                        series.group.retained = before.retained;
                        series.group.retained_bytes = series.group.retained_bytes.or(before.retained_bytes);
                    }
                }
                None => {
                    let mut points = Vec::with_capacity(2);
                    if first_sample {
                        points.push(GroupPoint { at, count: group.count, ..GroupPoint::default() });
                    } else {
                        // It was not there a moment ago (or too small to be told), so all its members are new.
                        points.push(GroupPoint { at: previous_at, ..GroupPoint::default() });
                        points.push(next_point(at, GroupPoint::default(), &group));
                    }
                    self.points += points.len();
                    let knows_ended = group.ended.is_some();
                    self.groups.insert(id, GroupSeries { group, points, present: true, knows_ended });
                }
            }
        }
        self.mark_absent(at, truncated);
        self.bound();
    }

    /// A group that the sample does not list has no members, unless the sample was cut to its largest groups.
    fn mark_absent(&mut self, at: f64, truncated: bool) {
        let mut added = 0;
        let most = self.bounds.group_points;
        for series in self.groups.values_mut().filter(|series| !series.present) {
            let last = series.last();
            if truncated || last.count == 0 {
                continue;
            }
            let length = series.points.len();
            let none = GroupPoint {
                at,
                count: 0,
                left: last.left.saturating_add(last.count),
                ended: last.ended.saturating_add(last.count),
                ..last
            };
            series.push(none, most);
            added += series.points.len().saturating_sub(length);
        }
        self.points += added;
    }

    /// Drops what has left the window. A tenth at a time, so that it is seldom done; the counters of a group are
    /// differences between its points, so none of them need to change.
    fn forget_old(&mut self) {
        let window = self.bounds.window_seconds;
        if self.last_at - self.first_at <= window * 1.1 {
            return;
        }
        let from = self.last_at - window;
        self.memory.retain(|point| point.at >= from);
        self.groups.retain(|_, series| {
            // The last point before the window says how it began.
            let begin = series.points.partition_point(|point| point.at < from).saturating_sub(1);
            series.points.drain(..begin);
            if let Some(first) = series.points.first_mut() {
                first.at = first.at.max(from);
            }
            series.present || series.points.len() > 1
        });
        self.points = self.groups.values().map(|series| series.points.len()).sum();
        self.first_at = from;
    }

    fn bound(&mut self) {
        if self.groups.len() > self.bounds.groups {
            let mut sizes: Vec<(bool, u64, GroupId)> =
                self.groups.iter().map(|(id, s)| (s.present, s.last().count, *id)).collect();
            sizes.sort_unstable();
            let excess = self.groups.len() - self.bounds.groups * 9 / 10;
            for (_, _, id) in sizes.into_iter().take(excess) {
                self.groups.remove(&id);
            }
            self.lose("groups_forgotten", excess as u64);
            self.points = self.groups.values().map(|s| s.points.len()).sum();
        }
        if self.points > self.bounds.points {
            // Small groups lose resolution first; if all are large, all do.
            let mut counts: Vec<u64> = self.groups.values().map(|s| s.last().count).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let large = counts.get(63).copied().unwrap_or(0);
            for series in self.groups.values_mut().filter(|s| s.points.len() > 16 && s.last().count <= large)
            {
                thin(&mut series.points);
            }
            self.points = self.groups.values().map(|s| s.points.len()).sum();
            if self.points > self.bounds.points {
                for series in self.groups.values_mut().filter(|s| s.points.len() > 8) {
                    thin(&mut series.points);
                }
                self.points = self.groups.values().map(|s| s.points.len()).sum();
            }
        }
    }
}

/// The counters must add up to the change of the count, whatever the source says of its members.
fn next_point(at: f64, last: GroupPoint, group: &Group) -> GroupPoint {
    let mut joined = group.joined.min(group.count);
    let mut left = group.left.min(last.count);
    let after = last.count.saturating_sub(left).saturating_add(joined);
    if after < group.count {
        joined = joined.saturating_add(group.count - after);
    } else {
        left = left.saturating_add(after - group.count).min(last.count);
    }
    let ended = group.ended.map_or(left, |ended| ended.min(left));
    GroupPoint {
        at,
        count: group.count,
        joined: last.joined.saturating_add(joined),
        left: last.left.saturating_add(left),
        moved: last.moved.saturating_add(group.moved.min(group.count)),
        ended: last.ended.saturating_add(ended),
    }
}

/// Drops every second point of the older two thirds; the first and the recent ones stay.
fn thin(points: &mut Vec<GroupPoint>) {
    let old = points.len() * 2 / 3;
    let mut place = 0;
    points.retain(|_| {
        place += 1;
        let place = place - 1;
        place >= old || place % 2 == 0
    });
}

/// As [`thin`], but of two points the one with less memory in use stays: the lower envelope is what is judged.
fn thin_memory(points: &mut Vec<MemoryPoint>) {
    let old = points.len() * 2 / 3;
    let recent = points.split_off(old);
    let mut kept = Vec::with_capacity(points.len() / 2 + recent.len() + 2);
    let mut pairs = points.drain(..);
    kept.extend(pairs.next());
    while let Some(one) = pairs.next() {
        match pairs.next() {
            Some(other) if floor_bytes(&other.memory) < floor_bytes(&one.memory) => kept.push(other),
            _ => kept.push(one),
        }
    }
    drop(pairs);
    kept.extend(recent);
    *points = kept;
}

fn floor_bytes(memory: &Memory) -> u64 {
    memory.heap.as_ref().map_or(memory.anonymous_bytes, |heap| heap.heap_objects_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, groups: &[(u64, u64, u64, u64)]) -> Sample {
        Sample {
            at_seconds: at,
            groups: groups
                .iter()
                .map(|&(id, count, joined, left)| Group {
                    id: GroupId(id),
                    count,
                    joined,
                    left,
                    ..Group::default()
                })
                .collect(),
            ..Sample::default()
        }
    }

    #[test]
    fn counters_add_up_even_when_the_source_is_silent() {
        let mut history = History::new();
        history.push(sample(0.0, &[(1, 10, 0, 0)]));
        history.push(sample(1.0, &[(1, 14, 0, 0)]));
        history.push(sample(2.0, &[(1, 12, 3, 0)]));
        let last = history.group(GroupId(1)).unwrap().last();
        assert_eq!((last.count, last.joined, last.left), (12, 7, 5));
    }

    #[test]
    fn a_group_that_is_gone_counts_as_left() {
        let mut history = History::new();
        history.push(sample(0.0, &[(1, 10, 0, 0), (2, 5, 0, 0)]));
        history.push(sample(1.0, &[(2, 5, 0, 0)]));
        let series = history.group(GroupId(1)).unwrap();
        assert_eq!((series.last().count, series.last().left, series.present), (0, 10, false));
    }

    #[test]
    fn hours_of_many_groups_stay_small() {
        let mut history = History::new();
        for second in 0..4_000u64 {
            let groups: Vec<_> = (0..200u64).map(|id| (id, 100 + (second * (id + 1)) % 17, 1, 1)).collect();
            history.push(sample(second as f64, &groups));
        }
        let points: usize = history.groups().map(|s| s.points.len()).sum();
        assert_eq!(points, history.points);
        assert!(points <= Bounds::default().points, "{points}");
        assert!(history.memory().len() <= Bounds::default().memory_points);
        for series in history.groups() {
            assert!(series.points.is_sorted_by(|a, b| a.at < b.at && a.joined <= b.joined));
        }
    }

    #[test]
    fn groups_without_end_are_bounded_and_the_loss_is_told() {
        let mut history = History::new();
        for second in 0..20u64 {
            let groups: Vec<_> = (0..1_000u64)
                .map(|id| (second * 1_000 + id, 3, 3, 0))
                .chain([(7_777_777, 50, 0, 0)])
                .collect();
            history.push(sample(second as f64, &groups));
        }
        assert!(history.groups().count() <= Bounds::default().groups);
        assert!(history.group(GroupId(7_777_777)).is_some());
        assert!(history.losses().contains_key("groups_forgotten"));
    }

    #[test]
    fn time_never_runs_backwards() {
        let mut history = History::new();
        history.push(sample(5.0, &[(1, 1, 0, 0)]));
        history.push(sample(5.0, &[(1, 9, 0, 0)]));
        history.push(sample(f64::NAN, &[(1, 9, 0, 0)]));
        assert_eq!(history.samples(), 1);
        assert_eq!(history.losses()["samples_out_of_order"], 2);
    }

    #[test]
    fn what_left_the_window_is_forgotten() {
        let mut history = History::within(Bounds { window_seconds: 100.0, ..Bounds::default() });
        for second in 0..1_000u64 {
            let mut groups = vec![(1, 10 + second, 1, 0)];
            groups.extend((second < 500).then_some((2, 5, 0, 0)));
            history.push(sample(second as f64, &groups));
        }
        assert!((100.0..=111.0).contains(&history.window_seconds()), "{}", history.window_seconds());
        assert!(history.memory().iter().all(|point| point.at >= history.first_at()));
        let series = history.group(GroupId(1)).unwrap();
        let (first, last) = (series.points[0], series.last());
        assert!(first.at >= history.first_at() && series.points.is_sorted_by(|a, b| a.at <= b.at));
        assert_eq!(last.joined - first.joined, last.count - first.count);
        assert!(history.group(GroupId(2)).is_none());
        assert_eq!(history.points, history.groups().map(|s| s.points.len()).sum::<usize>());
    }

    #[test]
    fn another_image_begins_a_new_life() {
        let mut history = History::new();
        history.push(sample(0.0, &[(1, 10, 0, 0), (2, 1, 0, 0), (3, 4, 0, 0)]));
        history.push(Sample { generation: 1, ..sample(1.0, &[(1, 2, 0, 0)]) });
        assert_eq!((history.samples(), history.restarts()), (1, 1));
        // Unreported: nobody stayed.
        history.push(Sample { generation: 1, ..sample(2.0, &[(1, 12, 10, 0), (2, 1, 1, 0), (3, 4, 4, 0)]) });
        assert_eq!(history.restarts(), 1, "one group of two members is no life to lose");
        history.push(Sample { generation: 1, ..sample(3.0, &[(1, 2, 2, 12), (2, 1, 1, 1), (3, 1, 1, 4)]) });
        assert_eq!(history.restarts(), 2);
    }
}
