//! Ticks that people would choose: whole minutes and hours, and powers of two of bytes.

use std::ops::Range;

use jiff::Timestamp;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// Seconds between ticks of time.
const STEPS: [f64; 20] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 10_800.0,
    21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0,
];

/// Where an axis is marked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticks {
    pub step: f64,
    pub at: Vec<f64>,
}

/// An axis with marks of our choice; from and to must differ.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    range: Range<f64>,
    marks: Vec<f64>,
}

impl Marked {
    pub(super) fn new(range: Range<f64>, marks: Vec<f64>) -> Self {
        Self { range, marks }
    }
}

impl Ranged for Marked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        // What lies outside, or is no number, stays at the edge; a float out of range casts to the nearest number.
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        (f64::from(from) + f64::from(to.saturating_sub(from)) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// At most `most` moments between two, in unix seconds.
pub(super) fn times(from: f64, to: f64, most: usize) -> Ticks {
    let span = (to - from).max(0.0);
    let most = most.max(2) as f64;
    let step = STEPS
        .into_iter()
        .find(|step| span / step <= most)
        .unwrap_or_else(|| (span / most / 604_800.0).ceil().max(1.0) * 604_800.0);
    Ticks { step, at: multiples(step, from, to) }
}

/// From nothing to at least `highest`, at most `most` steps, each a power of two (or one and a half of it).
pub(super) fn sizes(highest: f64, most: usize) -> Ticks {
    let highest = if highest.is_finite() { highest.clamp(1024.0, 1e19) } else { 1024.0 };
    let most = most.max(2) as f64;
    let mut step = 256.0;
    while highest / step > most {
        step *= 2.0;
    }
    Ticks { step, at: multiples(step, 0.0, highest) }
}

fn multiples(step: f64, from: f64, to: f64) -> Vec<f64> {
    let first = (from / step).ceil();
    // Bounded whatever the numbers are.
    (0..64u32).map(|place| (first + f64::from(place)) * step).take_while(|at| *at <= to).collect()
}

/// `14:05`, `14:05:10` or `Jan 2`, by how far the ticks are apart; in UTC.
pub fn clock(at: f64, step: f64) -> String {
    let Ok(time) = Timestamp::from_second(at as i64) else { return "?".to_owned() };
    let format = if step >= 86_400.0 {
        "%b %-d"
    } else if step < 60.0 {
        "%H:%M:%S"
    } else {
        "%H:%M"
    };
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_round() {
        let ticks = times(1_767_323_045.0, 1_767_323_045.0 + 900.0, 7);
        assert_eq!(ticks.step, 300.0);
        assert!(ticks.at.len() <= 7 && ticks.at.iter().all(|at| at % 300.0 == 0.0), "{ticks:?}");
        let ticks = sizes(68.0 * 1024.0 * 1024.0, 5);
        assert_eq!(ticks.step, 16.0 * 1024.0 * 1024.0);
        assert_eq!(ticks.at.len(), 5);
    }

    #[test]
    fn no_number_breaks_an_axis() {
        for (from, to) in [(0.0, 0.0), (5.0, 1.0), (-1e300, 1e300), (0.0, 1e11)] {
            assert!(times(from, to, 6).at.len() <= 64);
        }
        for highest in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(sizes(highest, 5).at.iter().all(|at| at.is_finite()));
        }
        assert_eq!(clock(f64::MAX, 60.0), "?");
        assert_eq!(clock(1_767_323_045.0, 60.0), "03:04");
    }
}
