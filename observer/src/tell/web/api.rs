//! The JSON interface: what is known of each target, for programs.
//!
//! Reads the board; every document says its schema, and `/api/v1/schema` what that is. Errors are `{"error": "..."}`.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::documents::{ALERTS_SCHEMA, Alerts, History, TARGETS_SCHEMA, TargetBrief, Targets};
use super::refusal::{answer, error, refusal};
use super::schema;
use super::shown::Shown;
use crate::board::TargetState;
use crate::tell::alert::message::rfc3339;
use crate::tell::report::{Snapshot, json};

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

async fn alerts(State(shown): State<Arc<Shown>>) -> Response {
    document(&Alerts { schema: ALERTS_SCHEMA, alerts: shown.alerts.firing() })
}

/// All of them, by what a document's `schema` says.
async fn schemas() -> Response {
    document(schema::schemas())
}

/// One, by the first part of its name: `snapshot`, `diagnosis`, `history`, `targets`, `alerts`, `alert`.
async fn schema(Path(wanted): Path<String>) -> Response {
    let all = schema::schemas();
    let short = |name: &'static str| name.trim_start_matches("observer.").split('/').next().unwrap_or(name);
    match all.iter().find(|(name, _)| short(name) == wanted) {
        Some((_, schema)) => document(schema),
        None => {
            let names: Vec<&str> = all.keys().map(|name| short(name)).collect();
            error(StatusCode::NOT_FOUND, &format!("no such document: there are {}", names.join(", ")))
        }
    }
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
