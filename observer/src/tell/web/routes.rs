//! All paths that are answered.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::refusal::{refusal, text};
use super::shown::Shown;
use super::{api, page, profiles};

/// All that is answered. The telemetry path stands before the rest, so that no choice of it can collide.
pub(crate) fn routes(shown: Arc<Shown>, telemetry_path: &str) -> Router {
    let rest = page::routes()
        .merge(api::routes())
        .merge(profiles::routes())
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok") }))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(Arc::clone(&shown));
    Router::new()
        .route(telemetry_path, get(metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shown)
        .fallback_service(rest)
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], shown.metrics.text()).into_response()
}

async fn ready(State(shown): State<Arc<Shown>>) -> Response {
    if shown.board.ready() {
        text(StatusCode::OK, "ready")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "not ready: observer is starting or stopping")
    }
}

async fn not_found(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    refusal(&path, StatusCode::NOT_FOUND, &format!("{path}: no such page; / leads to all there are"))
}

/// Everything here is read, nothing is changed.
async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let message = format!("{method} is not for {}: only GET and HEAD are answered", uri.path());
    let mut answer = refusal(uri.path(), StatusCode::METHOD_NOT_ALLOWED, &message);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}
