//! Timelines on disk, so that a restart of observer does not begin the picture anew.
//!
//! An embedded database with a thread of its own that writes: who samples hands over a moment every [`EACH`] seconds and
//! never waits. What the queue cannot take, or the disk, is counted as lost; while the disk is full or gone
//! [`Store::degraded`] says so, and writing begins again by itself. Each commit is durable and whole: observer may be
//! killed at any time. The file is bounded in bytes and in age. A file that cannot be trusted is refused and left as it
//! is. Costs 2 MiB of cache, and about 150 bytes a moment and target on disk.

mod file;
mod shared;
mod writer;

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use redb::Database;

use super::{Point, Timeline};
use shared::{Handed, Health, Job, Shared, lock};

use crate::sample::{Degraded, Losses};
pub use shared::{Limits, StoreError};

/// Seconds between two moments of a target that are kept.
pub const EACH: f64 = 10.0;
/// Moments that wait to be written: the targets of a large node within one interval.
const QUEUE: usize = 256;
/// Targets whose last moment is remembered.
const TARGETS: usize = 4_096;
/// Below this a database has no room to turn round in.
const LEAST_BYTES: u64 = 16 << 20;

/// The history of all targets in one file.
pub struct Store {
    shared: Arc<Shared>,
    queue: SyncSender<Job>,
    taken: Mutex<HashMap<String, Taken>>,
    done: Mutex<Receiver<()>>,
}

/// What was handed over of a target.
struct Taken {
    /// Unix seconds of the last moment.
    at: f64,
    /// Since then, the moment with the most memory.
    highest: Option<Point>,
}

impl Store {
    /// Opens the file, or begins it. Refuses what is not a whole history of observer's own; deletes nothing. A full disk
    /// is no reason to refuse: then it begins degraded.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let limits = Limits { max_bytes: limits.max_bytes.max(LEAST_BYTES), ..limits };
        let (database, broken) = match file::open(path) {
            Ok(database) => (Some(database), None),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                (None, Some(source.to_string()))
            }
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            limits,
            database: RwLock::new(database),
            health: Mutex::new(Health { broken, ..Health::default() }),
        });
        let (queue, jobs) = sync_channel(QUEUE);
        let (finished, done) = sync_channel(1);
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                writer::run(&writer, &jobs);
                // The lock on the file is released before anybody is told that it is.
                *writer.database.write().unwrap_or_else(PoisonError::into_inner) = None;
                let _ = finished.try_send(());
            })
            .map_err(|source| StoreError::Io { path: path.to_owned(), call: "starting a thread", source })?;
        Ok(Self { shared, queue, taken: Mutex::default(), done: Mutex::new(done) })
    }

    /// Hands over what a target's timeline has gained, when it is time to: of the moments since the last time the one
    /// with the most memory, and the last. Does not wait for the disk.
    pub fn offer(&self, target: &str, timeline: &Timeline) {
        let Some(last) = timeline.last() else { return };
        let Some(due) = self.due(target, last) else { return };
        for point in due {
            let groups = point.groups.iter().filter_map(|at| timeline.group(at.id).cloned()).collect();
            let handed = Handed { target: target.to_owned(), point, groups };
            match self.queue.try_send(Job::Moment(Box::new(handed))) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => self.shared.lose("history_queue_full", 1),
                Err(TrySendError::Disconnected(_)) => self.shared.lose("history_not_written", 1),
            }
        }
    }

    /// The moments to hand over, if it is time to.
    fn due(&self, target: &str, last: Point) -> Option<Vec<Point>> {
        let mut taken = lock(&self.taken);
        if let Some(of) = taken.get_mut(target) {
            // A clock set back begins anew.
            if (0.0..EACH).contains(&(last.at - of.at)) {
                if of.highest.as_ref().is_none_or(|highest| highest.resident_bytes < last.resident_bytes) {
                    of.highest = Some(last);
                }
                return None;
            }
            of.at = last.at;
            let highest = of.highest.take();
            let peak = highest.filter(|peak| peak.at < last.at && peak.resident_bytes > last.resident_bytes);
            return Some(peak.into_iter().chain([last]).collect());
        }
        if taken.len() >= TARGETS {
            taken.retain(|_, of| last.at - of.at < 3_600.0);
        }
        if taken.len() >= TARGETS {
            drop(taken);
            self.shared.lose("history_targets_too_many", 1);
            return None;
        }
        taken.insert(target.to_owned(), Taken { at: last.at, highest: None });
        Some(vec![last])
    }

    /// What is known of a target since `from` (unix seconds), to go on with.
    pub fn load(&self, target: &str, from: f64) -> Result<Timeline, StoreError> {
        self.read(|database| file::load(database, target, from))
    }

    /// Names of the targets that have a history.
    pub fn targets(&self) -> Result<Vec<String>, StoreError> {
        self.read(file::targets)
    }

    /// Waits until what was handed over is on disk; false when that took longer or did not work.
    pub fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let (done, wait) = sync_channel(1);
        let mut job = Job::Flush(done);
        while let Err(error) = self.queue.try_send(job) {
            job = match error {
                TrySendError::Full(job) if Instant::now() < until => job,
                _ => return false,
            };
            thread::sleep(Duration::from_millis(2));
        }
        wait.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
            && lock(&self.shared.health).broken.is_none()
    }

    /// What was lost since this was last asked, by name.
    pub fn take_losses(&self) -> Losses {
        std::mem::take(&mut lock(&self.shared.health).lost)
    }

    /// Why nothing is written at the moment, if that is so.
    pub fn degraded(&self) -> Option<Degraded> {
        let why = lock(&self.shared.health).broken.clone()?;
        Some(Degraded {
            feature: "history".to_owned(),
            reason: format!(
                "{} is not written ({why}); what happens now is not remembered",
                self.shared.path.display()
            ),
            remedy: "make room on the disk, or look at the file: writing begins again by itself".to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.shared.path).map_or(0, |metadata| metadata.len())
    }

    /// Writes what is left and lets go of the file; false when the disk took longer, and what was left may be lost.
    pub fn close(self, within: Duration) -> bool {
        // Whoever reads the queue stops when nobody can write to it any more, also where it is full.
        let _ = self.queue.try_send(Job::Stop);
        drop(self.queue);
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.recv_timeout(within).is_ok() && lock(&self.shared.health).broken.is_none()
    }

    fn read<T>(&self, with: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let path = || self.shared.path.clone();
        let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_ref() else {
            let why = lock(&self.shared.health).broken.clone().unwrap_or_else(|| "closed".to_owned());
            return Err(StoreError::Unavailable { path: path(), why });
        };
        // A file that was altered behind its back can make the database panic.
        match catch_unwind(AssertUnwindSafe(|| with(database))) {
            Ok(read) => read.map_err(|error| StoreError::Damaged { path: path(), what: error.to_string() }),
            Err(_) => Err(StoreError::Damaged { path: path(), what: "it contradicts itself".to_owned() }),
        }
    }
}
