//! Which groups of a target have series of their own: the largest, and who is in stays in.
//!
//! Pure. A series that comes and goes is worth little and costs Prometheus much, so a group keeps its place until
//! another one is clearly larger, also while it is away for a moment. Groups to blame are always in. At most as many
//! as there are places, each with a trail of a dozen counts from which its growth is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::sample::GroupId;

/// Over how long growth is told.
const TRAIL_SECONDS: f64 = 60.0;
/// Between two entries of a trail.
const STEP_SECONDS: f64 = 5.0;
/// Different wait reasons with a name of their own. Go knows some forty, few of them in one program.
const REASONS: usize = 24;

#[derive(Debug, Default)]
pub(crate) struct Sites {
    kept: BTreeMap<GroupId, Kept>,
    generation: u32,
    reasons: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Kept {
    /// At the last look; 0 while it is away.
    count: u64,
    /// Seconds and counts, oldest first.
    trail: VecDeque<(f64, u64)>,
}

impl Sites {
    /// Looks at the groups at a moment (unix seconds) in a life of the target; `blamed` are in whatever their size.
    pub(crate) fn look(
        &mut self,
        at: f64,
        generation: u32,
        counts: &BTreeMap<GroupId, u64>,
        blamed: &[GroupId],
        places: usize,
    ) {
        if generation != self.generation {
            self.generation = generation;
            for kept in self.kept.values_mut() {
                kept.trail.clear();
            }
        }
        for (id, kept) in &mut self.kept {
            kept.count = counts.get(id).copied().unwrap_or(0);
        }
        let blamed: BTreeSet<GroupId> =
            blamed.iter().copied().filter(|id| counts.contains_key(id)).take(places).collect();
        for id in &blamed {
            self.admit(*id, counts);
        }
        let mut others: Vec<(u64, GroupId)> = counts
            .iter()
            .filter(|(id, _)| !self.kept.contains_key(id))
            .map(|(id, count)| (*count, *id))
            .collect();
        others.sort_unstable_by(|a, b| b.cmp(a));
        for (count, id) in others {
            if self.kept.len() < places {
                self.admit(id, counts);
                continue;
            }
            let Some((weakest, least)) = self.weakest(&blamed) else { break };
            if !clearly_larger(count, least) {
                break;
            }
            self.kept.remove(&weakest);
            self.admit(id, counts);
        }
        while self.kept.len() > places {
            let Some((weakest, _)) = self.weakest(&blamed) else { break };
            self.kept.remove(&weakest);
        }
        for kept in self.kept.values_mut() {
            kept.remember(at);
        }
    }

    /// It has a place, and series of its own when it is there.
    pub(crate) fn has(&self, id: GroupId) -> bool {
        self.kept.contains_key(&id)
    }

    /// Members more a second over the trail; absent until there is one.
    pub(crate) fn growth(&self, id: GroupId) -> Option<f64> {
        let trail = &self.kept.get(&id)?.trail;
        let (from, first) = trail.front()?;
        let (to, last) = trail.back()?;
        (to - from >= STEP_SECONDS).then(|| (*last as f64 - *first as f64) / (to - from))
    }

    /// The name of a wait reason, or nothing when there are too many different ones already.
    pub(crate) fn reason(&mut self, reason: &str) -> Option<String> {
        let reason = super::label::value(reason);
        if self.reasons.len() < REASONS && !self.reasons.contains(&reason) {
            self.reasons.insert(reason.clone());
        }
        self.reasons.contains(&reason).then_some(reason)
    }

    fn admit(&mut self, id: GroupId, counts: &BTreeMap<GroupId, u64>) {
        self.kept.entry(id).or_default().count = counts.get(&id).copied().unwrap_or(0);
    }

    fn weakest(&self, blamed: &BTreeSet<GroupId>) -> Option<(GroupId, u64)> {
        let others = self.kept.iter().filter(|(id, _)| !blamed.contains(id));
        others.min_by_key(|(id, kept)| (kept.count, **id)).map(|(id, kept)| (*id, kept.count))
    }
}

impl Kept {
    fn remember(&mut self, at: f64) {
        // Another scraper's look at the same sample adds nothing; a clock that went back begins anew.
        match self.trail.back() {
            Some((last, _)) if at < *last => self.trail.clear(),
            Some((last, _)) if at - last < STEP_SECONDS => return,
            _ => {}
        }
        self.trail.push_back((at, self.count));
        while self.trail.len() > 2 && self.trail.get(1).is_some_and(|(next, _)| at - next >= TRAIL_SECONDS) {
            self.trail.pop_front();
        }
    }
}

/// By half and by more than a few, so that two groups of the same size do not change places for ever. Whoever is away
/// gives way to anybody.
fn clearly_larger(count: u64, least: u64) -> bool {
    if least == 0 { count > 0 } else { count / 3 > least / 2 && count - least > 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(u64, u64)]) -> BTreeMap<GroupId, u64> {
        of.iter().map(|(id, count)| (GroupId(*id), *count)).collect()
    }

    fn shown(sites: &Sites) -> Vec<u64> {
        sites.kept.keys().map(|id| id.0).collect()
    }

    #[test]
    fn who_is_in_stays_in_until_another_is_clearly_larger() {
        let mut sites = Sites::default();
        sites.look(0.0, 0, &counts(&[(1, 100), (2, 90), (3, 80)]), &[], 2);
        assert_eq!(shown(&sites), [1, 2]);
        sites.look(10.0, 0, &counts(&[(1, 100), (2, 90), (3, 120)]), &[], 2);
        assert_eq!(shown(&sites), [1, 2], "larger, but not clearly");
        sites.look(20.0, 0, &counts(&[(1, 100), (2, 90), (3, 400)]), &[], 2);
        assert_eq!(shown(&sites), [1, 3]);
        sites.look(30.0, 0, &counts(&[(1, 100), (2, 90)]), &[], 2);
        assert_eq!(shown(&sites), [1, 2], "who is away gives way");
    }

    #[test]
    fn who_is_away_keeps_its_place_while_nobody_wants_it() {
        let mut sites = Sites::default();
        sites.look(0.0, 0, &counts(&[(1, 5), (2, 3)]), &[], 2);
        sites.look(1.0, 0, &counts(&[(1, 5)]), &[], 2);
        assert!(sites.has(GroupId(2)));
    }

    #[test]
    fn small_groups_do_not_change_places_for_ever() {
        let mut sites = Sites::default();
        sites.look(0.0, 0, &counts(&[(1, 1), (2, 2)]), &[], 1);
        assert_eq!(shown(&sites), [2]);
        for round in 1..20u64 {
            sites.look(round as f64, 0, &counts(&[(1, 1 + round % 5), (2, 2)]), &[], 1);
            assert_eq!(shown(&sites), [2]);
        }
    }

    #[test]
    fn the_blamed_are_in_however_small_they_are() {
        let mut sites = Sites::default();
        let all = counts(&[(1, 100), (2, 90), (3, 1), (4, 1)]);
        sites.look(0.0, 0, &all, &[], 2);
        sites.look(1.0, 0, &all, &[GroupId(3), GroupId(99)], 2);
        assert_eq!(shown(&sites), [1, 3], "a blamed group that is not there takes no place");
        sites.look(2.0, 0, &all, &[GroupId(3), GroupId(4), GroupId(1)], 2);
        assert_eq!(sites.kept.len(), 2, "never more than there are places");
        sites.look(3.0, 0, &all, &[GroupId(3)], 0);
        assert_eq!(sites.kept.len(), 0);
    }

    #[test]
    fn a_hundred_thousand_groups_take_no_more_than_the_places() {
        let mut sites = Sites::default();
        let all: BTreeMap<GroupId, u64> = (0..100_000).map(|id| (GroupId(id), id % 977)).collect();
        sites.look(0.0, 0, &all, &[], 50);
        assert_eq!(sites.kept.len(), 50);
        assert!(sites.kept.values().all(|kept| kept.count == 976));
        for reason in 0..1000 {
            sites.reason(&format!("reason {reason}"));
        }
        assert_eq!(sites.reasons.len(), REASONS);
        assert_eq!(sites.reason("reason 0").as_deref(), Some("reason 0"));
        assert_eq!(sites.reason("reason 999"), None);
    }

    #[test]
    fn growth_is_told_over_a_minute_of_one_life() {
        let mut sites = Sites::default();
        let look = |sites: &mut Sites, at: f64, generation, count| {
            sites.look(at, generation, &counts(&[(1, count)]), &[], 5);
        };
        look(&mut sites, 1000.0, 0, 10);
        assert_eq!(sites.growth(GroupId(1)), None);
        look(&mut sites, 1001.0, 0, 26);
        assert_eq!(sites.growth(GroupId(1)), None, "too soon to tell");
        for second in 2..300u64 {
            look(&mut sites, 1000.0 + second as f64, 0, 10 + 16 * second);
        }
        assert!((sites.growth(GroupId(1)).unwrap() - 16.0).abs() < 1e-9);
        let trail = &sites.kept[&GroupId(1)].trail;
        assert!(trail.len() <= 16, "{}", trail.len());
        look(&mut sites, 1300.0, 1, 5);
        assert_eq!(sites.growth(GroupId(1)), None, "another life");
        look(&mut sites, 10.0, 1, 5);
        look(&mut sites, 20.0, 1, 15);
        assert_eq!(sites.growth(GroupId(1)), Some(1.0), "the clock went back");
    }
}
