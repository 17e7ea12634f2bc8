//! When an alert begins, goes on and ends: pending, firing, over.
//!
//! Pure: reads the targets and what time it is, gives notifications. An alert is one of a target and what is wrong, for
//! a leak also of the group to blame. It ends when all has been well for a while; what cannot be known (the process
//! is gone, has just been restarted, cannot be sampled) is not well, so a crash ends no alert. Bounded: some few
//! alerts a target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::message::{self, AlertKind, Facts, Notification, Phase, SCHEMA, Times};
use super::options::Rules;
use super::severity::Severity;
use super::silence::Silences;
use crate::board::TargetState;
use crate::diagnose::{Culprit, Verdict};
use crate::sample::GroupId;

/// Leaks of one target that are told at the same time.
const LEAKS: usize = 3;
/// An alert that fires goes on at this share of what made it begin, so that it does not flap.
const GOES_ON: f64 = 0.5;
/// A group to blame must have this share of the growth before it is blamed for reaching the limit.
const SHARE_FOR_LIMIT: f64 = 0.25;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    target: String,
    what: AlertKind,
    stack: Option<GroupId>,
}

struct Alert {
    facts: Facts,
    severity: Severity,
    since: f64,
    state: State,
}

enum State {
    Pending,
    Firing { told: f64, told_exit: bool, well_since: Option<f64> },
}

/// What a look gives.
#[derive(Default)]
pub struct Evaluation {
    /// To be told now, in order.
    pub events: Vec<Notification>,
    /// Every alert that fires, as it is now.
    pub firing: Vec<Notification>,
}

#[derive(Default)]
pub struct Engine {
    alerts: BTreeMap<Key, Alert>,
}

/// What is to be said of one target.
struct Judgement<'a> {
    found: BTreeMap<Key, (Facts, Severity)>,
    /// It could be looked at.
    seen: bool,
    /// Whether memory that was not found to grow is well; otherwise nothing is known.
    well: bool,
    silent: bool,
    target: &'a TargetState,
}

impl Engine {
    pub fn look(
        &mut self,
        now: f64,
        targets: &[Arc<TargetState>],
        rules: &Rules,
        silences: &Silences,
        external_url: &str,
    ) -> Evaluation {
        let mut look = Evaluation::default();
        for target in targets {
            let judgement = self.judge(now, target, rules, silences);
            self.begin(now, &judgement);
            self.carry_on(now, judgement, rules, external_url, &mut look);
        }
        let there: BTreeSet<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        self.end_of_the_forgotten(now, &there, external_url, &mut look);
        look.firing = self.firing(now, external_url);
        look
    }

    fn judge<'a>(
        &self,
        now: f64,
        target: &'a TargetState,
        rules: &Rules,
        silences: &Silences,
    ) -> Judgement<'a> {
        let diagnosis = &target.diagnosis;
        let key = |what, stack| Key { target: target.name.clone(), what, stack };
        let silent = silences.covers(&target.name, now);
        let stale = now - target.last_sampled > 60.0 + 5.0 * target.interval_seconds.max(0.0);
        let mut found = BTreeMap::new();
        if !target.up || stale {
            return Judgement { found, seen: false, well: false, silent, target };
        }
        let starting = age(target, now) < rules.startup.as_secs_f64();
        for culprit in &diagnosis.culprits {
            let key = key(AlertKind::Leak, Some(culprit.group.id));
            let fires = self.fires(&key);
            let slack = if fires { GOES_ON } else { 1.0 };
            let told = diagnosis.verdict == Verdict::Leak
                && culprit.confidence >= slack * rules.least_confidence
                && significant(
                    culprit.growth_per_second * culprit.bytes_per_member,
                    culprit.share_of_growth >= SHARE_FOR_LIMIT,
                    target,
                    rules,
                    slack,
                )
                && (fires || !starting);
            if told {
                let facts = Facts::of(target, Some(culprit));
                found.insert(key, (facts, severity(target, Some(culprit), rules)));
            }
        }
        let growing = key(AlertKind::Growing, None);
        let fires = self.fires(&growing);
        let slack = if fires { GOES_ON } else { 1.0 };
        if diagnosis.verdict == Verdict::Growing
            && significant(diagnosis.memory.live_slope_bytes_per_second, true, target, rules, slack)
            && (fires || !starting)
        {
            let facts = Facts::of(target, None).with_growth(target);
            found.insert(growing, (facts, severity(target, None, rules)));
        }
        if rules.deadlocks && !diagnosis.deadlocks.is_empty() {
            let facts = Facts::of(target, None).with_deadlocks(&diagnosis.deadlocks);
            found.insert(key(AlertKind::Deadlock, None), (facts, Severity::Critical));
        }
        let well = diagnosis.verdict != Verdict::InsufficientData;
        Judgement { found, seen: true, well, silent, target }
    }

    fn fires(&self, key: &Key) -> bool {
        self.alerts.get(key).is_some_and(|alert| matches!(alert.state, State::Firing { .. }))
    }

    /// What was found for the first time.
    fn begin(&mut self, now: f64, judgement: &Judgement<'_>) {
        if judgement.silent {
            return;
        }
        for (key, (facts, severity)) in &judgement.found {
            let of_target = self.alerts.keys().filter(|known| known.target == key.target);
            if self.alerts.contains_key(key)
                || of_target.filter(|known| known.what == AlertKind::Leak).count() >= LEAKS
                    && key.what == AlertKind::Leak
            {
                continue;
            }
            let alert =
                Alert { facts: facts.clone(), severity: *severity, since: now, state: State::Pending };
            self.alerts.insert(key.clone(), alert);
        }
    }

    fn carry_on(
        &mut self,
        now: f64,
        mut judgement: Judgement<'_>,
        rules: &Rules,
        external_url: &str,
        look: &mut Evaluation,
    ) {
        let name = judgement.target.name.clone();
        let mut over = Vec::new();
        for (key, alert) in self.alerts.iter_mut().filter(|(key, _)| key.target == name) {
            let found = judgement.found.remove(key);
            let seen = found.is_some();
            let mut was = None;
            if let Some((facts, severity)) = found {
                alert.facts = facts;
                if severity > alert.severity {
                    was = Some(alert.severity);
                    alert.severity = severity;
                }
            }
            alert.facts.target.exited = !judgement.target.up;
            match &mut alert.state {
                State::Pending if !seen || judgement.silent => over.push(key.clone()),
                State::Pending if passed(alert.since, now, waits(key.what, rules)) => {
                    alert.state = State::Firing { told: now, told_exit: false, well_since: None };
                    look.events.push(tell(key, alert, Phase::Start, now, external_url, None));
                }
                State::Pending => {}
                State::Firing { told, told_exit, well_since } => {
                    let known = if key.what == AlertKind::Deadlock { judgement.seen } else { judgement.well };
                    let known_well = known && !seen;
                    match (known_well, &well_since) {
                        (false, _) => *well_since = None,
                        (true, None) => *well_since = Some(now),
                        (true, Some(_)) => {}
                    }
                    if let Some(since) = *well_since
                        && passed(since, now, rules.keep_firing_for)
                    {
                        look.events.push(tell(key, alert, Phase::End, now, external_url, None));
                        over.push(key.clone());
                        continue;
                    }
                    let exit = alert.facts.target.exited && !*told_exit;
                    let due = passed(*told, now, rules.repeat_interval) && well_since.is_none();
                    if !judgement.silent && (exit || due || was.is_some()) {
                        *told = now;
                        *told_exit |= alert.facts.target.exited;
                        let mut event = tell(key, alert, Phase::Repeat, now, external_url, None);
                        event.was = was;
                        look.events.push(event);
                    }
                }
            }
        }
        for key in over {
            self.alerts.remove(&key);
        }
    }

    fn end_of_the_forgotten(
        &mut self,
        now: f64,
        there: &BTreeSet<&str>,
        external_url: &str,
        look: &mut Evaluation,
    ) {
        self.alerts.retain(|key, alert| {
            let stays = there.contains(key.target.as_str());
            if !stays && matches!(alert.state, State::Firing { .. }) {
                let why = Some("the target is no longer observed");
                look.events.push(tell(key, alert, Phase::End, now, external_url, why));
            }
            stays
        });
    }

    fn firing(&self, now: f64, external_url: &str) -> Vec<Notification> {
        let firing = self.alerts.iter().filter(|(_, alert)| matches!(alert.state, State::Firing { .. }));
        firing.map(|(key, alert)| tell(key, alert, Phase::Repeat, now, external_url, None)).collect()
    }
}

fn tell(
    key: &Key,
    alert: &Alert,
    phase: Phase,
    now: f64,
    external_url: &str,
    reason: Option<&str>,
) -> Notification {
    let ended = (phase == Phase::End).then_some(now);
    let times = Times { now, started: alert.since, ended };
    let url = match external_url.trim_end_matches('/') {
        "" => String::new(),
        base => format!("{base}/targets/{}", in_path(&key.target)),
    };
    let stack = key.stack.map(|id| format!("/{:016x}", id.0)).unwrap_or_default();
    Notification {
        schema: SCHEMA,
        id: format!("{}/{}{stack}", key.target, key.what.name()),
        phase,
        alert: key.what,
        severity: alert.severity,
        was: None,
        summary: message::summary(key.what, phase, &alert.facts, reason),
        text: message::text(key.what, phase, &alert.facts, times, &url),
        at: message::rfc3339(now),
        started_at: message::rfc3339(alert.since),
        ended_at: ended.map(message::rfc3339),
        times,
        target: alert.facts.target.clone(),
        culprit: alert.facts.culprit.clone(),
        memory: alert.facts.memory.clone(),
        url,
    }
}

/// A name as one part of a path: `?`, `#` and `%` mean something there.
fn in_path(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@:+".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

fn waits(what: AlertKind, rules: &Rules) -> Duration {
    match what {
        AlertKind::Leak => rules.leak_for,
        AlertKind::Growing => rules.growing_for,
        AlertKind::Deadlock => Duration::ZERO,
    }
}

/// A clock that goes back makes nothing pass.
fn passed(since: f64, now: f64, time: Duration) -> bool {
    now - since >= time.as_secs_f64()
}

/// Whether so many bytes a second matter, against the limit or the clock.
fn significant(growth: f64, to_the_limit: bool, target: &TargetState, rules: &Rules, slack: f64) -> bool {
    let trend = &target.diagnosis.memory;
    let per_hour = growth * 3600.0;
    let enough = match trend.limit_bytes {
        Some(limit) if limit > 0 => rules.limit_share_per_hour * limit as f64,
        _ => rules.bytes_per_hour,
    };
    let soon = trend
        .seconds_to_limit
        .is_some_and(|left| to_the_limit && left * slack <= rules.time_to_limit.as_secs_f64());
    per_hour > 0.0 && (per_hour >= slack * enough || soon)
}

fn severity(target: &TargetState, culprit: Option<&Culprit>, rules: &Rules) -> Severity {
    let to_blame = culprit.is_none_or(|culprit| culprit.share_of_growth >= SHARE_FOR_LIMIT);
    let left = target.diagnosis.memory.seconds_to_limit;
    let soon = left.is_some_and(|left| left <= rules.critical_time_to_limit.as_secs_f64());
    if to_blame && soon { Severity::Critical } else { Severity::Warning }
}

/// Seconds since the process started; for one whose start is not known, since it was first seen.
fn age(target: &TargetState, now: f64) -> f64 {
    let started = target.info.started_at.parse::<jiff::Timestamp>();
    now - started.map_or(target.first_seen, |started| started.as_second() as f64)
}
