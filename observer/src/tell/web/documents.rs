//! The JSON documents of the interface that nobody else writes: targets in short, a history, the alerts that fire.
//!
//! Plain data, made of what the board has. Fields are added, never changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::board::TargetState;
use crate::diagnose::{Verdict, site};
use crate::sample::{Group, GroupId, GroupKind, GroupState, Losses, Place, TargetInfo, WaitReason};
use crate::tell::alert::Notification;
use crate::tell::alert::message::rfc3339;

pub(crate) const TARGETS_SCHEMA: &str = "observer.targets/1";
pub(crate) const ALERTS_SCHEMA: &str = "observer.alerts/1";
pub(crate) const HISTORY_SCHEMA: &str = "observer.history/1";

/// All targets, each in short.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Targets {
    #[schemars(extend("const" = TARGETS_SCHEMA))]
    pub schema: &'static str,
    pub targets: Vec<TargetBrief>,
    /// What observer looks for and has not found, in words.
    pub awaited: Vec<String>,
    /// Since observer started, all targets together.
    pub losses: Losses,
}

/// One target in short.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct TargetBrief {
    pub name: String,
    /// The process lives and is observed.
    pub up: bool,
    pub target: TargetInfo,
    /// RFC 3339, of this name and not of this process.
    pub first_seen: String,
    /// RFC 3339.
    pub last_sampled: String,
    pub restarts: u32,
    pub interval_seconds: f64,
    pub resident_bytes: u64,
    pub anonymous_bytes: u64,
    pub limit_bytes: Option<u64>,
    pub verdict: Verdict,
    /// The verdict in one sentence.
    pub sentence: String,
}

impl TargetBrief {
    pub(super) fn new(state: &TargetState) -> Self {
        let memory = &state.sample.memory;
        Self {
            name: state.name.clone(),
            up: state.up,
            target: state.info.clone(),
            first_seen: rfc3339(state.first_seen),
            last_sampled: rfc3339(state.last_sampled),
            restarts: state.restarts,
            interval_seconds: state.interval_seconds,
            resident_bytes: memory.resident_bytes,
            anonymous_bytes: memory.anonymous_bytes,
            limit_bytes: memory.limit_bytes,
            verdict: state.diagnosis.verdict,
            sentence: state.diagnosis.sentence.clone(),
        }
    }
}

/// A target's past, in columns of the same length: `at[i]`, `resident_bytes[i]`, `groups[j].count[i]` ...
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct History {
    #[schemars(extend("const" = HISTORY_SCHEMA))]
    pub schema: &'static str,
    pub name: String,
    /// Unix seconds, oldest first.
    pub at: Vec<f64>,
    /// Which life of the target.
    pub generation: Vec<u32>,
    pub resident_bytes: Vec<u64>,
    pub anonymous_bytes: Vec<u64>,
    pub heap_in_use_bytes: Vec<Option<u64>>,
    pub limit_bytes: Vec<Option<u64>>,
    /// The largest at any of the moments, the largest at the last one first.
    pub groups: Vec<GroupHistory>,
}

impl History {
    pub(super) fn new(state: &TargetState, from: f64, most: usize) -> Self {
        // The sampler waits for the lock: what is wanted is copied and the rest done without it.
        let (points, known) = {
            let timeline = state.timeline();
            let points = timeline.points(from, most);
            let ids: BTreeSet<GroupId> = points.iter().flat_map(|p| p.groups.iter().map(|g| g.id)).collect();
            let known: BTreeMap<GroupId, Option<Group>> =
                ids.into_iter().map(|id| (id, timeline.group(id).cloned())).collect();
            (points, known)
        };
        let mut groups: BTreeMap<GroupId, GroupHistory> = known
            .into_iter()
            .map(|(id, group)| (id, GroupHistory::new(id, group.as_ref(), points.len())))
            .collect();
        for (place, point) in points.iter().enumerate() {
            for at in &point.groups {
                if let Some(group) = groups.get_mut(&at.id) {
                    for (column, value) in [(&mut group.count, at.count), (&mut group.bytes, at.bytes)] {
                        if let Some(cell) = column.get_mut(place) {
                            *cell = Some(value);
                        }
                    }
                }
            }
        }
        let mut groups: Vec<GroupHistory> = groups.into_values().collect();
        let last = |column: &[Option<u64>]| column.last().copied().flatten();
        groups.sort_by_key(|group| Reverse((last(&group.bytes), last(&group.count), group.id)));
        Self {
            schema: HISTORY_SCHEMA,
            name: state.name.clone(),
            at: points.iter().map(|point| point.at).collect(),
            generation: points.iter().map(|point| point.generation).collect(),
            resident_bytes: points.iter().map(|point| point.resident_bytes).collect(),
            anonymous_bytes: points.iter().map(|point| point.anonymous_bytes).collect(),
            heap_in_use_bytes: points.iter().map(|point| point.heap_in_use_bytes).collect(),
            limit_bytes: points.iter().map(|point| point.limit_bytes).collect(),
            groups,
        }
    }
}

/// A group's past. What it is may be forgotten while its numbers are not.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct GroupHistory {
    pub id: GroupId,
    pub kind: Option<GroupKind>,
    pub state: Option<GroupState>,
    pub wait_reason: Option<WaitReason>,
    /// The innermost frame of the target's own code.
    pub site: Option<Place>,
    /// Absent at moments at which it was not one of the largest.
    pub count: Vec<Option<u64>>,
    /// Stacks, and what they retain where it was measured.
    pub bytes: Vec<Option<u64>>,
}

impl GroupHistory {
    pub(super) fn new(id: GroupId, group: Option<&Group>, points: usize) -> Self {
        Self {
            id,
            kind: group.map(|group| group.kind),
            state: group.map(|group| group.state.clone()),
            wait_reason: group.map(|group| group.wait_reason.clone()),
            site: group.and_then(site::place),
            count: vec![None; points],
            bytes: vec![None; points],
        }
    }
}

/// What fires now, as receivers of alerts are told it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Alerts {
    #[schemars(extend("const" = ALERTS_SCHEMA))]
    pub schema: &'static str,
    pub alerts: Vec<Notification>,
}
