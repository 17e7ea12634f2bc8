//! How the alerts fare: what fires, and what became of the notifications of each receiver. Outlives a reload.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::message::{AlertKind, Notification};

#[derive(Debug, Default)]
pub struct Counters {
    firing: [AtomicU64; AlertKind::ALL.len()],
    receivers: Mutex<BTreeMap<String, Arc<Tally>>>,
}

/// Notifications of one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    pub delivered: u64,
    /// Given up.
    pub failed: u64,
    /// Thrown away because too many waited.
    pub dropped: u64,
    pub attempts_failed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    attempts_failed: AtomicU64,
}

impl Counters {
    /// Alerts that fire, by name.
    pub fn firing(&self) -> BTreeMap<&'static str, u64> {
        let all = AlertKind::ALL.iter().zip(&self.firing);
        all.map(|(what, firing)| (what.name(), firing.load(Ordering::Relaxed))).collect()
    }

    /// By receiver.
    pub fn deliveries(&self) -> BTreeMap<String, Deliveries> {
        let receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        receivers.iter().map(|(name, tally)| (name.clone(), tally.read())).collect()
    }

    pub(super) fn set_firing(&self, firing: &[Notification]) {
        for (what, count) in AlertKind::ALL.iter().zip(&self.firing) {
            let now = firing.iter().filter(|told| told.alert == *what).count();
            count.store(now as u64, Ordering::Relaxed);
        }
    }

    /// The same for the same name.
    pub(super) fn receiver(&self, name: &str) -> Arc<Tally> {
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(receivers.entry(name.to_owned()).or_default())
    }
}

impl Tally {
    fn read(&self) -> Deliveries {
        Deliveries {
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            attempts_failed: self.attempts_failed.load(Ordering::Relaxed),
        }
    }

    pub(super) fn delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn attempt_failed(&self) {
        self.attempts_failed.fetch_add(1, Ordering::Relaxed);
    }
}
