//! What observer says of itself: what it lost, what does not work, how its alerts fare, what it costs.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::expose::{Exposition, Family};
use super::families as f;
use super::label::{self, OTHER};
use crate::board::Board;
use crate::tell::alert::Counters;

/// Different names of losses and of features; there are about twenty of either.
const NAMES: usize = 64;

pub(super) struct Myself {
    board: Arc<Board>,
    alerts: Arc<OnceLock<Arc<Counters>>>,
    described: Vec<Desc>,
}

impl Myself {
    pub(super) fn new(
        board: Arc<Board>,
        alerts: Arc<OnceLock<Arc<Counters>>>,
    ) -> Result<Self, prometheus::Error> {
        let described = f::OF_MYSELF.iter().map(Family::describe).collect::<Result<_, _>>()?;
        Ok(Self { board, alerts, described })
    }
}

impl Collector for Myself {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut shown = Exposition::new(&f::OF_MYSELF);
        shown.set(&f::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
        self.board(&mut shown);
        if let Some(counters) = self.alerts.get() {
            alerts(&mut shown, counters);
        }
        // What cannot be read of ourselves is left out: /proc may be mounted to hide it.
        let _ = process(&mut shown);
        shown.finish()
    }
}

impl Myself {
    fn board(&self, shown: &mut Exposition) {
        let targets = self.board.targets();
        let up = targets.iter().filter(|target| target.up);
        shown.set(&f::TARGETS, &[], up.clone().count() as f64);
        shown.set(&f::AWAITED, &[], self.board.awaited().len() as f64);
        for (name, lost) in bounded(self.board.losses()) {
            shown.set(&f::LOSSES, &[&name], lost as f64);
        }
        let mut degraded: BTreeMap<String, u64> = BTreeMap::new();
        for target in up {
            let mut features: Vec<&str> =
                target.sample.degraded.iter().map(|degraded| degraded.feature.as_str()).collect();
            features.sort_unstable();
            features.dedup();
            for feature in features {
                *degraded.entry(feature.to_owned()).or_default() += 1;
            }
        }
        for (feature, targets) in bounded(degraded) {
            shown.set(&f::DEGRADED, &[&feature], targets as f64);
        }
    }
}

/// The first so many by name, the rest as one.
fn bounded(named: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut shown = BTreeMap::new();
    for (name, value) in named {
        let name = label::value(&name);
        let name = if shown.len() < NAMES || shown.contains_key(&name) { name } else { OTHER.to_owned() };
        let sum: &mut u64 = shown.entry(name).or_default();
        *sum = sum.saturating_add(value);
    }
    shown
}

fn alerts(shown: &mut Exposition, counters: &Counters) {
    for (alert, firing) in counters.firing() {
        shown.set(&f::ALERTS, &[alert], firing as f64);
    }
    for (receiver, deliveries) in counters.deliveries() {
        let receiver = label::value(&receiver);
        shown.set(&f::NOTIFICATIONS, &[&receiver], deliveries.delivered as f64);
        shown.set(&f::NOTIFICATIONS_FAILED, &[&receiver], deliveries.failed as f64);
        shown.set(&f::NOTIFICATIONS_DROPPED, &[&receiver], deliveries.dropped as f64);
        shown.set(&f::NOTIFICATION_ATTEMPTS_FAILED, &[&receiver], deliveries.attempts_failed as f64);
    }
}

fn process(shown: &mut Exposition) -> procfs::ProcResult<()> {
    let myself = procfs::process::Process::myself()?;
    let stat = myself.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    shown.set(&f::CPU, &[], stat.utime.saturating_add(stat.stime) as f64 / ticks);
    shown.set(&f::VIRTUAL, &[], stat.vsize as f64);
    shown.set(&f::OWN_RESIDENT, &[], stat.rss.saturating_mul(procfs::page_size()) as f64);
    shown.set(&f::OWN_THREADS, &[], stat.num_threads as f64);
    shown.set(&f::STARTED, &[], procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks);
    shown.set(&f::OPEN_FDS, &[], myself.fd_count()? as f64);
    if let procfs::process::LimitValue::Value(most) = myself.limits()?.max_open_files.soft_limit {
        shown.set(&f::MAX_FDS, &[], most as f64);
    }
    Ok(())
}
