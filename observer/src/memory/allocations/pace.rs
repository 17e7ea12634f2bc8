//! How fast a figure has grown lately, from a few points of its past.

/// Points kept; when there are more, every other one goes.
const MAX_POINTS: usize = 32;

/// The past of one figure.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    points: Vec<(f64, f64)>,
    last: (f64, f64),
}

impl Pace {
    /// What it is at a moment, later than the ones before.
    pub(super) fn note(&mut self, at_seconds: f64, value: f64) {
        self.last = (at_seconds, value);
        // Points stay apart by a part of the whole span, so that they are few and reach back to the beginning.
        let apart = at_seconds / MAX_POINTS as f64;
        if self.points.last().is_none_or(|&(last, _)| at_seconds - last >= apart) {
            if self.points.len() >= MAX_POINTS {
                let mut index = 0;
                self.points.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
            }
            self.points.push((at_seconds, value));
        }
    }

    /// Growth over the second half of what is known: what was filled once at the beginning does not grow.
    pub(super) fn per_second(&self) -> f64 {
        let (now, value) = self.last;
        let middle = self.points.iter().rev().find(|&&(at, _)| at <= now / 2.0);
        // One that appeared later was nothing before.
        let (at, before) = middle.copied().unwrap_or((now / 2.0, 0.0));
        let seconds = now - at;
        if seconds > 0.5 { (value - before) / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_POINTS, Pace};

    #[test]
    fn what_was_filled_once_does_not_grow() {
        let (mut filled, mut leaking, mut late) = (Pace::default(), Pace::default(), Pace::default());
        for second in 0..1000 {
            let at = f64::from(second);
            filled.note(at, (at * 100.0).min(5000.0));
            leaking.note(at, at * 100.0);
            if second >= 900 {
                late.note(at, (at - 900.0) * 50.0);
            }
        }
        assert!(filled.points.len() <= MAX_POINTS);
        assert!(filled.per_second().abs() < 1e-9);
        assert!((leaking.per_second() - 100.0).abs() < 1e-6, "{}", leaking.per_second());
        assert!((late.per_second() - 99.0 * 50.0 / 499.5).abs() < 1.0, "{}", late.per_second());
    }
}
