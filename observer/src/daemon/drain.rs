//! Takes from the kernel what it has put by, for all targets, and hands each its part.
//!
//! In a thread of its own, several times a second: the kernel's buffers hold some seconds of the worst, and whoever
//! samples may be busy for longer. Without targets it costs two system calls each time.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::sampler::Inbox;
use crate::board::Board;
use crate::kernel::{Fault, SharedProbes};
use crate::sample::Losses;

const EVERY: Duration = Duration::from_millis(100);

/// Who is told of which process, by pid.
#[derive(Default)]
pub(super) struct Routes(Mutex<HashMap<u32, Inbox>>);

impl Routes {
    pub(super) fn add(&self, pid: u32, inbox: Inbox) {
        self.with(|routes| routes.insert(pid, inbox));
    }

    pub(super) fn remove(&self, pid: u32) {
        self.with(|routes| routes.remove(&pid));
    }

    fn to(&self, pid: u32) -> Option<Inbox> {
        self.with(|routes| routes.get(&pid).cloned())
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<u32, Inbox>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The thread's other end.
pub(super) struct Drain {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Drain {
    pub(super) fn start(
        kernel: Arc<SharedProbes>,
        routes: Arc<Routes>,
        board: Arc<Board>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("drain".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                board.lose(&drain(&kernel, &routes));
                thread::sleep(EVERY);
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends within two rounds.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that drains the kernel's buffers panicked");
        }
    }
}

/// One round; what was lost.
fn drain(kernel: &SharedProbes, routes: &Routes) -> Losses {
    let drained = kernel.drain();
    let mut losses = drained.losses;
    let mut by_target: HashMap<u32, Vec<Fault>> = HashMap::new();
    for fault in drained.faults {
        by_target.entry(fault.pid).or_default().push(fault);
    }
    for (pid, faults) in by_target {
        let count = faults.len() as u64;
        if let Some(inbox) = routes.to(pid)
            && !inbox.faults(faults)
        {
            *losses.entry("faults_not_taken".to_owned()).or_default() += count;
        }
    }
    // A target that forks all the time is told once a round.
    let changed: BTreeSet<u32> = drained.lifecycle.iter().map(|event| event.pid).collect();
    for inbox in changed.into_iter().filter_map(|pid| routes.to(pid)) {
        inbox.look();
    }
    losses
}
