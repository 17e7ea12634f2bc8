//! Profiles for the tools that people have: pprof for `go tool pprof`, Parca and Pyroscope, folded stacks, flame graphs.
//!
//! `go tool pprof http://127.0.0.1:9713/targets/NAME/blocked.pb.gz` opens one. They are states, so a scraper stores
//! them as they are (no difference between two of them), and each target's has a path of its own:
//!
//! ```yaml
//! # Parca
//! scrape_configs:
//!   - job_name: observer
//!     static_configs: [{ targets: ["127.0.0.1:9713"] }]
//!     profiling_config:
//!       pprof_config:
//!         blocked: { enabled: true, path: /targets/NAME/blocked.pb.gz }
//!         growth: { enabled: true, path: /targets/NAME/growth.pb.gz }
//! ```
//! ```text
//! // Grafana Alloy, for Pyroscope
//! pyroscope.scrape "observer" {
//!   targets    = [{"__address__" = "127.0.0.1:9713", "service_name" = "NAME"}]
//!   forward_to = [pyroscope.write.default.receiver]
//!   profiling_config {
//!     profile.custom "blocked" { enabled = true  path = "/targets/NAME/blocked.pb.gz" }
//!     profile.custom "growth"  { enabled = true  path = "/targets/NAME/growth.pb.gz" }
//!   }
//! }
//! ```

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::api::{Target, snapshot_of};
use super::refusal::text;
use super::shown::Shown;
use crate::board::TargetState;
use crate::sample::GrowthSite;
use crate::tell::report::svg::SvgError;
use crate::tell::report::{folded, pprof, svg};

pub(crate) fn routes() -> Router<Arc<Shown>> {
    Router::new()
        .route("/targets/{target}/blocked.pb.gz", get(blocked))
        .route("/targets/{target}/growth.pb.gz", get(growth))
        .route("/targets/{target}/blocked.folded", get(blocked_folded))
        .route("/targets/{target}/growth.folded", get(growth_folded))
        .route("/targets/{target}/flamegraph.svg", get(blocked_flames))
        .route("/targets/{target}/growth.svg", get(growth_flames))
}

async fn blocked(Target(state): Target) -> Response {
    drawn(move || profile(&state, "blocked", pprof::blocked(&snapshot_of(&state), nanos(&state)))).await
}

async fn growth(Target(state): Target) -> Response {
    drawn(move || match sites(&state) {
        Some(sites) => profile(&state, "growth", pprof::growth(sites, &state.info, nanos(&state))),
        None => unobserved(),
    })
    .await
}

async fn blocked_folded(Target(state): Target) -> Response {
    folded::folded(&state.sample.groups).into_response()
}

async fn growth_folded(Target(state): Target) -> Response {
    match sites(&state) {
        Some(sites) => folded::growth(sites).into_response(),
        None => unobserved(),
    }
}

async fn blocked_flames(Target(state): Target) -> Response {
    drawn(move || picture(svg::svg(&state.sample.groups, &format!("{}: blocked", state.name)))).await
}

async fn growth_flames(Target(state): Target) -> Response {
    drawn(move || match sites(&state) {
        Some(sites) => {
            picture(svg::growth(sites, &format!("{}: memory that grew and is still there", state.name)))
        }
        None => unobserved(),
    })
    .await
}

/// Off the thread that serves the others: thousands of stacks take a while.
async fn drawn(draw: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(draw).await {
        Ok(answer) => answer,
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "drawing this failed; see observer's log"),
    }
}

fn sites(state: &TargetState) -> Option<&[GrowthSite]> {
    state.sample.growth.as_ref().map(|growth| growth.sites.as_slice())
}

fn unobserved() -> Response {
    text(
        StatusCode::NOT_FOUND,
        "growth by stack is not observed here: it needs eBPF, `observer doctor` says what is missing",
    )
}

/// Saturating: a float out of range casts to the nearest number, and NaN to 0.
fn nanos(state: &TargetState) -> i64 {
    (state.last_sampled * 1e9) as i64
}

/// As Go's own handlers send them.
fn profile(state: &TargetState, kind: &str, bytes: Vec<u8>) -> Response {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = state.name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let file = HeaderValue::from_str(&format!("attachment; filename=\"{name}-{kind}.pb.gz\""))
        .unwrap_or(HeaderValue::from_static("attachment"));
    let kind = HeaderValue::from_static("application/octet-stream");
    ([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, file)], bytes).into_response()
}

/// inferno's pictures zoom and search by a script of their own, inside them; names in them are escaped.
fn picture(drawn: Result<Vec<u8>, SvgError>) -> Response {
    match drawn {
        Ok(bytes) => {
            ([(CONTENT_TYPE, "image/svg+xml"), (CONTENT_SECURITY_POLICY, svg::POLICY)], bytes).into_response()
        }
        Err(SvgError::Draw(error)) => {
            tracing::error!("drawing a flame graph: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "drawing this failed; see observer's log")
        }
        Err(nothing) => text(StatusCode::NOT_FOUND, &nothing.to_string()),
    }
}
