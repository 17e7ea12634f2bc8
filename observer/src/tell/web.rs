//! What a browser, a scraper and a program see of observer: one HTTP server over the board.

pub mod page;

use std::sync::Arc;

use super::board::Board;
use super::metrics::Metrics;

/// What every handler may read.
pub struct Shown {
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    /// Where this server is reached from outside, for links that leave it; no `/` at its end.
    pub external_url: String,
}
