//! One notification: the document `observer.alert/1`, and the sentence and lines that people read.
//!
//! Pure. Everything from a target is escaped and bounded here, before any receiver sees it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::severity::Severity;
use crate::board::TargetState;
use crate::diagnose::{Culprit, Deadlock, Verdict, growth, site};
use crate::escape::escape;
use crate::format::{bytes, bytes_per_second, count, counted, duration, percent, rate};
use crate::language;
use crate::sample::Place;
use crate::tell::report::text;

/// Version of the JSON document: fields are added, never changed.
pub(crate) const SCHEMA: &str = "observer.alert/1";

/// Deadlocks that a text describes.
const DEADLOCKS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    Leak,
    Growing,
    Deadlock,
}

impl AlertKind {
    pub const ALL: [Self; 3] = [Self::Leak, Self::Growing, Self::Deadlock];

    pub fn name(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Growing => "growing",
            Self::Deadlock => "deadlock",
        }
    }

    /// As the rules in deploy/prometheus name it, so that one route serves both.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Leak => "ObserverLeakSuspected",
            Self::Growing => "ObserverMemoryGrowing",
            Self::Deadlock => "ObserverDeadlock",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Start,
    Repeat,
    End,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Repeat => "repeat",
            Self::End => "end",
        }
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Notification {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    /// The same from start to end: `checkout/leak/00c0ffee00c0ffee`.
    pub id: String,
    pub phase: Phase,
    pub alert: AlertKind,
    pub severity: Severity,
    /// The severity it had until now, when it has risen.
    #[serde(skip)]
    pub was: Option<Severity>,
    /// One sentence.
    pub summary: String,
    /// Some lines more.
    pub text: String,
    /// RFC 3339.
    pub at: String,
    pub started_at: String,
    pub ended_at: Option<String>,
    /// Unix seconds.
    #[serde(skip)]
    pub times: Times,
    pub target: TargetSummary,
    pub culprit: Option<CulpritSummary>,
    pub memory: Memory,
    /// The page about the target; empty where nobody said how it is reached.
    pub url: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub now: f64,
    pub started: f64,
    pub ended: Option<f64>,
}

/// The target.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TargetSummary {
    pub name: String,
    pub pid: u32,
    pub exe: String,
    pub runtime: String,
    pub runtime_version: Option<String>,
    pub exited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Who is to blame.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CulpritSummary {
    /// `goroutine` or `thread`.
    pub kind: &'static str,
    pub wait_reason: String,
    pub function: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// `checkout.(*Quoter).fetch quote.go:41`.
    pub site: String,
    pub created_by: Option<String>,
    pub stack_id: String,
    pub members: u64,
    pub members_per_second: f64,
    pub bytes_per_member: f64,
    /// All members together.
    pub bytes: f64,
    pub growth_bytes_per_second: f64,
    /// 0 to 1.
    pub share_of_growth: f64,
    pub confidence: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Memory {
    pub resident_bytes: u64,
    pub growth_bytes_per_second: f64,
    pub limit_bytes: Option<u64>,
    pub limit_usage_bytes: Option<u64>,
    pub seconds_to_limit: Option<f64>,
}

/// What is known of an alert at the moment it was last seen; all that its texts are made from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub target: TargetSummary,
    pub memory: Memory,
    pub culprit: Option<CulpritSummary>,
    /// Circles, or where memory was first touched.
    pub details: Vec<String>,
}

impl Facts {
    pub(crate) fn of(target: &TargetState, culprit: Option<&Culprit>) -> Self {
        let diagnosis = &target.diagnosis;
        let trend = &diagnosis.memory;
        let info = &target.info;
        let container = info.container.clone().unwrap_or_default();
        let place = |name: Option<String>| name.map(|name| escape(&name).into_owned());
        Self {
            target: TargetSummary {
                name: target.name.clone(),
                pid: info.pid,
                exe: escape(&info.exe).into_owned(),
                runtime: escape(&info.runtime.name).into_owned(),
                runtime_version: info.runtime.version.as_deref().map(|v| escape(v).into_owned()),
                exited: !target.up,
                pod: place(container.pod),
                namespace: place(container.namespace),
                container: place(container.name),
                node: place(container.node),
            },
            memory: Memory {
                resident_bytes: target.sample.memory.resident_bytes,
                growth_bytes_per_second: finite(trend.live_slope_bytes_per_second),
                limit_bytes: trend.limit_bytes,
                limit_usage_bytes: trend.limit_usage_bytes,
                seconds_to_limit: trend.seconds_to_limit.filter(|seconds| seconds.is_finite()),
            },
            culprit: culprit.map(blamed),
            details: Vec::new(),
        }
    }

    pub(crate) fn with_deadlocks(mut self, deadlocks: &[Deadlock]) -> Self {
        self.details =
            deadlocks.iter().take(DEADLOCKS).map(|one| escape(&one.description).into_owned()).collect();
        if let Some(more) = deadlocks.len().checked_sub(DEADLOCKS).filter(|more| *more > 0) {
            self.details.push(format!("and {} more", count(more as u64)));
        }
        self
    }

    /// Where the memory that grew was first touched, what grows most first.
    pub(crate) fn with_growth(mut self, target: &TargetState) -> Self {
        if target.diagnosis.verdict != Verdict::Growing {
            return self;
        }
        for one in growth::ranked(&target.diagnosis.growth_sites).iter().take(2) {
            let Some(frame) = site::owner(&one.frames) else { continue };
            let place = Place { function: site::name(frame), file: frame.file.clone(), line: frame.line };
            self.details.push(format!(
                "{} first touched in {}",
                bytes(one.bytes as f64),
                escape(&site::words(&place))
            ));
        }
        self
    }
}

fn blamed(culprit: &Culprit) -> CulpritSummary {
    let group = &culprit.group;
    let place = culprit.site.clone().or_else(|| site::place(group)).unwrap_or_default();
    let members = group.count;
    CulpritSummary {
        kind: language::of(group.kind).noun(),
        wait_reason: escape(&group.wait_reason).into_owned(),
        site: escape(&site::words(&place)).into_owned(),
        function: escape(&place.function).into_owned(),
        file: place.file.as_deref().map(|file| escape(file).into_owned()),
        line: place.line,
        created_by: group.created_by.as_ref().map(|place| escape(&site::words(place)).into_owned()),
        stack_id: format!("{:016x}", group.id.0),
        members,
        members_per_second: finite(culprit.growth_per_second),
        bytes_per_member: finite(culprit.bytes_per_member),
        bytes: finite(culprit.bytes_per_member * members as f64),
        growth_bytes_per_second: finite(culprit.growth_per_second * culprit.bytes_per_member),
        share_of_growth: finite(culprit.share_of_growth),
        confidence: finite(culprit.confidence),
    }
}

/// JSON has no word for the others.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

/// RFC 3339, to the second.
pub(crate) fn rfc3339(unix: f64) -> String {
    // A cast saturates, and what no calendar has becomes its beginning.
    Timestamp::from_second(unix as i64).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// The sentence.
pub(crate) fn summary(what: AlertKind, phase: Phase, facts: &Facts, reason: Option<&str>) -> String {
    let name = &facts.target.name;
    let body = match (what, &facts.culprit) {
        (AlertKind::Leak, Some(blamed)) => {
            let at = reason_at(blamed);
            if phase == Phase::End {
                return format!(
                    "{name}: the leak{at} is over{}",
                    reason.map(|why| format!(": {why}")).unwrap_or_default()
                );
            }
            format!(
                "{name} leaks {}: {}{at}",
                bytes_per_second(blamed.growth_bytes_per_second).trim_start_matches('+'),
                counted(blamed.members, blamed.kind),
            )
        }
        (AlertKind::Leak | AlertKind::Growing, _) if phase == Phase::End => {
            format!("{name}: memory no longer grows")
        }
        (AlertKind::Leak | AlertKind::Growing, _) => format!(
            "{name} grows {}, and no blocked {} account for it",
            bytes_per_second(facts.memory.growth_bytes_per_second).trim_start_matches('+'),
            language::members("or")
        ),
        (AlertKind::Deadlock, _) if phase == Phase::End => format!("{name}: the deadlock is over"),
        (AlertKind::Deadlock, _) => format!(
            "{name} is in deadlock{}",
            facts.details.first().map(|first| format!(": {first}")).unwrap_or_default()
        ),
    };
    let end = reason.map(|why| format!(": {why}")).unwrap_or_default();
    let exited = if facts.target.exited && phase != Phase::End { "; the process has exited" } else { "" };
    format!("{body}{end}{exited}")
}

fn reason_at(blamed: &CulpritSummary) -> String {
    let waits =
        if blamed.wait_reason.is_empty() { String::new() } else { format!(" in {}", blamed.wait_reason) };
    format!(" blocked{waits} at {}", blamed.site)
}

/// The lines below it.
pub(crate) fn text(what: AlertKind, phase: Phase, facts: &Facts, times: Times, url: &str) -> String {
    let mut lines = Vec::new();
    if let (AlertKind::Leak, Some(blamed)) = (what, &facts.culprit) {
        if let Some(creator) = &blamed.created_by {
            lines.push(format!("created by {creator}"));
        }
        if phase != Phase::End {
            lines.push(format!(
                "{} more; {} each, {} in all; {} of the growth; confidence {}",
                rate(blamed.members_per_second),
                bytes(blamed.bytes_per_member),
                bytes(blamed.bytes),
                percent(blamed.share_of_growth),
                percent(blamed.confidence),
            ));
        }
    }
    if what != AlertKind::Deadlock {
        lines.push(memory(&facts.memory, facts.target.exited));
        lines.extend(facts.details.iter().cloned());
    } else {
        lines.extend(facts.details.iter().skip(1).cloned());
    }
    if facts.target.exited && phase != Phase::End {
        lines.push("the process has exited; these are its last figures".to_owned());
    }
    let lasted = duration(times.ended.unwrap_or(times.now) - times.started);
    match phase {
        Phase::Start => {}
        Phase::Repeat => lines.push(format!("for {lasted}, since {}", rfc3339(times.started))),
        Phase::End => lines.push(format!("it lasted {lasted}, from {}", rfc3339(times.started))),
    }
    lines.push(process(&facts.target));
    if !url.is_empty() {
        lines.push(url.to_owned());
    }
    lines.join("\n")
}

fn memory(memory: &Memory, exited: bool) -> String {
    let resident = bytes(memory.resident_bytes as f64);
    let was = if exited { "was " } else { "" };
    let limit = match (memory.limit_bytes, memory.limit_usage_bytes) {
        (Some(limit), Some(usage)) => {
            format!("; {} of the limit of {} used", bytes(usage as f64), bytes(limit as f64))
        }
        (Some(limit), None) => format!("; limit {}", bytes(limit as f64)),
        (None, _) => "; no limit".to_owned(),
    };
    let left = match memory.seconds_to_limit {
        Some(seconds) if !exited => format!(", reached in {} at this rate", duration(seconds)),
        _ => String::new(),
    };
    let growth = bytes_per_second(memory.growth_bytes_per_second);
    format!("resident memory {was}{resident}, in use {growth}{limit}{left}")
}

fn process(target: &TargetSummary) -> String {
    let version = target
        .runtime_version
        .as_deref()
        .map(|version| format!(", {}", text::runtime(&target.runtime, Some(version))))
        .unwrap_or_default();
    let pod = target.pod.as_ref().map(|pod| match &target.namespace {
        Some(namespace) => format!(", pod {namespace}/{pod}"),
        None => format!(", pod {pod}"),
    });
    let place = [
        target.container.as_ref().map(|container| format!(", container {container}")),
        pod,
        target.node.as_ref().map(|node| format!(", node {node}")),
    ];
    format!("pid {}, {}{version}{}", target.pid, target.exe, place.map(Option::unwrap_or_default).concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tell::alert::example::example;

    #[test]
    fn the_text_names_line_rate_bytes_share_limit_and_page() {
        let told = example();
        assert_eq!(
            told.summary,
            "checkout leaks 581 KiB/s: 9,214 goroutines blocked in chan send at checkout.(*Quoter).fetch quote.go:41"
        );
        for part in [
            "created by checkout.(*Quoter).Get quote.go:33",
            "16.1/s more; 36.1 KiB each, 325 MiB in all; 96 % of the growth; confidence 98 %",
            "resident memory 412 MiB, in use +593 KiB/s; 430 MiB of the limit of 1.0 GiB used, reached in 18 m 0 s at \
             this rate",
            "pid 4242, /srv/\"checkout\", go1.27.3",
            "http://127.0.0.1:9713/targets/checkout",
        ] {
            assert!(told.text.lines().any(|line| line == part), "`{part}` is not in:\n{}", told.text);
        }
        assert_eq!(told.started_at, "2027-01-15T08:00:00Z");
    }

    #[test]
    fn no_time_is_too_odd() {
        for odd in [f64::NAN, f64::INFINITY, -1e300, 1e300] {
            rfc3339(odd);
        }
    }
}
