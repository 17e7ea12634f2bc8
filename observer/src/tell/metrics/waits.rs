//! Waits counted by powers of two of a microsecond, as a histogram of few buckets.

use prometheus::proto::{Bucket, Histogram};

use crate::sample::Waits;

/// A bucket ends at 2^this microseconds: 16 µs, 128 µs, 1 ms, 8 ms, 66 ms, 0.5 s, 4 s, 34 s.
const ENDS: [usize; 8] = [4, 7, 10, 13, 16, 19, 22, 25];

pub(super) fn histogram(waits: &Waits) -> Histogram {
    let mut buckets = Vec::with_capacity(ENDS.len());
    for end in ENDS {
        let below = waits.log2_microseconds.iter().take(end);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(power(end) / 1e6);
        bucket.set_cumulative_count(below.fold(0u64, |sum, count| sum.saturating_add(*count)));
        buckets.push(bucket);
    }
    let all = waits.log2_microseconds.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
    // A wait of 2^i to 2^(i+1) counts as 1.5 * 2^i.
    let sum: f64 = waits
        .log2_microseconds
        .iter()
        .enumerate()
        .map(|(place, count)| *count as f64 * 1.5 * power(place) / 1e6)
        .sum();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(all);
    histogram.set_sample_sum(if sum.is_finite() { sum } else { 0.0 });
    histogram
}

/// 2^exponent, however long the list of counts is.
fn power(exponent: usize) -> f64 {
    2f64.powi(i32::try_from(exponent).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_at_powers_of_two() {
        // 5 below 2 µs, 3 of 16 to 32 µs, 2 of 67 to 134 s.
        let mut counts = vec![0; 27];
        (counts[0], counts[4], counts[26]) = (5, 3, 2);
        let shown = histogram(&Waits { ended: 10, log2_microseconds: counts });
        let buckets: Vec<(f64, u64)> =
            shown.get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count())).collect();
        assert_eq!(buckets[0], (16e-6, 5));
        assert_eq!(buckets[1], (128e-6, 8));
        assert_eq!(buckets[7], (33.554_432, 8));
        assert_eq!(shown.get_sample_count(), 10);
        assert!((shown.get_sample_sum() - 2.0 * 1.5 * 67.108_864).abs() < 0.001);
    }

    #[test]
    fn no_list_of_counts_is_too_long_or_too_large() {
        let shown = histogram(&Waits { ended: 0, log2_microseconds: vec![u64::MAX; 3000] });
        assert_eq!(shown.get_sample_count(), u64::MAX);
        assert!(shown.get_sample_sum().is_finite());
        assert_eq!(histogram(&Waits::default()).get_sample_count(), 0);
    }
}
