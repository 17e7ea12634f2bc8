//! How fast each site grows: what it held at moments of the past, against what it holds now.
//!
//! Net of what went again: a pool whose pages come and go does not grow. Looks back over the latter half of the time
//! since observation began, ten minutes at most. Holds some thirty moments, the older ones further apart.

use std::collections::{HashMap, VecDeque};

use crate::sample::GroupId;

/// Moments that are kept.
const MOMENTS: usize = 32;
/// The longest look back, in seconds.
const LONGEST: f64 = 600.0;
/// A shorter one says nothing.
const SHORTEST: f64 = 1.0;

#[derive(Debug, Default)]
pub(super) struct Past {
    moments: VecDeque<(f64, HashMap<GroupId, u64>)>,
    /// Seconds between two moments, at least.
    apart: f64,
}

impl Past {
    /// Notes what the sites hold now; gives bytes per second of each.
    pub(super) fn grown(&mut self, at_seconds: f64, now: HashMap<GroupId, u64>) -> Vec<(GroupId, f64)> {
        // At the beginning nothing had grown yet.
        let began = self.moments.front().map_or(0.0, |(at, _)| at.min(0.0));
        let back = ((at_seconds - began) / 2.0).clamp(0.0, LONGEST);
        let nothing = HashMap::new();
        let (then, held) = self
            .moments
            .iter()
            .rev()
            .find(|(at, _)| at_seconds - at >= back)
            .map_or((0.0, &nothing), |(at, held)| (*at, held));
        let elapsed = at_seconds - then;
        let rates = if elapsed >= SHORTEST && elapsed.is_finite() {
            let rate = |(&id, &bytes): (&GroupId, &u64)| {
                let before = held.get(&id).copied().unwrap_or(0);
                (id, (bytes as f64 - before as f64) / elapsed)
            };
            now.iter().map(rate).collect()
        } else {
            Vec::new()
        };
        if self.moments.back().is_none_or(|(at, _)| at_seconds - at >= self.apart) {
            self.moments.push_back((at_seconds, now));
        }
        self.thin(at_seconds);
        rates
    }

    fn thin(&mut self, at_seconds: f64) {
        // One moment beyond the longest look back is enough.
        while self.moments.get(1).is_some_and(|(at, _)| at_seconds - at >= LONGEST) {
            self.moments.pop_front();
        }
        if self.moments.len() > MOMENTS {
            let mut number = 0;
            self.moments.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.apart =
                (self.apart * 2.0).max(at_seconds / MOMENTS as f64).min(LONGEST / MOMENTS as f64 * 2.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(early: u64, steady: u64) -> HashMap<GroupId, u64> {
        HashMap::from([(GroupId(1), early), (GroupId(2), steady)])
    }

    fn rate(rates: &[(GroupId, f64)], id: u64) -> f64 {
        rates.iter().find(|(known, _)| known.0 == id).unwrap().1
    }

    #[test]
    fn what_grew_at_first_only_does_not_grow_any_more() {
        let mut past = Past::default();
        let mut last = Vec::new();
        for second in (0..=20).step_by(2) {
            last = past.grown(f64::from(second), held(300_000_000, 1000 * second as u64));
        }
        assert!(rate(&last, 1).abs() < 1.0, "{last:?}");
        assert!((rate(&last, 2) - 1000.0).abs() < 1.0, "{last:?}");
    }

    #[test]
    fn days_of_moments_are_few_and_look_back_ten_minutes() {
        let mut past = Past::default();
        let mut last = Vec::new();
        for second in (0..100_000u64).step_by(2) {
            // Grew fast until long ago, then slowly.
            let grown = if second < 90_000 { second * 1000 } else { 90_000_000 + (second - 90_000) };
            last = past.grown(second as f64, held(grown, 0));
            assert!(past.moments.len() <= MOMENTS + 1);
        }
        assert!((rate(&last, 1) - 1.0).abs() < 0.01, "{last:?}");
        let (oldest, _) = past.moments.front().unwrap();
        assert!(99_998.0 - oldest < 2.0 * LONGEST, "{oldest}");
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            past.grown(odd, held(1, 1));
        }
    }
}
