//! When nothing new is told of some targets: times of the day at which a periodic job grows by design.
//!
//! Pure: times are unix seconds, days and hours are those of UTC.

use globset::{Glob, GlobMatcher};

use super::error::AlertError;

const DAY: u64 = 86_400;

/// Daily, from one minute to another. Where `from` is later than `to`, over midnight: the day is that of `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// A glob over target names: `nightly-*`.
    pub target: String,
    /// Minutes after midnight, UTC.
    pub from_minute: u16,
    /// Not included. The same as `from_minute`: the whole day.
    pub to_minute: u16,
    /// 0 is Monday; empty is every day.
    pub weekdays: Vec<u8>,
}

/// Silences that are known to be right.
#[derive(Clone, Debug, Default)]
pub struct Silences(Vec<(GlobMatcher, Silence)>);

impl Silences {
    pub fn new(silences: &[Silence]) -> Result<Self, AlertError> {
        let compile = |silence: &Silence| {
            let wrong = |what: String| AlertError::Silence { target: silence.target.clone(), what };
            if silence.from_minute >= 1440 || silence.to_minute > 1440 {
                return Err(wrong("a day has the times 00:00 to 24:00".to_owned()));
            }
            if silence.weekdays.iter().any(|day| *day > 6) {
                return Err(wrong("a week has the days 0 (Monday) to 6 (Sunday)".to_owned()));
            }
            let glob = Glob::new(&silence.target).map_err(|error| wrong(error.kind().to_string()))?;
            Ok((glob.compile_matcher(), silence.clone()))
        };
        silences.iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing new is told of the target now.
    pub fn covers(&self, target: &str, now: f64) -> bool {
        self.0.iter().any(|(glob, silence)| glob.is_match(target) && silence.covers(now))
    }
}

impl Silence {
    fn covers(&self, now: f64) -> bool {
        // A clock before 1970 is wrong anyway.
        let now = now.max(0.0) as u64;
        let (day, minute) = (now / DAY, now % DAY / 60);
        // 1970 began on a Thursday.
        let weekday = (day + 3) % 7;
        let on = |weekday: u64| {
            self.weekdays.is_empty() || self.weekdays.iter().any(|day| u64::from(*day) == weekday)
        };
        let (from, to) = (u64::from(self.from_minute), u64::from(self.to_minute));
        if from < to {
            (from..to).contains(&minute) && on(weekday)
        } else {
            (minute >= from && on(weekday)) || (minute < to && on((weekday + 6) % 7))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 2026-11-23 00:00 UTC.
    const MONDAY: f64 = 1_795_392_000.0;
    const HOUR: f64 = 3600.0;

    fn silence(from: u16, to: u16, weekdays: &[u8]) -> Silence {
        Silence {
            target: "nightly-*".into(),
            from_minute: from * 60,
            to_minute: to * 60,
            weekdays: weekdays.to_vec(),
        }
    }

    fn covers(silence: Silence, target: &str, at: f64) -> bool {
        Silences::new(&[silence]).unwrap().covers(target, at)
    }

    #[test]
    fn a_window_covers_its_hours_of_its_days() {
        assert!(covers(silence(2, 4, &[]), "nightly-report", MONDAY + 2.0 * HOUR));
        assert!(!covers(silence(2, 4, &[]), "nightly-report", MONDAY + 4.0 * HOUR));
        assert!(!covers(silence(2, 4, &[]), "checkout", MONDAY + 3.0 * HOUR));
        assert!(covers(silence(2, 4, &[0]), "nightly-report", MONDAY + 3.0 * HOUR));
        assert!(!covers(silence(2, 4, &[1, 6]), "nightly-report", MONDAY + 3.0 * HOUR));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_began() {
        let late = || silence(23, 2, &[0]);
        assert!(covers(late(), "nightly-x", MONDAY + 23.5 * HOUR));
        assert!(covers(late(), "nightly-x", MONDAY + 25.0 * HOUR), "Tuesday, 01:00");
        assert!(!covers(late(), "nightly-x", MONDAY + 1.0 * HOUR), "Sunday's");
        assert!(!covers(late(), "nightly-x", MONDAY + 48.0 * HOUR - HOUR / 2.0), "Tuesday's");
        assert!(covers(silence(0, 0, &[0]), "nightly-x", MONDAY + 12.0 * HOUR), "the whole day");
        assert!(!covers(silence(0, 0, &[0]), "nightly-x", MONDAY + 24.0 * HOUR));
        assert!(covers(silence(0, 24, &[]), "nightly-x", MONDAY + 23.9 * HOUR));
    }

    #[test]
    fn what_no_day_has_is_refused() {
        for wrong in [
            Silence { from_minute: 1440, ..silence(0, 1, &[]) },
            Silence { to_minute: 1441, ..silence(0, 1, &[]) },
            Silence { weekdays: vec![7], ..silence(0, 1, &[]) },
            Silence { target: "a[".into(), ..silence(0, 1, &[]) },
        ] {
            let said = Silences::new(&[wrong]).unwrap_err().to_string();
            assert!(said.starts_with("silence of "), "{said}");
        }
        assert!(
            !covers(silence(0, 1, &[]), "nightly-x", f64::NAN)
                || covers(silence(0, 1, &[]), "nightly-x", 0.0)
        );
    }
}
