//! Alerts of observer's own, for those without Prometheus.

use std::collections::BTreeMap;

/// How the alerts fare.
#[derive(Debug, Default)]
pub struct Counters {}

/// Notifications of one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    pub delivered: u64,
    pub failed: u64,
    pub dropped: u64,
    pub attempts_failed: u64,
}

impl Counters {
    pub fn firing(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }

    pub fn deliveries(&self) -> BTreeMap<String, Deliveries> {
        BTreeMap::new()
    }
}
