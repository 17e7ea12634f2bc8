//! What Prometheus scrapes: made anew from the board at each scrape, so that what is gone is gone.
//!
//! Reads the board, the counters of our own alerts and `/proc/self`; gives the text format 0.0.4. OpenMetrics, and with
//! it exemplars, the `prometheus` crate does not have, and an encoder of our own is not what this project is about:
//! a scraper that prefers OpenMetrics takes the text as well.
//!
//! Series are few and stay. A target is a name and not a pid, its sites are the largest fifty and keep their places
//! ([`sites`]), the rest is summed as `~other`, and every label value has a bound. When a process has ended,
//! `observer_target_up` says 0, its memory, waits and sites vanish, and the verdict (`observer_leak_suspected`,
//! `observer_leak_growth_bytes_per_second`, `observer_memory_growing`, `observer_deadlock`) and the limit stay as they
//! last were, so that no alert resolves itself by a crash. A scrape of 50 targets of 50 sites each is 9,000 lines.

mod expose;
mod families;
mod label;
mod myself;
pub(crate) mod sites;
mod targets;
mod waits;

use std::sync::{Arc, OnceLock};

use prometheus::{Encoder as _, Histogram, HistogramOpts, Registry, TextEncoder};

use self::myself::Myself;
use self::targets::Targets;
use super::alert::Counters;
use crate::board::Board;

/// What [`Metrics::text`] is, for the Content-Type header.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds.
const SAMPLE_BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];

/// What may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Sites of each target that have series of their own; the rest is summed.
    pub sites: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { sites: 50 }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot set up the metrics: {0}; this is a fault of observer, please report it")]
pub struct MetricsError(#[from] prometheus::Error);

/// The registry and what it reads.
pub struct Metrics {
    registry: Registry,
    sample_seconds: Histogram,
    targets: Arc<Targets>,
    /// Set once the daemon's own alerts are set up.
    alerts: Arc<OnceLock<Arc<Counters>>>,
}

impl Metrics {
    /// With the options nobody changed.
    ///
    /// # Panics
    /// Never: what is registered is fixed, and a test registers it.
    pub fn new(board: Arc<Board>) -> Self {
        Self::with_options(board, &Options::default()).expect("fixed names register")
    }

    pub fn with_options(board: Arc<Board>, options: &Options) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let targets = Arc::new(Targets::new(Arc::clone(&board), options.sites)?);
        registry.register(Box::new(targets::Collected(Arc::clone(&targets))))?;
        let alerts = Arc::new(OnceLock::new());
        registry.register(Box::new(Myself::new(board, Arc::clone(&alerts))?))?;
        let sample_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "observer_sample_seconds",
                "Seconds that taking one sample of one target took, collecting and reading its memory.",
            )
            .buckets(SAMPLE_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(sample_seconds.clone()))?;
        Ok(Self { registry, sample_seconds, targets, alerts })
    }

    /// One sample of any target took so long.
    pub fn sampled(&self, seconds: f64) {
        if seconds.is_finite() && seconds >= 0.0 {
            self.sample_seconds.observe(seconds);
        }
    }

    /// Shows how the daemon's own alerts fare from now on. Only the first call counts: a reload keeps the counters.
    pub fn watch_alerts(&self, counters: Arc<Counters>) {
        let _ = self.alerts.set(counters);
    }

    /// After a reload of the configuration.
    pub fn set_options(&self, options: &Options) {
        self.targets.set_sites(options.sites);
    }

    /// The text format, version 0.0.4.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            // Only an empty or nameless family is refused, and the registry drops those.
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}
