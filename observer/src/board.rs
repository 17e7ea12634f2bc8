//! What is known of every target at this moment: written by whoever samples it, read by all who tell it.
//!
//! Readers take an `Arc` and let go of the lock at once: nobody who serves, alerts or stores can hold up sampling.
//! Costs one map of as many entries as there are targets; the bounds of what they hold are those of their parts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::diagnose::Diagnosis;
use crate::sample::{Losses, Sample, TargetInfo};
use crate::timeline::Timeline;

/// One target as it was when it was last sampled. Outlives the process by a while, so that what was known of it does
/// not vanish with it.
#[derive(Clone)]
pub struct TargetState {
    /// Stable over restarts: container, unit or exe; graphic ASCII without `/`, at most 64 bytes, unique on the board.
    pub name: String,
    /// The process lives and is observed.
    pub up: bool,
    pub info: TargetInfo,
    /// Unix seconds, of this name and not of this process.
    pub first_seen: f64,
    /// Unix seconds of `sample`.
    pub last_sampled: f64,
    /// How often the target has been restarted or has executed another program since `first_seen`.
    pub restarts: u32,
    /// Between two samples; longer than asked for when the CPU budget demands it.
    pub interval_seconds: f64,
    pub sample: Arc<Sample>,
    pub diagnosis: Arc<Diagnosis>,
    /// Lock it briefly: the sampler waits for it.
    pub timeline: Arc<Mutex<Timeline>>,
}

impl TargetState {
    pub fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All targets.
pub struct Board {
    inner: Mutex<Inner>,
    /// Counts what is published; readers that follow wait for it to change.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    targets: BTreeMap<String, Arc<TargetState>>,
    /// Since observer started, all targets together, also those that are forgotten.
    losses: Losses,
    /// What observer looks for and has not found, in words.
    awaited: Vec<String>,
    sampling: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self { inner: Mutex::default(), version: watch::Sender::new(0) }
    }
}

impl Board {
    /// Puts up what is known of a target now, in place of what was.
    pub fn publish(&self, state: TargetState) {
        self.lock().targets.insert(state.name.clone(), Arc::new(state));
        self.announce();
    }

    /// The target is not spoken of any more.
    pub fn forget(&self, name: &str) {
        self.lock().targets.remove(name);
        self.announce();
    }

    /// By name.
    pub fn targets(&self) -> Vec<Arc<TargetState>> {
        self.lock().targets.values().cloned().collect()
    }

    pub fn target(&self, name: &str) -> Option<Arc<TargetState>> {
        self.lock().targets.get(name).cloned()
    }

    /// Adds to what was lost.
    pub fn lose(&self, losses: &Losses) {
        let mut inner = self.lock();
        for (name, lost) in losses {
            let sum = inner.losses.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*lost);
        }
    }

    pub fn losses(&self) -> Losses {
        self.lock().losses.clone()
    }

    /// Says what is looked for and not there yet.
    pub fn set_awaited(&self, awaited: Vec<String>) {
        let mut inner = self.lock();
        if inner.awaited != awaited {
            inner.awaited = awaited;
            drop(inner);
            self.announce();
        }
    }

    pub fn awaited(&self) -> Vec<String> {
        self.lock().awaited.clone()
    }

    /// Whether observer samples, or would if there were a target: false while it starts and once it stops.
    pub fn set_ready(&self, ready: bool) {
        self.lock().sampling = ready;
    }

    pub fn ready(&self) -> bool {
        self.lock().sampling
    }

    /// Changes whenever something on the board does.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn announce(&self) {
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// A writer that panicked leaves a map that is whole: every write is one step.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
