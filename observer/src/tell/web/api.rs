//! The JSON interface: what is known of each target, for programs.
//!
//! Reads the board; every document says its schema, and `/api/v1/schema` what that is. Errors are `{"error": "..."}`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Shown, refusal};
use crate::board::TargetState;
use crate::diagnose::{Verdict, site};
use crate::sample::{Group, GroupId, GroupKind, GroupState, Losses, Place, TargetInfo, WaitReason};
use crate::tell::alert::Notification;
use crate::tell::report::{Snapshot, json};

pub const TARGETS_SCHEMA: &str = "observer.targets/1";
pub const ALERTS_SCHEMA: &str = "observer.alerts/1";
pub const HISTORY_SCHEMA: &str = "observer.history/1";

/// Of a history: enough for a chart on a wide screen.
const DEFAULT_POINTS: usize = 600;
const MOST_POINTS: usize = 5_000;

pub(crate) fn routes() -> Router<Arc<Shown>> {
    Router::new()
        .route("/api/v1/targets", get(targets))
        .route("/api/v1/targets/{target}/snapshot", get(snapshot))
        .route("/api/v1/targets/{target}/diagnosis", get(diagnosis))
        .route("/api/v1/targets/{target}/history", get(history))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/schema", get(schemas))
        .route("/api/v1/schema/{document}", get(schema))
}

/// All targets, each in short.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Targets {
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
pub struct TargetBrief {
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
    fn new(state: &TargetState) -> Self {
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

async fn targets(State(shown): State<Arc<Shown>>) -> Response {
    document(&Targets {
        schema: TARGETS_SCHEMA,
        targets: shown.board.targets().iter().map(|state| TargetBrief::new(state)).collect(),
        awaited: shown.board.awaited(),
        losses: shown.board.losses(),
    })
}

/// The target that a path names; who names none is told so.
pub(crate) struct Target(pub(crate) Arc<TargetState>);

impl FromRequestParts<Arc<Shown>> for Target {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shown: &Arc<Shown>) -> Result<Self, Response> {
        let named = Path::<String>::from_request_parts(parts, shown).await;
        let path = parts.uri.path();
        let Path(name) = named.map_err(|rejected| refusal(path, rejected.status(), &rejected.body_text()))?;
        shown.board.target(&name).map(Self).ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            let said = format!("there is no target {name:?}: /api/v1/targets lists those there are");
            refusal(path, StatusCode::NOT_FOUND, &said)
        })
    }
}

async fn snapshot(Target(state): Target) -> Response {
    written(json::snapshot(&snapshot_of(&state)))
}

/// The last sample as `observer snapshot` shows one.
pub(crate) fn snapshot_of(state: &TargetState) -> Snapshot {
    Snapshot::new(state.info.clone(), (*state.sample).clone(), rfc3339(state.last_sampled))
}

async fn diagnosis(Target(state): Target) -> Response {
    written(json::diagnosis(&state.diagnosis))
}

/// What a history may be asked for.
#[derive(Deserialize)]
struct Span {
    /// Unix seconds or RFC 3339; all there is without it.
    from: Option<String>,
    points: Option<usize>,
}

async fn history(Target(state): Target, span: Result<Query<Span>, QueryRejection>) -> Response {
    let span = match span {
        Ok(Query(span)) => span,
        Err(rejected) => return error(StatusCode::BAD_REQUEST, &rejected.body_text()),
    };
    let from = match span.from.as_deref().map(moment) {
        None => 0.0,
        Some(Some(from)) => from,
        Some(None) => {
            return error(
                StatusCode::BAD_REQUEST,
                "from is no time: unix seconds or RFC 3339, as in 1780000000 or 2026-05-28T20:26:40Z",
            );
        }
    };
    let points = span.points.unwrap_or(DEFAULT_POINTS);
    if !(1..=MOST_POINTS).contains(&points) {
        return error(StatusCode::BAD_REQUEST, &format!("points must be 1 to {MOST_POINTS}"));
    }
    document(&History::new(&state, from, points))
}

fn moment(text: &str) -> Option<f64> {
    match text.parse::<f64>() {
        Ok(seconds) => seconds.is_finite().then_some(seconds),
        Err(_) => text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond() as f64 / 1e3),
    }
}

/// A target's past, in columns of the same length: `at[i]`, `resident_bytes[i]`, `groups[j].count[i]` ...
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct History {
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

/// A group's past. What it is may be forgotten while its numbers are not.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupHistory {
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

impl History {
    fn new(state: &TargetState, from: f64, most: usize) -> Self {
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

impl GroupHistory {
    fn new(id: GroupId, group: Option<&Group>, points: usize) -> Self {
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
pub struct Alerts {
    #[schemars(extend("const" = ALERTS_SCHEMA))]
    pub schema: &'static str,
    pub alerts: Vec<Notification>,
}

async fn alerts(State(shown): State<Arc<Shown>>) -> Response {
    document(&Alerts { schema: ALERTS_SCHEMA, alerts: shown.alerts.firing() })
}

/// All of them, by what a document's `schema` says.
async fn schemas() -> Response {
    document(super::schema::schemas())
}

/// One, by the first part of its name: `snapshot`, `diagnosis`, `history`, `targets`, `alerts`, `alert`.
async fn schema(Path(wanted): Path<String>) -> Response {
    let all = super::schema::schemas();
    let short = |name: &'static str| name.trim_start_matches("observer.").split('/').next().unwrap_or(name);
    match all.iter().find(|(name, _)| short(name) == wanted) {
        Some((_, schema)) => document(schema),
        None => {
            let names: Vec<&str> = all.keys().map(|name| short(name)).collect();
            error(StatusCode::NOT_FOUND, &format!("no such document: there are {}", names.join(", ")))
        }
    }
}

/// To the second; a time that is none is the beginning of time.
pub(crate) fn rfc3339(unix_seconds: f64) -> String {
    // Saturating: a float out of range casts to the nearest number, and NaN to 0.
    jiff::Timestamp::from_second(unix_seconds as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn document(value: &impl Serialize) -> Response {
    written(serde_json::to_string(value).map(|text| text + "\n"))
}

fn written(text: Result<String, serde_json::Error>) -> Response {
    match text {
        Ok(text) => answer(StatusCode::OK, text),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, &format!("writing the document: {cause}")),
    }
}

pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    answer(status, format!("{}\n", serde_json::json!({ "error": message })))
}

fn answer(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}
