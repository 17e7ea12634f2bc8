//! Does a group grow, and do its members ever leave? The one question that tells a leak from a busy service.
//!
//! Reads a [`GroupSeries`], gives a [`Standing`]. Two rising lines prove nothing; members that stay, one by one, do.
//! What is asked of a group depends on what its members wait for: one that waits for a reader that went away
//! is judged in seconds, one that waits for a peer on the network may be a slow client and is given minutes.

use super::history::{GroupPoint, GroupSeries};
use super::trend::{self, Point};
use crate::language::{self, Wait};
use crate::sample::Group;

/// New members below which nothing is said.
pub(super) const LEAST_NEW: f64 = 20.0;
/// Seconds below which nothing is said.
pub const LEAST_SECONDS: f64 = 10.0;
/// Samples below which nothing is said.
pub const LEAST_SAMPLES: u64 = 10;
/// What somebody outside may end at any time is watched this long.
const PEER_SECONDS: f64 = 300.0;
/// Look-backs, longest first, when the whole life does not show a leak: one may have begun after hours of peace.
const LOOK_BACK_SECONDS: [f64; 3] = [3_600.0, 900.0, 240.0];

/// Growth of a group over an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rise {
    /// Seconds, on the clock of the samples.
    pub from: f64,
    pub to: f64,
    /// Members more at the end than at the beginning.
    pub net: f64,
    pub per_second: f64,
    /// Members that came.
    pub joined: f64,
    /// Share of them that had settled and left again.
    pub drain: f64,
    /// Members that left at all, also those that only passed through.
    pub left: f64,
    /// Samples in which it grew.
    pub steps: usize,
    pub samples: usize,
    /// Members that ran in between and came back, per member.
    pub wakes: f64,
    /// 0 to 1.
    pub confidence: f64,
}

impl Rise {
    pub(super) fn seconds(&self) -> f64 {
        self.to - self.from
    }

    /// Of those that came, not one.
    pub(super) fn none_left(&self) -> bool {
        self.left < 0.5
    }
}

/// What a group's series says about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    /// Grows, does not drain, has been watched long enough.
    Leaks(Rise),
    /// As a leak, but what it waits for asks for a longer look.
    Watch(Rise),
    /// Grows for too short a time, or by too few, to say.
    TooEarly(Rise),
    /// Grew, and stopped this many seconds before the end.
    Stopped(f64),
    /// Grows ever more slowly.
    LevelsOff,
    /// Its members leave; the share that does.
    Drains(f64),
    /// Neither grows nor shrinks beyond its noise.
    Steady,
}

/// What members of a group wait for.
pub(super) fn wait(group: &Group) -> Wait {
    language::of(group.kind).wait(&group.state, &group.wait_reason)
}

/// How a group stands over the whole life, or over a shorter look back when that shows a leak.
pub(super) fn standing(series: &GroupSeries, first_at: f64, last_at: f64) -> Standing {
    let whole = judge(series, first_at, last_at);
    if matches!(whole, Standing::Leaks(_)) {
        return whole;
    }
    LOOK_BACK_SECONDS
        .iter()
        .filter(|back| last_at - first_at > **back * 1.5)
        .map(|back| judge(series, last_at - back, last_at))
        .find(|standing| matches!(standing, Standing::Leaks(_)))
        .unwrap_or(whole)
}

fn judge(series: &GroupSeries, first_at: f64, last_at: f64) -> Standing {
    let start = series.points.partition_point(|p| p.at < first_at);
    let all = series.points.get(start..).unwrap_or_default();
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Standing::Steady };
    let net = last.count as f64 - first.count as f64;
    let counts: Vec<Point> = all.iter().map(|p| Point { at: p.at, value: p.count as f64 }).collect();
    if net < 3.0 || net < 0.01 * last.count as f64 || !series.present {
        return if drained(&series.points, last.count) { Standing::Drains(1.0) } else { Standing::Steady };
    }
    // What drained once will drain again, unless it is far beyond what it ever was.
    if drained(&series.points, last.count) {
        return Standing::Drains(1.0);
    }
    let level = first.count as f64 + (net * 0.02).max(0.5);
    let onset = counts.iter().rposition(|p| p.value <= level).unwrap_or(0);
    let steps = records(&counts[onset..]);
    let gap = match (steps.first(), steps.last()) {
        (Some(one), Some(other)) => (other.at - one.at) / steps.len().max(2).saturating_sub(1) as f64,
        _ => 0.0,
    };
    // A rise that began with the window is measured over the whole of it: its first step is late by chance only.
    let onset = if counts[onset].at - first.at <= 5.0 * gap { 0 } else { onset };
    let episode = &all[onset..];
    let curve = &counts[onset..];
    let from = curve[0].at;
    let slope = trend::slope(curve);
    if net < 4.0 * trend::scatter(curve, slope) {
        return Standing::Steady;
    }
    let last_step = steps.last().map_or(from, |step| step.at);
    let quiet = last_at - last_step;
    let steps_per_second = steps.len() as f64 / (last_step - from).max(1e-9);
    if quiet > 0.1 * (last_at - first_at) && quiet * steps_per_second >= 5.0 {
        return Standing::Stopped(quiet);
    }
    let rise = measure(series, episode, curve, &steps, slope);
    let most_drain = match wait(&series.group) {
        Wait::Hard => 0.15,
        _ => 0.05,
    };
    if rise.drain > most_drain {
        return Standing::Drains(rise.drain);
    }
    let [one, two, three] = trend::thirds(curve);
    let noise = uneven(curve, net / (last.at - from).max(1e-9)) / 3f64.sqrt();
    let slowing = three + noise < 0.6 * one && three < two.max(0.6 * one);
    if slowing || (three < 0.12 * net && quiet * steps_per_second >= 2.0) {
        return Standing::LevelsOff;
    }
    let least_seconds = (0.4 * (last_at - first_at)).clamp(LEAST_SECONDS, 60.0);
    if rise.net < LEAST_NEW || rise.seconds() < least_seconds || steps.len() < 3 {
        return Standing::TooEarly(rise);
    }
    let language = language::of(series.group.kind);
    let taking_turns = rise.wakes > 0.5
        && series.group.count > 1
        && series.group.waits_on.as_ref().is_some_and(|on| on.objects == 1)
        && language.takes_turns(wait(&series.group));
    match wait(&series.group) {
        // A sleeper that woke several times and went back to sleep had its chances to end.
        Wait::Peer if rise.wakes >= 2.0 && language.sleeps(&series.group.wait_reason) => {}
        Wait::Peer | Wait::Runs if rise.seconds() < PEER_SECONDS || rise.drain > 0.01 => {
            return Standing::Watch(rise);
        }
        Wait::Soft | Wait::Hard if taking_turns && rise.seconds() < PEER_SECONDS => {
            return Standing::Watch(rise);
        }
        Wait::Soft if rise.seconds() < 2.0 * LEAST_SECONDS => return Standing::TooEarly(rise),
        _ => {}
    }
    if rise.confidence < 0.5 { Standing::TooEarly(rise) } else { Standing::Leaks(rise) }
}

/// Once fell by a third or more, from something worth counting, and is not far above that now.
fn drained(points: &[GroupPoint], now: u64) -> bool {
    let mut peak = 0u64;
    for point in points {
        let fell = peak.saturating_sub(point.count);
        if fell >= 10 && fell >= peak / 3 && now < peak.saturating_add(peak / 2) {
            return true;
        }
        peak = peak.max(point.count);
    }
    false
}

/// Where the count was higher than ever before in the episode. A torn read that comes back is no growth.
fn records(curve: &[Point]) -> Vec<Point> {
    let mut most = curve.first().map_or(f64::INFINITY, |p| p.value);
    curve
        .iter()
        .filter(|p| {
            let record = p.value > most;
            most = most.max(p.value);
            record
        })
        .copied()
        .collect()
}

/// Standard deviation of the growth over the curve, from how unevenly it came.
fn uneven(curve: &[Point], per_second: f64) -> f64 {
    curve
        .windows(2)
        .map(|pair| {
            let expected = per_second * (pair[1].at - pair[0].at);
            (pair[1].value - pair[0].value - expected).powi(2)
        })
        .sum::<f64>()
        .sqrt()
}

fn measure(
    series: &GroupSeries,
    episode: &[GroupPoint],
    curve: &[Point],
    steps: &[Point],
    slope: f64,
) -> Rise {
    let (first, last) = (episode[0], episode[episode.len() - 1]);
    let net = last.count as f64 - first.count as f64;
    let joined = (last.joined.saturating_sub(first.joined) as f64).max(net);
    let left = last.ended.saturating_sub(first.ended) as f64;
    let drain = (settled(episode, left) / joined.max(1.0)).clamp(0.0, 1.0);
    let bursts = steps.len() >= 3 && steps.len() * 3 < curve.len() * 2 && net / steps.len() as f64 >= 3.0;
    let per_second = match (steps.first(), steps.last()) {
        // From burst to burst: unlike the ends of the window, these do not depend on where bursts fall in it.
        (Some(one), Some(other)) if bursts && left < 0.05 * joined && other.at > one.at => {
            (other.value - one.value) / (other.at - one.at)
        }
        _ if left < 0.05 * joined => net / (last.at - first.at).max(1e-9),
        _ => slope,
    };
    let seconds = last.at - first.at;
    let mean = curve.iter().map(|p| p.value).sum::<f64>() / curve.len() as f64;
    let wakes = last.moved.saturating_sub(first.moved) as f64 / mean.max(1.0);
    let by_wait = match wait(&series.group) {
        Wait::Hard => 0.98,
        Wait::Soft => 0.92,
        Wait::Peer | Wait::Runs => 0.7,
    };
    let confidence =
        by_wait * (1.0 - (-net / 15.0).exp()) * (1.0 - 2.0 * drain) * (1.0 - (-seconds / 10.0).exp());
    Rise {
        from: first.at,
        to: last.at,
        net,
        per_second,
        joined,
        drain,
        left,
        steps: steps.len(),
        samples: curve.len().saturating_sub(1),
        wakes,
        confidence: confidence.clamp(0.0, 1.0),
    }
}

/// How many of those that left had settled. Requests that pass through a place leave it at a rate of their own;
/// a draining population leaves in proportion to its size. Where the size varied enough, the two can be told apart.
fn settled(episode: &[GroupPoint], left: f64) -> f64 {
    let mut leaving = Vec::with_capacity(episode.len());
    let (mut least, mut most, mut member_seconds) = (f64::INFINITY, 0.0f64, 0.0);
    for pair in episode.windows(2) {
        let elapsed = pair[1].at - pair[0].at;
        if elapsed <= 0.0 {
            continue;
        }
        let count = pair[0].count as f64;
        least = least.min(count);
        most = most.max(count);
        member_seconds += count * elapsed;
        leaving.push((count, pair[1].ended.saturating_sub(pair[0].ended) as f64 / elapsed));
    }
    if left <= 0.0 || most < 2.0 * least.max(1.0) || leaving.len() < 8 {
        return left;
    }
    match trend::regression(&leaving) {
        // Less one standard error: what cannot be told from nothing is not held against it.
        Some((per_member, error)) => ((per_member - error) * member_seconds).clamp(0.0, left),
        None => left,
    }
}
