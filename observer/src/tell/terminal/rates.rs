//! How fast each group grows: its size now against its size half a minute ago.

use std::collections::{HashMap, VecDeque};

use crate::sample::{GroupId, Sample};

const WINDOW_SECONDS: f64 = 30.0;
/// Between two sizes that are kept.
const STEP_SECONDS: f64 = 2.9;
/// Groups that are followed; a sample has fewer.
const GROUPS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Rates {
    sizes: HashMap<GroupId, VecDeque<(f64, u64)>>,
    last_at: Option<f64>,
}

impl Rates {
    pub(super) fn push(&mut self, sample: &Sample) {
        let now = sample.at_seconds;
        // What was not there at the last sample came since.
        let before = self.last_at.replace(now);
        let mut kept = HashMap::with_capacity(sample.groups.len());
        for group in sample.groups.iter().take(GROUPS) {
            let mut sizes = self
                .sizes
                .remove(&group.id)
                .unwrap_or_else(|| before.map(|at| (at, 0)).into_iter().collect());
            if sizes.back().is_none_or(|(at, _)| now - at >= STEP_SECONDS) {
                sizes.push_back((now, group.count));
            }
            // One at or beyond the window's edge stays, to measure from.
            while sizes.get(1).is_some_and(|(at, _)| now - at >= WINDOW_SECONDS) {
                sizes.pop_front();
            }
            kept.insert(group.id, sizes);
        }
        self.sizes = kept;
    }

    /// Members more a second.
    pub(super) fn per_second(&self, id: GroupId, count: u64, now: f64) -> f64 {
        let Some(&(at, before)) = self.sizes.get(&id).and_then(VecDeque::front) else { return 0.0 };
        let elapsed = now - at;
        if elapsed < 0.5 { 0.0 } else { (count as f64 - before as f64) / elapsed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Group;

    fn sample(at_seconds: f64, counts: &[(u64, u64)]) -> Sample {
        let group = |&(id, count)| Group { id: GroupId(id), count, ..Group::default() };
        Sample { at_seconds, groups: counts.iter().map(group).collect(), ..Sample::default() }
    }

    #[test]
    fn growth_is_of_the_last_half_minute() {
        let mut rates = Rates::default();
        for second in 0..=100_u64 {
            // Grows for forty seconds, then stays.
            rates.push(&sample(second as f64, &[(1, 10 * second.min(40)), (2, 5)]));
            if second == 20 {
                assert_eq!(rates.per_second(GroupId(1), 200, 20.0), 10.0);
            }
        }
        assert_eq!(rates.per_second(GroupId(1), 400, 100.0), 0.0);
        assert_eq!(rates.per_second(GroupId(2), 5, 100.0), 0.0);
        // A group that appears grew from nothing.
        rates.push(&sample(101.0, &[(3, 7)]));
        assert_eq!(rates.per_second(GroupId(3), 7, 101.0), 7.0);
        assert_eq!(rates.per_second(GroupId(1), 400, 101.0), 0.0);
    }
}
