//! Who keeps the heap: when to follow it, for which groups, and what was found last.
//!
//! Following the heap of a group costs milliseconds to a second, so only groups that grow are followed,
//! and only so often that it takes one per cent of one core.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::sample::{Group, GroupId, GroupKind, Retained, Sample};

/// As many groups are followed in one go.
const GROUPS: usize = 6;
/// Groups that have not grown by so much are noise.
const LEAST_GROWTH: u64 = 8;
/// Not more often, however cheap.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
/// The share of one core that following may take, where nobody says otherwise.
const CPU_SHARE: f64 = 0.01;
/// However small the share: who holds what is asked again after this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The longest that following may take, and the longest in a snapshot that nobody asked to follow anything.
const LONG: Duration = Duration::from_secs(3);
const MOMENT: Duration = Duration::from_millis(250);
/// Groups whose first size is remembered.
const REMEMBERED: usize = 10_000;
/// Groups whose heap is remembered; beyond it those that are gone are forgotten.
const FOUND: usize = 500;

/// Runtimes whose heap can be followed.
pub(crate) trait KeepsHeap {
    /// Whether groups of this kind are of a runtime here.
    fn has(&self, kind: GroupKind) -> bool;
    /// What members of `groups` alone keep reachable, as far as it could be followed within `time`.
    fn retained(&mut self, groups: &[(GroupKind, GroupId)], time: Duration) -> BTreeMap<GroupId, Retained>;
}

pub(crate) struct RetentionSchedule {
    share: f64,
    generation: u32,
    first_count: HashMap<GroupId, u64>,
    found: HashMap<GroupId, Retained>,
    not_before: Option<Instant>,
}

impl Default for RetentionSchedule {
    fn default() -> Self {
        Self {
            share: CPU_SHARE,
            generation: 0,
            first_count: HashMap::new(),
            found: HashMap::new(),
            not_before: None,
        }
    }
}

impl RetentionSchedule {
    /// The share of one core that following may take.
    pub(crate) fn set_share(&mut self, share: f64) {
        self.share = share;
    }

    /// Follows the groups that have grown, if it is time again.
    pub(crate) fn refresh(&mut self, heap: &mut dyn KeepsHeap, sample: &Sample) {
        self.remember(heap, sample);
        let now = Instant::now();
        let not_before = *self.not_before.get_or_insert(now + LEAST_PAUSE);
        if now >= not_before {
            self.follow_grown(heap, sample);
        }
    }

    /// Follows the groups that have grown.
    pub(crate) fn refresh_now(&mut self, heap: &mut dyn KeepsHeap, sample: &Sample) {
        self.remember(heap, sample);
        self.follow_grown(heap, sample);
    }

    fn follow_grown(&mut self, heap: &mut dyn KeepsHeap, sample: &Sample) {
        let mut grown: Vec<(u64, GroupKind, GroupId)> = groups_of(heap, sample)
            .filter_map(|group| {
                let first = self.first_count.get(&group.id)?;
                let grown = group.count.checked_sub(*first)?;
                (grown >= LEAST_GROWTH).then_some((grown, group.kind, group.id))
            })
            .collect();
        grown.sort_unstable_by(|left, right| right.cmp(left));
        let ids: Vec<_> = grown.into_iter().map(|(_, kind, id)| (kind, id)).take(GROUPS).collect();
        if self.found.len() > FOUND {
            let present: HashSet<GroupId> = groups_of(heap, sample).map(|group| group.id).collect();
            self.found.retain(|id, _| present.contains(id));
        }
        self.follow(heap, &ids, LONG);
    }

    /// Follows the largest groups, at any price or for a moment only; whether all of their heap was followed.
    pub(crate) fn measure_largest(
        &mut self,
        heap: &mut dyn KeepsHeap,
        sample: &Sample,
        at_any_price: bool,
    ) -> bool {
        let mut largest: Vec<&Group> = groups_of(heap, sample).collect();
        largest.sort_by_key(|group| std::cmp::Reverse(group.count));
        let ids: Vec<_> = largest.into_iter().map(|group| (group.kind, group.id)).take(GROUPS).collect();
        self.follow(heap, &ids, if at_any_price { LONG } else { MOMENT });
        at_any_price || self.found.values().all(|found| found.group_bytes.is_some())
    }

    /// Writes what was found into the groups.
    pub(crate) fn apply(&self, groups: &mut [Group]) {
        for group in groups {
            let Some(retained) = self.found.get(&group.id) else { continue };
            // What members share among themselves is theirs too, where the whole heap was followed.
            let bytes = retained
                .group_bytes
                .map_or(retained.exclusive_bytes_per_member * group.count as f64, |bytes| bytes as f64);
            // A figure from outside: negative, endless or absurd ones are none.
            if bytes.is_finite() && (0.0..1e18).contains(&bytes) {
                group.retained_bytes = Some(bytes as u64);
                group.retained = Some(retained.clone());
            }
        }
    }

    fn follow(&mut self, heap: &mut dyn KeepsHeap, ids: &[(GroupKind, GroupId)], time: Duration) {
        if ids.is_empty() {
            return;
        }
        let started = Instant::now();
        self.found.extend(heap.retained(ids, time));
        let cost = started.elapsed();
        tracing::debug!(groups = ids.len(), ?cost, "followed the heap of groups");
        let pause = cost.as_secs_f64() / self.share.clamp(1e-6, 1.0);
        let pause = Duration::try_from_secs_f64(pause).unwrap_or(LONGEST_PAUSE);
        self.not_before = Some(Instant::now() + pause.clamp(LEAST_PAUSE, LONGEST_PAUSE));
    }

    fn remember(&mut self, heap: &dyn KeepsHeap, sample: &Sample) {
        if self.generation != sample.generation {
            *self = Self { generation: sample.generation, share: self.share, ..Self::default() };
        }
        if self.first_count.len() >= REMEMBERED {
            let present: HashSet<GroupId> = groups_of(heap, sample).map(|group| group.id).collect();
            self.first_count.retain(|id, _| present.contains(id));
        }
        for group in groups_of(heap, sample) {
            if self.first_count.len() < REMEMBERED || self.first_count.contains_key(&group.id) {
                // A group that first shows in a later sample grew from what it was before that: its newcomers.
                self.first_count.entry(group.id).or_insert(group.count.saturating_sub(group.joined));
            }
        }
    }
}

/// Groups of the runtimes that can be asked.
fn groups_of<'s>(heap: &dyn KeepsHeap, sample: &'s Sample) -> impl Iterator<Item = &'s Group> {
    sample.groups.iter().filter(move |group| heap.has(group.kind))
}
