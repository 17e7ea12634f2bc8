//! When hooks are there that others pay for: all the time while they are seldom passed, and in windows where they are
//! passed so often that their being there is felt.
//!
//! A window lies at random in its period. What begins in its first part stands for the whole period, however long it
//! goes on: the second part, and the looks after the window, only find out when it ended. So nothing long is lost,
//! and nothing short counts too much. Pure: told the time, says what to do.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

/// When the hooks of waits and faults are attached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hooks {
    /// All the time.
    Always,
    /// In windows, where the machine passes them often.
    Windows(Windows),
}

/// Windows, and from when on there are any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// One in each such period: a whole number of times what is counted of it.
    pub every: Duration,
    /// What begins so long from the start of a window is counted; a page fault is.
    pub timed: Duration,
    /// So much longer is looked for ends.
    pub watched: Duration,
    /// Context switches of the machine a second, from which on waits are timed in windows.
    pub busy_switches: f64,
    /// Page faults of the machine a second, from which on they are sampled in windows.
    pub busy_faults: f64,
}

impl Default for Windows {
    /// A tenth of the time, where a hook that is always there takes about a thousandth of a core and more.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            timed: Duration::from_millis(500),
            watched: Duration::from_millis(500),
            busy_switches: 10_000.0,
            busy_faults: 20_000.0,
        }
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// Attach, for good.
    Stay,
    /// Attach, and then ask [`Schedule::begin`] when to count: what begins then stands for so many.
    Open {
        weight: u32,
    },
    /// Detach.
    Close,
    /// See what has ended meanwhile.
    Look,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Staying,
    Open { closes: Instant },
    Shut { opens: Instant, closed: Instant, looks: u32 },
}

/// What is counted begins so long after the hook is attached: until then whoever opens a window has said so to the
/// program, also where it has to wait for a CPU. A window that is shorter than it says would count too little.
const LEAD: Duration = Duration::from_millis(20);

/// Of one hook.
pub(super) struct Schedule {
    every: Duration,
    timed: Duration,
    watched: Duration,
    state: State,
    /// When the period begins that the next window lies in, and how many before it had none.
    period: Instant,
    missed: u32,
}

impl Schedule {
    /// Attached for now.
    pub(super) fn new(windows: &Windows, now: Instant) -> Self {
        let Windows { every, timed, watched, .. } = *windows;
        Self { every, timed, watched, state: State::Staying, period: now, missed: 0 }
    }

    /// What begins so long from the start of a window is counted.
    pub(super) fn timed(&self) -> Duration {
        self.timed
    }

    /// `busy` tells whether the hook is passed often, and is asked only where it matters.
    pub(super) fn step(&mut self, now: Instant, busy: impl FnOnce() -> bool) -> Step {
        match self.state {
            State::Staying => {
                if !busy() {
                    return Step::Nothing;
                }
                (self.period, self.missed) = (now, 0);
                self.shut(now);
                Step::Close
            }
            State::Open { closes } if now >= closes => {
                self.next_period(now);
                self.shut(now);
                Step::Close
            }
            State::Open { .. } => Step::Nothing,
            State::Shut { opens, .. } if now >= opens => {
                if !busy() {
                    self.state = State::Staying;
                    return Step::Stay;
                }
                self.state = State::Open { closes: now + LEAD + self.timed + self.watched };
                let each = (self.every.as_secs_f64() / self.timed.as_secs_f64()).round().max(1.0) as u32;
                Step::Open { weight: each.saturating_mul(1 + self.missed) }
            }
            State::Shut { opens, closed, looks } => {
                // Twice as long after each look: a wait is known to within the length it has had.
                let due = closed + self.watched.saturating_mul(1 << looks.min(20));
                if self.watched.is_zero() || now < due {
                    return Step::Nothing;
                }
                self.state = State::Shut { opens, closed, looks: looks + 1 };
                Step::Look
            }
        }
    }

    /// From when until when is counted in the window that was opened, now that the hook is attached, however long that
    /// took.
    pub(super) fn begin(&mut self, now: Instant) -> [Instant; 2] {
        let from = now + LEAD;
        let until = from + self.timed;
        self.state = State::Open { closes: until + self.watched };
        [from, until]
    }

    /// The period after this one that has room for a window. One that is over has had none: the next stands for it.
    fn next_period(&mut self, now: Instant) {
        let window = LEAD + self.timed + self.watched;
        self.period += self.every;
        self.missed = 0;
        while self.period + self.every < now + window && self.missed < 1000 {
            self.period += self.every;
            self.missed += 1;
        }
    }

    fn shut(&mut self, now: Instant) {
        let room = self.every.saturating_sub(LEAD + self.timed + self.watched);
        let part = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
        let opens = (self.period + room.mul_f64(part)).max(now);
        self.state = State::Shut { opens, closed: now, looks: 0 };
    }
}

/// How often the machine does something, by a counter of the kernel's that costs nothing to keep.
pub(super) struct Rate {
    path: &'static str,
    field: &'static str,
    limit: f64,
    counted: Option<(Instant, u64)>,
    busy: bool,
}

impl Rate {
    /// Seconds between two looks.
    const LOOK: f64 = 1.0;

    pub(super) fn of_switches(limit: f64) -> Self {
        Self { path: "/proc/stat", field: "ctxt ", limit, counted: None, busy: false }
    }

    pub(super) fn of_faults(limit: f64) -> Self {
        Self { path: "/proc/vmstat", field: "pgfault ", limit, counted: None, busy: false }
    }

    /// Whether it does so more often than the limit since the last look; once it does, until it is half of that.
    pub(super) fn is_busy(&mut self, now: Instant) -> bool {
        let seconds = self.counted.map_or(f64::INFINITY, |(at, _)| now.duration_since(at).as_secs_f64());
        if seconds >= Self::LOOK
            && let Some(count) = self.count()
        {
            if let Some((_, before)) = self.counted {
                let rate = count.saturating_sub(before) as f64 / seconds;
                self.busy = rate >= if self.busy { self.limit / 2.0 } else { self.limit };
            }
            self.counted = Some((now, count));
        }
        self.busy
    }

    fn count(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path).ok()?;
        text.lines().find_map(|line| line.strip_prefix(self.field))?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// The times at which windows opened within so many seconds, with their weights; checks the order of steps.
    fn windows(schedule: &mut Schedule, begun: Instant, seconds: u64) -> Vec<(f64, u32)> {
        let mut opened = Vec::new();
        let mut attached = true;
        let mut now = begun;
        while now < begun + Duration::from_secs(seconds) {
            match schedule.step(now, || true) {
                Step::Open { weight } => {
                    assert!(!attached);
                    let [from, until] = schedule.begin(now);
                    assert!(from > now && until == from + schedule.timed);
                    attached = true;
                    opened.push(((now - begun).as_secs_f64(), weight));
                }
                Step::Close => {
                    assert!(attached);
                    attached = false;
                }
                Step::Look => assert!(!attached),
                Step::Stay => panic!("it is busy"),
                Step::Nothing => {}
            }
            now += TICK;
        }
        opened
    }

    #[test]
    fn every_period_has_one_window_somewhere() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(&Windows::default(), begun);
        let opened = windows(&mut schedule, begun, 1000);
        assert!((99..=100).contains(&opened.len()), "{}", opened.len());
        assert!(opened.iter().all(|&(_, weight)| weight == 20), "{opened:?}");
        for (period, &(at, _)) in opened.iter().enumerate() {
            let place = at - 10.0 * period as f64;
            assert!((-0.2..10.2).contains(&place), "{opened:?}");
        }
        let places: Vec<f64> = opened.iter().map(|(at, _)| at % 10.0).collect();
        assert!(places.iter().any(|&at| at < 3.0) && places.iter().any(|&at| at > 6.0), "{places:?}");
    }

    #[test]
    fn who_looks_late_makes_the_next_window_stand_for_more() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(&Windows::default(), begun);
        let mut total = 0;
        let mut now = begun;
        // Asleep for 35 s again and again.
        for _ in 0..200 {
            for _ in 0..130 {
                if let Step::Open { weight, .. } = schedule.step(now, || true) {
                    total += weight;
                }
                now += TICK;
            }
            now += Duration::from_secs(35);
        }
        let stood_for = f64::from(total) * 0.5 / (now - begun).as_secs_f64();
        assert!((stood_for - 1.0).abs() < 0.05, "{stood_for}");
    }

    #[test]
    fn who_attaches_late_has_a_whole_window_all_the_same() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(&Windows::default(), begun);
        assert_eq!(schedule.step(begun, || true), Step::Close);
        let opens = begun + Duration::from_secs(10);
        assert!(matches!(schedule.step(opens, || true), Step::Open { .. }));
        let [from, until] = schedule.begin(opens + Duration::from_secs(1));
        assert!(from > opens + Duration::from_secs(1) && until == from + schedule.timed);
        assert_eq!(schedule.step(until, || true), Step::Nothing);
        assert_eq!(schedule.step(until + schedule.watched, || true), Step::Close);
    }

    #[test]
    fn looks_are_ever_further_apart_and_quiet_ends_the_windows() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(&Windows::default(), begun);
        assert_eq!(schedule.step(begun, || false), Step::Nothing);
        assert_eq!(schedule.step(begun, || true), Step::Close);
        schedule.state = State::Shut { opens: begun + Duration::from_secs(9), closed: begun, looks: 0 };
        let mut looks = Vec::new();
        for tick in 0..89 {
            if schedule.step(begun + TICK * tick, || true) == Step::Look {
                looks.push(tick);
            }
        }
        assert_eq!(looks, [5, 10, 20, 40, 80]);
        assert_eq!(schedule.step(begun + TICK * 90, || false), Step::Stay);
        assert_eq!(schedule.step(begun + TICK * 91, || false), Step::Nothing);
    }

    #[test]
    fn the_kernel_counts_switches_and_faults() {
        for mut rate in [Rate::of_switches(0.0), Rate::of_faults(0.0)] {
            assert!(rate.count().is_some_and(|count| count > 0), "{}", rate.path);
            let begun = Instant::now();
            assert!(!rate.is_busy(begun), "nothing is known yet");
            assert!(rate.is_busy(begun + Duration::from_secs(2)));
            rate.limit = f64::INFINITY;
            assert!(!rate.is_busy(begun + Duration::from_secs(4)));
        }
    }
}
