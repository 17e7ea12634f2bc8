//! The JSON interface: what is known of each target, for programs.
//!
//! Reads the board; every document says its schema. Errors are `{"error": "..."}`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use super::Shown;
use crate::diagnose::Verdict;
use crate::sample::{Losses, TargetInfo};
use crate::tell::board::TargetState;

pub const TARGETS_SCHEMA: &str = "observer.targets/1";

pub(crate) fn routes() -> Router<Arc<Shown>> {
    Router::new().route("/api/v1/targets", get(targets))
}

/// All targets, each in short.
#[derive(Clone, Debug, Serialize)]
pub struct Targets {
    pub schema: &'static str,
    pub targets: Vec<TargetBrief>,
    /// What observer looks for and has not found, in words.
    pub awaited: Vec<String>,
    /// Since observer started, all targets together.
    pub losses: Losses,
}

/// One target in short.
#[derive(Clone, Debug, Serialize)]
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

/// To the second; a time that is none is the beginning of time.
pub(crate) fn rfc3339(unix_seconds: f64) -> String {
    // Saturating: a float out of range casts to the nearest number, and NaN to 0.
    jiff::Timestamp::from_second(unix_seconds as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn document(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            json(StatusCode::OK, text)
        }
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, &format!("writing the document: {cause}")),
    }
}

pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    json(status, format!("{}\n", serde_json::json!({ "error": message })).into_bytes())
}

fn json(status: StatusCode, text: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}
