//! The page.

use std::sync::Arc;

use axum::Router;

use super::Shown;

/// `/`, `/targets/{target}` and what they need.
pub fn routes() -> Router<Arc<Shown>> {
    Router::new()
}
