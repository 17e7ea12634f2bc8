//! What is remembered of a target to be shown: memory and its largest groups over days, over restarts.
//!
//! Not what the verdict rests on (that is `diagnose::History`). Every moment of the last quarter of an hour, one in ten
//! seconds of the hours before, one in a minute (or, when there is no room, in 2, 4, 8 ...) of the days before that.
//! Of the moments that a thinned one stands for it is the one with the most memory, and beside it the one with the
//! least where that differs; a restart is never blurred. About 0.35 MB at its bounds (0.33 MB measured with thirty groups over three days), whatever the target does:
//! [`Timeline::bytes`] says how much it is.

mod groups;
pub mod store;
mod tier;

use std::collections::{BTreeMap, BTreeSet};

use crate::sample::{Group, GroupId, Sample};
use groups::{GROUPS, Groups, PREFERRED};
use tier::{Member, Moment, Tier};

/// Buffers double as they grow: the bounds in bytes are powers of two less what one moment may take at most, so that
/// none is half empty.
const MARGIN: usize = 2 << 10;
const RECENT_SECONDS: f64 = 900.0;
const RECENT_BYTES: usize = (64 << 10) - MARGIN;
const MIDDLE_STEP: f64 = 10.0;
const MIDDLE_SECONDS: f64 = 4.0 * 3600.0;
const MIDDLE_BYTES: usize = (64 << 10) - MARGIN;
const OLD_STEP: f64 = 60.0;
const OLD_SECONDS: f64 = 14.0 * 86_400.0;
const OLD_BYTES: usize = (128 << 10) - MARGIN;
/// Unix seconds that can be shown: until the year 2286.
const LATEST: f64 = 1e10;

/// One moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Unix seconds, to the millisecond.
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
    recent: Tier,
    middle: Thinned,
    old: Thinned,
    groups: Groups,
    preferred: BTreeSet<GroupId>,
}

impl Timeline {
    /// Adds a moment; `at` in unix seconds.
    pub fn push(&mut self, at: f64, sample: &Sample) {
        let point = self.point(at, sample);
        let by_id: BTreeMap<GroupId, &Group> = sample.groups.iter().map(|group| (group.id, group)).collect();
        self.push_point(&point, |id| by_id.get(&id).map(|group| (*group).clone()));
    }

    /// What would be kept of a sample.
    pub fn point(&self, at: f64, sample: &Sample) -> Point {
        let bytes = |group: &Group| group.stack_bytes.saturating_add(group.retained_bytes.unwrap_or(0));
        // One that is shown already stays shown when another is hardly larger: areas that come and go cannot be read.
        let rank = |group: &Group| {
            let size = bytes(group);
            let shown = self.recent.last().is_some() && self.groups.contains(group.id);
            (if shown { size.saturating_add(size / 4) } else { size }, group.count)
        };
        let mut largest: Vec<&Group> = sample.groups.iter().collect();
        largest.sort_by_key(|group| std::cmp::Reverse(rank(group)));
        let mut chosen: BTreeMap<GroupId, &Group> = BTreeMap::new();
        for group in largest.iter().take(GROUPS).chain(
            largest.iter().skip(GROUPS).filter(|group| self.preferred.contains(&group.id)).take(PREFERRED),
        ) {
            chosen.insert(group.id, group);
        }
        Point {
            at,
            generation: sample.generation,
            resident_bytes: sample.memory.resident_bytes,
            anonymous_bytes: sample.memory.anonymous_bytes,
            heap_in_use_bytes: sample.memory.heap.as_ref().map(|heap| heap.heap_in_use_bytes),
            limit_bytes: sample.memory.limit_bytes,
            groups: chosen
                .values()
                .map(|group| GroupAt { id: group.id, count: group.count, bytes: bytes(group) })
                .collect(),
        }
    }

    /// Adds a moment that was kept elsewhere; `group` tells what its groups are, as far as that is known.
    pub fn push_point(&mut self, point: &Point, group: impl Fn(GroupId) -> Option<Group>) {
        if !(0.0..LATEST).contains(&point.at) {
            return;
        }
        let at_millis = (point.at * 1000.0).round() as u64;
        match self.recent.last().map(|last| last.at_millis) {
            Some(last) if at_millis == last => return,
            // The clock was set back: what lies in its future was written by a clock that was wrong.
            Some(last) if at_millis < last => self.forget_from(at_millis),
            _ => {}
        }
        let mut members: Vec<Member> = point
            .groups
            .iter()
            .take(GROUPS + PREFERRED)
            .filter_map(|at| {
                let group = group(at.id)?;
                let number = self.groups.put(&group, at_millis);
                Some(Member { number, count: at.count, bytes: at.bytes })
            })
            .collect();
        members.sort_unstable_by_key(|member| member.number);
        members.dedup_by_key(|member| member.number);
        let moment = Moment {
            at_millis,
            generation: point.generation,
            resident: point.resident_bytes,
            anonymous: point.anonymous_bytes,
            heap: point.heap_in_use_bytes,
            limit: point.limit_bytes,
            groups: members,
        };
        self.middle.push(&moment, MIDDLE_STEP, &mut self.groups);
        self.old.push(&moment, OLD_STEP, &mut self.groups);
        name(&mut self.groups, &moment);
        self.recent.push(moment);
        while self.recent.used() > RECENT_BYTES || is_older(&self.recent, at_millis, RECENT_SECONDS) {
            forget_oldest(&mut self.recent, &mut self.groups);
        }
        while self.middle.tier.used() > MIDDLE_BYTES || is_older(&self.middle.tier, at_millis, MIDDLE_SECONDS)
        {
            forget_oldest(&mut self.middle.tier, &mut self.groups);
        }
        while is_older(&self.old.tier, at_millis, OLD_SECONDS) {
            forget_oldest(&mut self.old.tier, &mut self.groups);
        }
        if self.old.tier.used() > OLD_BYTES {
            self.old.thin_further(&mut self.groups);
        }
        self.groups.bound(at_millis);
    }

    /// Groups that are kept though others are larger, such as those that a diagnosis names; a few, the first ones.
    pub fn prefer(&mut self, ids: impl IntoIterator<Item = GroupId>) {
        self.preferred = ids.into_iter().take(PREFERRED).collect();
    }

    /// The moments at or after `from` (unix seconds), oldest first, at most `most` of them: evenly over the time, each
    /// the one with the most memory of those it stands for. The last one is always among them.
    pub fn points(&self, from: f64, most: usize) -> Vec<Point> {
        let wanted: Vec<Moment> = self.moments().filter(|moment| seconds(moment) >= from).collect();
        let chosen = if wanted.len() <= most { wanted } else { choose(wanted, most) };
        chosen.into_iter().map(|moment| self.to_point(moment)).collect()
    }

    /// The moment that was added last.
    pub fn last(&self) -> Option<Point> {
        self.recent.last().cloned().map(|moment| self.to_point(moment))
    }

    /// What is known of a group that some point names.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// Moments that are kept, over all resolutions.
    pub fn len(&self) -> usize {
        self.recent.len() + self.middle.tier.len() + self.old.tier.len()
    }

    pub fn is_empty(&self) -> bool {
        self.recent.first().is_none()
    }

    /// What it costs, in bytes; stacks that are shared with a sample are counted too.
    pub fn bytes(&self) -> usize {
        self.recent.bytes() + self.middle.tier.bytes() + self.old.tier.bytes() + self.groups.bytes()
    }

    /// Groups that are known, and how many had to be left out of moments because there were too many.
    pub fn groups_known(&self) -> (usize, u64) {
        (self.groups.len(), self.groups.evicted())
    }

    /// Each moment at the best resolution there is, oldest first.
    fn moments(&self) -> impl Iterator<Item = Moment> {
        let begin = |tier: &Tier| tier.first().map_or(u64::MAX, |first| first.at_millis);
        let recent = begin(&self.recent);
        let middle = begin(&self.middle.tier).min(recent);
        let old = self.old.tier.iter().take_while(move |moment| moment.at_millis < middle);
        let middle = self.middle.tier.iter().take_while(move |moment| moment.at_millis < recent);
        old.chain(middle).chain(self.recent.iter())
    }

    fn to_point(&self, moment: Moment) -> Point {
        let at = seconds(&moment);
        let Moment { generation, resident, anonymous, heap, limit, groups, .. } = moment;
        let mut groups: Vec<GroupAt> = groups
            .into_iter()
            .filter_map(|member| {
                let id = self.groups.id(member.number)?;
                Some(GroupAt { id, count: member.count, bytes: member.bytes })
            })
            .collect();
        groups.sort_by_key(|group| (std::cmp::Reverse((group.bytes, group.count)), group.id));
        Point {
            at,
            generation,
            resident_bytes: resident,
            anonymous_bytes: anonymous,
            heap_in_use_bytes: heap,
            limit_bytes: limit,
            groups,
        }
    }

    fn forget_from(&mut self, at_millis: u64) {
        self.middle.open = Bucket::default();
        self.old.open = Bucket::default();
        for tier in [&mut self.recent, &mut self.middle.tier, &mut self.old.tier] {
            let mut kept = Tier::default();
            for moment in std::mem::take(tier).iter() {
                if moment.at_millis < at_millis {
                    kept.push(moment);
                } else {
                    unname(&mut self.groups, &moment);
                }
            }
            *tier = kept;
        }
    }
}

/// A tier that keeps one or two moments of each stretch of time.
#[derive(Clone, Debug, Default)]
struct Thinned {
    tier: Tier,
    open: Bucket,
    /// How often the stretch was doubled for want of room.
    doubled: u32,
}

/// The stretch that is not over.
#[derive(Clone, Debug, Default)]
struct Bucket {
    highest: Option<Moment>,
    lowest: Option<Moment>,
}

impl Thinned {
    fn push(&mut self, moment: &Moment, step: f64, groups: &mut Groups) {
        let step = (step * 1000.0) as u64;
        let step = step.saturating_mul(1 << self.doubled.min(16)).max(1);
        let over = self.open.highest.as_ref().is_some_and(|open| {
            open.at_millis / step != moment.at_millis / step || open.generation != moment.generation
        });
        if over {
            for moment in self.open.close() {
                name(groups, &moment);
                self.tier.push(moment);
            }
        }
        self.open.add(moment);
    }

    /// Twice the stretch from now on, and for what there is.
    fn thin_further(&mut self, groups: &mut Groups) {
        let step = (OLD_STEP * 1000.0) as u64 * (2 << self.doubled.min(15));
        self.doubled += 1;
        let mut thinned = Self { doubled: self.doubled, ..Self::default() };
        let all = std::mem::take(&mut self.tier);
        for moment in all.iter() {
            thinned.push(&moment, OLD_STEP, groups);
        }
        for moment in thinned.open.close() {
            name(groups, &moment);
            thinned.tier.push(moment);
        }
        // Only now: a group that both name is not forgotten in between.
        for moment in all.iter() {
            unname(groups, &moment);
        }
        // One enormous moment each: forgotten from the old end, as doubling for ever would blur all.
        while thinned.tier.used() > OLD_BYTES * 3 / 4 && step > 3_600_000 {
            forget_oldest(&mut thinned.tier, groups);
        }
        self.tier = thinned.tier;
    }
}

impl Bucket {
    fn add(&mut self, moment: &Moment) {
        if self.highest.as_ref().is_none_or(|highest| moment.resident >= highest.resident) {
            self.highest = Some(moment.clone());
        }
        if self.lowest.as_ref().is_none_or(|lowest| moment.resident < lowest.resident) {
            self.lowest = Some(moment.clone());
        }
    }

    /// One moment, or two where a saw's tooth would be lost, in their order.
    fn close(&mut self) -> Vec<Moment> {
        let mut kept: Vec<Moment> = Vec::new();
        if let (Some(highest), Some(lowest)) = (self.highest.take(), self.lowest.take()) {
            let differs = lowest.resident < highest.resident - highest.resident / 16;
            if differs {
                kept.push(lowest);
            }
            kept.push(highest);
            kept.sort_by_key(|moment| moment.at_millis);
        }
        kept
    }
}

fn seconds(moment: &Moment) -> f64 {
    moment.at_millis as f64 / 1000.0
}

fn is_older(tier: &Tier, now_millis: u64, limit: f64) -> bool {
    tier.first().is_some_and(|first| {
        first.at_millis < now_millis && (now_millis - first.at_millis) as f64 > limit * 1000.0
    })
}

fn forget_oldest(tier: &mut Tier, groups: &mut Groups) {
    if let Some(moment) = tier.pop() {
        unname(groups, &moment);
    }
}

fn name(groups: &mut Groups, moment: &Moment) {
    for member in &moment.groups {
        groups.name(member.number);
    }
}

fn unname(groups: &mut Groups, moment: &Moment) {
    for member in &moment.groups {
        groups.unname(member.number);
    }
}

/// At most `most` moments: the time in as many parts, of each the highest; of the last part the last one.
fn choose(moments: Vec<Moment>, most: usize) -> Vec<Moment> {
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else { return moments };
    let (begin, span) = (first.at_millis, last.at_millis.saturating_sub(first.at_millis));
    let parts = most.saturating_sub(1).max(1) as u64;
    let last = last.clone();
    let mut chosen: Vec<(u64, Moment)> = Vec::new();
    for moment in moments {
        let part =
            u128::from(moment.at_millis - begin) * u128::from(parts) / u128::from(span.saturating_add(1));
        let part = part as u64;
        match chosen.last_mut() {
            Some((same, highest)) if *same == part => {
                if moment.resident > highest.resident {
                    *highest = moment;
                }
            }
            _ => chosen.push((part, moment)),
        }
    }
    let mut chosen: Vec<Moment> = chosen.into_iter().map(|(_, moment)| moment).collect();
    if most <= 1 {
        chosen.clear();
    }
    if chosen.last().is_none_or(|highest| highest.at_millis != last.at_millis) && most > 0 {
        chosen.push(last);
    }
    chosen
}
