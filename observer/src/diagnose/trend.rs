//! Robust lines through noisy points: slopes, lower envelopes, and whether a rise still goes on.
//!
//! Takes slices of [`Point`], gives numbers. Nothing here knows what the points measure; every function is total
//! over whatever is in them, and costs at most the square of [`PAIR_POINTS`].

/// More points than this are thinned before every pair of them is looked at.
const PAIR_POINTS: usize = 200;
/// As above, for what costs the cube.
const LOW_POINTS: usize = 60;

/// A value at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub at: f64,
    pub value: f64,
}

/// The middle value; 0 of none. Values that are no numbers are left out.
pub(super) fn median(values: &mut Vec<f64>) -> f64 {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => values[n / 2 - 1] / 2.0 + values[n / 2] / 2.0,
    }
}

/// The median slope over all pairs of points (Theil-Sen): a quarter of the points may be wild.
pub(super) fn slope(points: &[Point]) -> f64 {
    let step = points.len().div_ceil(PAIR_POINTS).max(1);
    let chosen: Vec<Point> = points.iter().step_by(step).copied().collect();
    let mut slopes = Vec::with_capacity(chosen.len() * chosen.len() / 2);
    for (place, one) in chosen.iter().enumerate() {
        for other in chosen.iter().skip(place + 1) {
            let elapsed = other.at - one.at;
            if elapsed > 0.0 {
                slopes.push((other.value - one.value) / elapsed);
            }
        }
    }
    median(&mut slopes)
}

/// Slope of the line with a quarter of the points below it (quantile regression over the lines through two points).
/// What lies above a floor by chance, more often far than near, tilts it less than it would the middle line.
pub(super) fn low_slope(points: &[Point]) -> f64 {
    const LOW: f64 = 0.25;
    let step = points.len().div_ceil(LOW_POINTS).max(1);
    let chosen: Vec<Point> = points.iter().step_by(step).copied().collect();
    let mut best = (f64::INFINITY, 0.0);
    let mut above: Vec<f64> = Vec::with_capacity(chosen.len());
    for (place, one) in chosen.iter().enumerate() {
        for other in chosen.iter().skip(place + 1) {
            let slope = (other.value - one.value) / (other.at - one.at);
            if !slope.is_finite() {
                continue;
            }
            above.clear();
            above.extend(chosen.iter().map(|p| p.value - slope * p.at));
            let rank = ((above.len() - 1) as f64 * LOW) as usize;
            let (_, middle, _) = above.select_nth_unstable_by(rank, f64::total_cmp);
            let middle = *middle;
            let loss: f64 =
                above
                    .iter()
                    .map(|value| {
                        if *value >= middle { LOW * (value - middle) } else { (1.0 - LOW) * (middle - value) }
                    })
                    .sum();
            if loss < best.0 {
                best = (loss, slope);
            }
        }
    }
    best.1
}

/// Median distance of the points from the line of `slope` through their middle, scaled to a standard deviation.
pub(super) fn scatter(points: &[Point], slope: f64) -> f64 {
    let mut intercepts: Vec<f64> = points.iter().map(|p| p.value - slope * p.at).collect();
    let middle = median(&mut intercepts);
    let mut distances: Vec<f64> = points.iter().map(|p| (p.value - slope * p.at - middle).abs()).collect();
    1.4826 * median(&mut distances)
}

/// The troughs of a sawtooth: points where the value has just fallen and then rises again. For a garbage collected
/// heap these are the moments after a collection, when what is left is nearly all alive.
pub(super) fn troughs(points: &[Point], least_fall: f64) -> Vec<Point> {
    let mut found: Vec<Point> = Vec::new();
    let mut peak = f64::NEG_INFINITY;
    let mut low: Option<Point> = None;
    for point in points {
        match low {
            Some(lowest) if point.value <= lowest.value => low = Some(*point),
            Some(lowest) => {
                // One point above the low is enough: the fall has ended.
                found.push(lowest);
                low = None;
                peak = point.value;
            }
            None if peak.is_finite() && point.value < peak - least_fall.max(peak.abs() * 0.03) => {
                low = Some(*point);
            }
            None => peak = peak.max(point.value),
        }
    }
    found.extend(low);
    found
}

/// The lowest point of each of `parts` equal spans of time.
pub(super) fn envelope(points: &[Point], parts: usize) -> Vec<Point> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let width = (last.at - first.at) / parts.max(1) as f64;
    if width <= 0.0 || width.is_nan() {
        return vec![*first];
    }
    let mut lowest: Vec<Option<Point>> = vec![None; parts.max(1)];
    for point in points {
        let part = (((point.at - first.at) / width) as usize).min(lowest.len() - 1);
        if lowest[part].is_none_or(|low| point.value < low.value) {
            lowest[part] = Some(*point);
        }
    }
    lowest.into_iter().flatten().collect()
}

/// The value at a time, on the line between the neighbours.
pub(super) fn value_at(points: &[Point], at: f64) -> f64 {
    let after = points.partition_point(|p| p.at < at);
    match (after.checked_sub(1).and_then(|before| points.get(before)), points.get(after)) {
        (Some(before), Some(next)) if next.at > before.at => {
            before.value + (next.value - before.value) * ((at - before.at) / (next.at - before.at))
        }
        (_, Some(next)) => next.value,
        (Some(before), None) => before.value,
        (None, None) => 0.0,
    }
}

/// How much the value rose in each third of the time.
pub(super) fn thirds(points: &[Point]) -> [f64; 3] {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return [0.0; 3] };
    let width = (last.at - first.at) / 3.0;
    let one = value_at(points, first.at + width);
    let two = value_at(points, first.at + 2.0 * width);
    [one - first.value, two - one, last.value - two]
}

/// The slope of `y` over `x` by least squares, through any intercept, and its standard error; absent when `x` hardly
/// varies.
pub(super) fn regression(pairs: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = pairs.len() as f64;
    if pairs.len() < 4 {
        return None;
    }
    let mean_x = pairs.iter().map(|(x, _)| x / n).sum::<f64>();
    let mean_y = pairs.iter().map(|(_, y)| y / n).sum::<f64>();
    let (mut spread, mut joint) = (0.0, 0.0);
    for (x, y) in pairs {
        spread += (x - mean_x) * (x - mean_x);
        joint += (x - mean_x) * (y - mean_y);
    }
    let slope = joint / spread;
    let rest: f64 = pairs.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
    let error = (rest / (n - 2.0) / spread).sqrt();
    (spread > 0.0 && slope.is_finite() && error.is_finite()).then_some((slope, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, f: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..n).map(|i| Point { at: i as f64, value: f(i as f64) }).collect()
    }

    #[test]
    fn a_quarter_of_wild_points_does_not_move_the_slope() {
        let points = line(60, |t| if (t as u64).is_multiple_of(5) { 1e9 } else { 3.0 * t });
        assert!((slope(&points) - 3.0).abs() < 0.5, "{}", slope(&points));
    }

    #[test]
    fn the_low_line_follows_the_floor() {
        // Noise that grows with time, above a floor of slope 2.
        let points = line(60, |t| 2.0 * t + (t * 7.3 % 5.0) * t / 10.0);
        assert!((low_slope(&points) - 2.0).abs() < 0.2, "{}", low_slope(&points));
        assert!(slope(&points) > 2.2);
    }

    #[test]
    fn troughs_of_a_sawtooth_lie_on_what_lives() {
        let points = line(60, |t| 100.0 + t + 10.0 * (t % 10.0));
        let found = troughs(&points, 1.0);
        assert!(found.len() >= 5, "{found:?}");
        assert!(found.iter().all(|p| p.at % 10.0 == 0.0), "{found:?}");
        assert!((slope(&found) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert_eq!(slope(&[]), 0.0);
        assert_eq!(scatter(&[], 0.0), 0.0);
        assert!(troughs(&[], 0.0).is_empty());
        assert!(envelope(&[], 6).is_empty());
        assert_eq!(thirds(&[]), [0.0; 3]);
        assert_eq!(value_at(&[], 1.0), 0.0);
        assert_eq!(regression(&[]), None);
        let wild = [f64::NAN, f64::INFINITY, -1.0, 1e308].map(|value| Point { at: value, value });
        slope(&wild);
        low_slope(&wild);
        assert_eq!(low_slope(&[]), 0.0);
        scatter(&wild, f64::NAN);
        troughs(&wild, f64::NAN);
        envelope(&wild, 6);
        thirds(&wild);
    }

    #[test]
    fn thirds_add_up() {
        let points = line(61, |t| t * t);
        let parts = thirds(&points);
        assert!((parts.iter().sum::<f64>() - 3600.0).abs() < 1e-6);
        assert!(parts[0] < parts[1] && parts[1] < parts[2]);
    }
}
