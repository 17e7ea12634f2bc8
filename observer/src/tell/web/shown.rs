//! What the server shows: the board and what else its handlers may read.

use std::sync::Arc;

use crate::board::Board;
use crate::tell::alert::Alerts;
use crate::tell::metrics::Metrics;

/// What every handler may read.
pub struct Shown {
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub alerts: Arc<Alerts>,
    /// Where this server is reached from outside, for links that leave it; no `/` at its end.
    pub external_url: String,
}

/// Where Prometheus looks unless told otherwise.
pub const TELEMETRY_PATH: &str = "/metrics";
