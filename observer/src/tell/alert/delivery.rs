//! One receiver: a bounded queue and a thread that empties it, so that nobody who tells ever waits for who is told.
//!
//! In order, one at a time; what fails is tried again, with pauses that double and are never the same for two
//! observers, until its time is up. A full queue drops its oldest entry. Every end of a notification is counted.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::counters::Tally;
use super::message::Notification;

/// Notifications that wait for one receiver.
const WAITING: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a notification did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub text: String,
    /// Trying again may help.
    pub again: bool,
    /// The receiver asks to be left alone for so long.
    pub wait: Option<Duration>,
}

impl Failure {
    pub(super) fn again(text: String) -> Self {
        Self { text, again: true, wait: None }
    }
}

/// A way to tell somebody.
pub(super) trait Deliver: Send {
    /// Once; within `left`, when observer is about to end.
    fn deliver(&mut self, told: &Notification, left: Option<Duration>) -> Result<(), Failure>;

    /// Sends again what fires, for receivers that forget. Nothing when there is nothing to send.
    fn resend(&mut self) -> Option<Result<(), Failure>> {
        None
    }

    fn resend_interval(&self) -> Option<Duration> {
        None
    }
}

/// Every alert that fires, as it is now.
#[derive(Debug, Default)]
pub(super) struct Current(Mutex<Arc<Vec<Notification>>>);

impl Current {
    pub(super) fn set(&self, firing: Vec<Notification>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(firing);
    }

    pub(super) fn all(&self) -> Arc<Vec<Notification>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Shared {
    name: String,
    state: Mutex<State>,
    changed: Condvar,
    tally: Arc<Tally>,
    give_up_after: Duration,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Notification>>,
    /// Tell what waits until then, and end.
    stop_at: Option<Instant>,
}

/// The caller's end of a receiver.
pub(super) struct Delivery {
    shared: Arc<Shared>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Delivery {
    pub(super) fn start(
        name: &str,
        to: Box<dyn Deliver>,
        give_up_after: Duration,
        tally: Arc<Tally>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
            tally,
            give_up_after,
        });
        let (alive, ended) = mpsc::sync_channel(0);
        let own = Arc::clone(&shared);
        thread::Builder::new().name("alerts".to_owned()).spawn(move || {
            own.work(to);
            drop(alive);
        })?;
        Ok(Self { shared, ended })
    }

    /// Returns at once.
    pub(super) fn push(&self, told: Arc<Notification>) {
        let mut state = self.shared.lock();
        while state.waiting.len() >= WAITING {
            if let Some(oldest) = state.waiting.pop_front() {
                self.shared.tally.dropped();
                tracing::warn!(receiver = %self.shared.name, id = %oldest.id, "too many alerts wait: dropped the oldest");
            }
        }
        state.waiting.push_back(told);
        self.shared.changed.notify_all();
    }

    /// Asks it to tell what waits until then, and to end.
    pub(super) fn stop(&self, at: Instant) {
        self.shared.lock().stop_at = Some(at);
        self.shared.changed.notify_all();
    }

    /// Whether it ended in time; one that hangs is left behind.
    pub(super) fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        matches!(self.ended.recv_timeout(left), Err(RecvTimeoutError::Disconnected))
    }
}

/// What the thread does next.
enum Next {
    Tell(Arc<Notification>),
    Resend,
    End,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, mut to: Box<dyn Deliver>) {
        let mut resend_at = to.resend_interval().map(|interval| Instant::now() + interval);
        loop {
            match self.next(resend_at) {
                Next::Tell(told) => self.tell(to.as_mut(), &told),
                Next::Resend => {
                    if let Some(Err(failure)) = to.resend() {
                        self.tally.attempt_failed();
                        tracing::warn!(receiver = %self.name, "alerts were not sent again: {}", failure.text);
                    }
                    resend_at = to.resend_interval().map(|interval| Instant::now() + interval);
                }
                Next::End => return,
            }
        }
    }

    fn next(&self, resend_at: Option<Instant>) -> Next {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.stop_at.is_some_and(|at| now >= at || state.waiting.is_empty()) {
                for _ in state.waiting.drain(..) {
                    self.tally.failed();
                }
                return Next::End;
            }
            if let Some(told) = state.waiting.pop_front() {
                return Next::Tell(told);
            }
            state = match resend_at {
                Some(at) if now >= at => return Next::Resend,
                Some(at) => {
                    let waited = self.changed.wait_timeout(state, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn tell(&self, to: &mut dyn Deliver, told: &Notification) {
        let give_up_at = Instant::now() + self.give_up_after;
        let mut pause = FIRST_PAUSE;
        loop {
            let stop_at = self.lock().stop_at;
            let left = stop_at.map(|at| at.saturating_duration_since(Instant::now()));
            let failure = match to.deliver(told, left) {
                Ok(()) => return self.tally.delivered(),
                Err(failure) => failure,
            };
            self.tally.attempt_failed();
            let stop_at = self.lock().stop_at;
            if stop_at.is_some() {
                // There is no time left to be patient.
                pause = FIRST_PAUSE;
            }
            let wait = failure.wait.unwrap_or_else(|| jitter(pause));
            let end = stop_at.map_or(give_up_at, |stop| stop.min(give_up_at));
            if !failure.again || Instant::now() + wait >= end {
                self.tally.failed();
                tracing::warn!(
                    receiver = %self.name, id = %told.id, phase = told.phase.name(),
                    "an alert was not delivered and is given up: {}", failure.text
                );
                return;
            }
            tracing::info!(receiver = %self.name, id = %told.id, "tried again in {wait:.1?}: {}", failure.text);
            self.pause(wait);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Shorter when observer is asked to end meanwhile.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        let asked = state.stop_at.is_some();
        loop {
            let now = Instant::now();
            if now >= until || (state.stop_at.is_some() && !asked) {
                return;
            }
            let waited = self.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Half of it to all of it.
fn jitter(pause: Duration) -> Duration {
    // Every `RandomState` has its own keys.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    pause / 2 + (pause / 2).mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}
