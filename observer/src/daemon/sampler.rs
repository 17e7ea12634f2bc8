//! One target: a thread that attaches to it, samples it, judges it and puts what it finds on the board.
//!
//! Whatever hangs here (a target in the kernel with its memory map locked hangs its readers) hangs alone. The thread
//! measures its own CPU time, and looks less often when its share is spent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::board::{Board, TargetState};
use crate::diagnose::{Bounds, Diagnosis, History, diagnose, locks};
use crate::error_line::error_line;
use crate::kernel::Fault;
use crate::observe::{KernelSource, Observer, Options};
use crate::process::Exited;
use crate::sample::{Degraded, Sample};
use crate::select::pods::Pods;
use crate::tell::metrics::Metrics;
use crate::timeline::Timeline;
use crate::timeline::store::Store;

/// Batches of faults that may wait for a thread that is busy.
const INBOX: usize = 64;
/// Of what is on disk, the last so many seconds are shown.
const SHOWN: f64 = 7.0 * 86_400.0;
/// Until there is a first verdict, a dear target is not looked at less often than this: somebody waits for it.
const AT_FIRST: Duration = Duration::from_secs(4);
/// Samples until then.
const FIRST_SAMPLES: u64 = 12;
/// A target that costs so much that it should be looked at less often than this is looked at this often.
const LONGEST: Duration = Duration::from_secs(60);

/// What all targets share.
pub(super) struct Shared {
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub kernel: KernelSource,
    pub pods: Arc<Pods>,
    /// Where history is kept on disk.
    pub store: Option<Store>,
    pub pace: Pace,
    /// Track allocations, one of so many bytes.
    pub allocations: Option<u64>,
}

/// How often targets are looked at; may change while they are.
#[derive(Default)]
pub(super) struct Pace {
    interval_millis: AtomicU64,
    /// Millionths of one core for one target.
    share: AtomicU64,
}

impl Pace {
    pub(super) fn set(&self, interval: Duration, share_of_one: f64) {
        self.interval_millis
            .store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.share.store((share_of_one * 1e6) as u64, Ordering::Relaxed);
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_millis.load(Ordering::Relaxed))
    }

    fn share(&self) -> f64 {
        (self.share.load(Ordering::Relaxed) as f64 / 1e6).max(1e-6)
    }
}

/// What becomes of a follower.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    Attaching,
    Sampling,
    /// The process could not be attached to: why, and the remedy.
    Refused(String),
    /// The process is gone.
    Exited,
    /// It was asked to end.
    Stopped,
}

/// Told to a follower.
enum Message {
    Faults(Vec<Fault>),
    /// Something happened to the process: look at once.
    Look,
    Stop,
}

/// What lives on from one process to the next under the same name.
#[derive(Clone)]
pub(super) struct Carried {
    pub first_seen: f64,
    pub restarts: u32,
    /// What is on disk of this name has not been read yet.
    pub unread: bool,
    pub timeline: Arc<Mutex<Timeline>>,
}

/// Where a follower is told things. Nobody who tells waits.
#[derive(Clone)]
pub(super) struct Inbox(SyncSender<Message>);

impl Inbox {
    /// Page faults of its process; false when they had to be dropped.
    pub(super) fn faults(&self, faults: Vec<Fault>) -> bool {
        !matches!(self.0.try_send(Message::Faults(faults)), Err(TrySendError::Full(_)))
    }

    /// Something happened to the process.
    pub(super) fn look(&self) {
        // A full inbox is looked at soon enough.
        let _ = self.0.try_send(Message::Look);
    }
}

/// The thread's other end.
pub(super) struct TargetSampler {
    pub pid: u32,
    pub start_ticks: u64,
    inbox: Inbox,
    phase: Arc<Mutex<Phase>>,
    thread: JoinHandle<()>,
}

impl TargetSampler {
    pub(super) fn start(
        pid: u32,
        start_ticks: u64,
        name: String,
        past: Carried,
        common: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let (inbox, messages) = sync_channel(INBOX);
        let phase = Arc::new(Mutex::new(Phase::Attaching));
        let told = Arc::clone(&phase);
        let thread = thread::Builder::new().name(format!("target {name}")).spawn(move || {
            let ended = follow(pid, &name, &past, &common, &messages, &told);
            set(&told, ended);
        })?;
        Ok(Self { pid, start_ticks, inbox: Inbox(inbox), phase, thread })
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.lock().map_or(Phase::Exited, |phase| phase.clone())
    }

    /// Asks it to end.
    pub(super) fn stop(&self) {
        let _ = self.inbox.0.try_send(Message::Stop);
    }

    /// Waits for it; false when it has not ended by then and is left behind.
    pub(super) fn join(self, until: Instant) -> bool {
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return false;
            }
            // A Stop that found the inbox full.
            self.stop();
            thread::sleep(Duration::from_millis(5));
        }
        self.thread.join().is_ok()
    }
}

fn set(phase: &Mutex<Phase>, now: Phase) {
    if let Ok(mut phase) = phase.lock() {
        *phase = now;
    }
}

fn follow(
    pid: u32,
    name: &str,
    past: &Carried,
    common: &Shared,
    messages: &Receiver<Message>,
    phase: &Mutex<Phase>,
) -> Phase {
    let options = Options { exact: false, growth: true, retained: true, allocations: common.allocations };
    let observer = match Observer::attach(pid, &options, common.kernel.clone()) {
        Ok(observer) => observer,
        Err(error) => return Phase::Refused(error_line(&error)),
    };
    set(phase, Phase::Sampling);
    if let Some(store) = common.store.as_ref().filter(|_| past.unread) {
        remember(store, name, past);
    }
    let mut target = Following {
        name,
        common,
        past,
        history: History::within(Bounds::RESIDENT),
        observer,
        interval: common.pace.interval(),
        cost: 0.0,
        at_attach: past.restarts,
    };
    target.run(messages)
}

struct Following<'a> {
    name: &'a str,
    common: &'a Shared,
    past: &'a Carried,
    history: History,
    observer: Observer,
    interval: Duration,
    /// CPU seconds of a sample, lately.
    cost: f64,
    at_attach: u32,
}

impl Following<'_> {
    fn run(&mut self, messages: &Receiver<Message>) -> Phase {
        let mut next = Instant::now();
        loop {
            match messages.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Message::Faults(faults)) => {
                    self.observer.record(&faults);
                    if Instant::now() < next {
                        continue;
                    }
                }
                // Events come in bursts, and an image that was just mapped is not yet what it will be.
                Ok(Message::Look) => {
                    next = next.min(Instant::now() + Duration::from_millis(100));
                    continue;
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return Phase::Stopped;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let began = cpu_seconds();
            self.observer.set_share(self.common.pace.share());
            let taken = self.observer.sample();
            let exited = match taken {
                Ok(sample) => {
                    self.take(sample);
                    false
                }
                Err(Exited) => {
                    self.history.mark_exited();
                    true
                }
            };
            if exited {
                self.publish_exit();
                return Phase::Exited;
            }
            self.pace(cpu_seconds() - began);
            next = Instant::now() + self.interval;
        }
    }

    /// A dear target is looked at less often: its cost by its share is the interval.
    fn pace(&mut self, cost: f64) {
        // The first sample pays for what is read once.
        self.cost = if self.cost == 0.0 { cost / 4.0 } else { 0.7 * self.cost + 0.3 * cost };
        let affordable = Duration::try_from_secs_f64(self.cost / self.common.pace.share()).unwrap_or(LONGEST);
        let longest = if self.history.samples() < FIRST_SAMPLES { AT_FIRST } else { LONGEST };
        self.interval = self.common.pace.interval().max(affordable.min(longest));
    }

    fn take(&mut self, mut sample: Sample) {
        locks::tell(&mut sample);
        let now = unix_now();
        self.common.metrics.sampled(sample.took_seconds);
        self.common.board.lose(&sample.losses);
        let asked = self.common.pace.interval();
        if self.interval > asked * 3 / 2 {
            sample.degraded.push(Degraded {
                feature: "interval".to_owned(),
                reason: format!(
                    "sampled every {:.0} s instead of {:.0} s: a sample costs {:.0} ms of CPU",
                    self.interval.as_secs_f64(),
                    asked.as_secs_f64(),
                    self.cost * 1e3
                ),
                remedy: "raise sampling.cpu, or observe fewer processes".to_owned(),
            });
        }
        sample.generation = sample.generation.wrapping_add(self.at_attach);
        if let Some(store) = &self.common.store {
            sample.degraded.extend(store.degraded());
        }
        if let Ok(mut timeline) = self.past.timeline.lock() {
            timeline.push(now, &sample);
            if let Some(store) = &self.common.store {
                store.offer(self.name, &timeline);
            }
        }
        self.history.push(sample.clone());
        let diagnosis = diagnose(&self.history, self.observer.info());
        if let Ok(mut timeline) = self.past.timeline.lock() {
            // A culprit is in the picture though it is small yet.
            timeline.prefer(diagnosis.culprits.iter().map(|culprit| culprit.group.id));
        }
        self.publish(now, sample, diagnosis, true);
    }

    fn publish(&self, now: f64, sample: Sample, diagnosis: Diagnosis, up: bool) {
        let mut info = self.observer.info().clone();
        if let Some(container) = &mut info.container {
            self.common.pods.name(container);
        }
        self.common.board.publish(TargetState {
            name: self.name.to_owned(),
            up,
            info,
            first_seen: self.past.first_seen,
            last_sampled: now,
            restarts: sample.generation,
            interval_seconds: self.interval.as_secs_f64(),
            sample: Arc::new(sample),
            diagnosis: Arc::new(diagnosis),
            timeline: Arc::clone(&self.past.timeline),
        });
    }

    /// What was known of it stays on the board.
    fn publish_exit(&self) {
        let before = self.common.board.target(self.name);
        let diagnosis = diagnose(&self.history, self.observer.info());
        match before {
            Some(state) => self.common.board.publish(TargetState {
                up: false,
                diagnosis: Arc::new(diagnosis),
                ..TargetState::clone(&state)
            }),
            // It ended before its first sample.
            None => self.publish(unix_now(), Sample::default(), diagnosis, false),
        }
    }
}

/// Goes on with what was seen of this name before observer was started.
fn remember(store: &Store, name: &str, past: &Carried) {
    match store.load(name, unix_now() - SHOWN) {
        Ok(timeline) => {
            if let Ok(mut empty) = past.timeline.lock() {
                *empty = timeline;
            }
        }
        Err(error) => tracing::warn!(target = %name, "{error}"),
    }
}

/// CPU time of this thread.
fn cpu_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

pub(super) fn unix_now() -> f64 {
    Timestamp::now().as_nanosecond() as f64 / 1e9
}
