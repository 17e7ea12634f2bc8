//! Answers that are one line: an error in JSON for who asked the API, text for everybody else.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// One line: JSON for who asked the API, else text.
pub(crate) fn refusal(path: &str, status: StatusCode, message: &str) -> Response {
    if path.starts_with("/api/") { error(status, message) } else { text(status, message) }
}

pub(crate) fn text(status: StatusCode, line: &str) -> Response {
    (status, format!("{line}\n")).into_response()
}

pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    answer(status, format!("{}\n", serde_json::json!({ "error": message })))
}

/// A document of JSON.
pub(crate) fn answer(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}
