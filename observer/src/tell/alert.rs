//! Alerts of observer's own, for those without Prometheus: a JSON line, a webhook, Alertmanager.
//!
//! Reads the board at every tick, gives notifications: when an alert begins, at an interval, and when it ends. The
//! rules are pure ([`rules`]); each receiver has a queue and a thread ([`delivery`]), so a tick returns at once
//! whatever becomes of the receivers. Costs a look at every diagnosis a tick, and the texts of what fires.

mod alertmanager;
pub(crate) mod counters;
mod delivery;
mod error;
mod example;
mod http;
mod log;
pub(crate) mod message;
pub(crate) mod options;
pub mod rules;
pub(crate) mod severity;
pub mod silence;
mod template;
mod webhook;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::counters::{Counters, Deliveries};
pub use self::error::AlertError;
pub use self::message::{AlertKind, Notification, Phase};
pub use self::options::{Alertmanager, Log, Options, Receiver, ReceiverKind, Rules, Webhook};
pub use self::severity::Severity;
pub use self::silence::Silence;
pub use self::template::Template;

use self::alertmanager::ToAlertmanager;
use self::delivery::{Current, Deliver, Delivery};
use self::log::ToLog;
use self::rules::Engine;
use self::silence::Silences;
use self::webhook::ToWebhook;
use crate::board::Board;

/// A line of the log that cannot be written is tried again for so long.
const LOG_GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// The rules at work, and those who are told.
pub struct Alerts {
    inner: Mutex<Inner>,
    current: Arc<Current>,
    counters: Arc<Counters>,
}

struct Inner {
    options: Options,
    silences: Silences,
    engine: Engine,
    deliveries: Vec<(Receiver, Delivery)>,
}

impl Alerts {
    pub fn new(options: Options) -> Result<Self, AlertError> {
        let silences = options::check(&options)?;
        let current = Arc::default();
        let counters = Arc::default();
        let deliveries = options
            .receivers
            .iter()
            .map(|receiver| Ok((receiver.clone(), start(receiver, &current, &counters)?)))
            .collect::<Result<_, AlertError>>()?;
        let engine = Engine::default();
        Ok(Self { inner: Mutex::new(Inner { options, silences, engine, deliveries }), current, counters })
    }

    /// Looks at the board, at `now` in unix seconds, and has told what is to be told. Never waits for a receiver.
    pub fn tick(&self, now: f64, board: &Board) {
        let targets = board.targets();
        let mut inner = self.lock();
        let Inner { options, silences, engine, deliveries } = &mut *inner;
        let look = engine.look(now, &targets, &options.rules, silences, &options.external_url);
        self.counters.set_firing(&look.firing);
        self.current.set(look.firing);
        for told in look.events.into_iter().map(Arc::new) {
            for (_, delivery) in deliveries.iter() {
                delivery.push(Arc::clone(&told));
            }
        }
    }

    /// Goes on with other options. What fires goes on firing; receivers that are as they were keep what waits for them,
    /// new ones are told what fires, the others are asked to end. When the options are wrong nothing changes.
    pub fn reload(&self, options: Options) -> Result<(), AlertError> {
        let silences = options::check(&options)?;
        let mut inner = self.lock();
        let mut started = Vec::new();
        for receiver in &options.receivers {
            if !inner.deliveries.iter().any(|(known, _)| known == receiver) {
                started.push((receiver.clone(), start(receiver, &self.current, &self.counters)?));
            }
        }
        for told in self.current.all().iter().cloned().map(Arc::new) {
            for (_, delivery) in &started {
                delivery.push(Arc::clone(&told));
            }
        }
        let (kept, ended): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.deliveries)
            .into_iter()
            .partition(|(known, _)| options.receivers.contains(known));
        for (_, delivery) in ended {
            delivery.stop(Instant::now() + options::TIMEOUT);
        }
        inner.deliveries = kept.into_iter().chain(started).collect();
        inner.options = options;
        inner.silences = silences;
        Ok(())
    }

    /// Every alert that fires, as it was at the last tick; the largest part of it is for the page.
    pub fn firing(&self) -> Vec<Notification> {
        self.current.all().to_vec()
    }

    /// For [`Metrics::watch_alerts`](super::metrics::Metrics::watch_alerts).
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Has what waits told, for at most so long, and ends. Whether all was told in time is in the counters.
    pub fn stop(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let deliveries = std::mem::take(&mut self.lock().deliveries);
        for (_, delivery) in &deliveries {
            delivery.stop(until);
        }
        for (receiver, delivery) in &deliveries {
            // Its last attempt is cut off at the deadline; a little more for it to come back.
            if !delivery.wait(until + Duration::from_millis(100)) {
                tracing::warn!(receiver = %receiver.name, "does not answer: its alerts are left behind");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(receiver: &Receiver, current: &Arc<Current>, counters: &Counters) -> Result<Delivery, AlertError> {
    let (to, give_up_after): (Box<dyn Deliver>, Duration) = match &receiver.to {
        ReceiverKind::Log(log) => (Box::new(ToLog(log.clone())), LOG_GIVE_UP_AFTER),
        ReceiverKind::Webhook(webhook) => (Box::new(ToWebhook::new(webhook)), webhook.give_up_after),
        ReceiverKind::Alertmanager(to) => {
            (Box::new(ToAlertmanager::new(to.clone(), Arc::clone(current))), to.give_up_after)
        }
    };
    Delivery::start(&receiver.name, to, give_up_after, counters.receiver(&receiver.name))
        .map_err(|source| AlertError::Thread { receiver: receiver.name.clone(), source })
}
