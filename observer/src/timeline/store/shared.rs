//! What the store, its writer and its file have in common: limits, errors, what is handed over, and the state that they
//! share.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use redb::Database;
use thiserror::Error;

use crate::sample::{Group, Losses};
use crate::timeline::Point;

/// Of the tables; raised when an older observer could not read them.
pub(super) const FORMAT: u64 = 1;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The file is no larger; at least 16 MiB.
    pub max_bytes: u64,
    /// Older moments are deleted.
    pub keep: Duration,
}

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("history {}: another observer has it open: give each its own file", path.display())]
    InUse { path: PathBuf },
    #[error("history {}: no history of observer ({what}): name another file, or move this one away", path.display())]
    Foreign { path: PathBuf, what: String },
    #[error("history {}: written by a newer observer (format {format}, this one reads {}): update observer, or name another file", path.display(), FORMAT)]
    Newer { path: PathBuf, format: u64 },
    #[error("history {}: damaged ({what}): move it away, and a new one is begun", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("history {}: {call}: {source}: name a file that observer may read and write", path.display())]
    Io { path: PathBuf, call: &'static str, source: io::Error },
    #[error("history {}: not written at the moment ({why})", path.display())]
    Unavailable { path: PathBuf, why: String },
}

/// What the writer and those who hand over or read have in common.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
    /// Absent while the disk does not take or give anything. Written to only to compact or to open anew.
    pub(super) database: RwLock<Option<Database>>,
    pub(super) health: Mutex<Health>,
}

#[derive(Default)]
pub(super) struct Health {
    pub(super) lost: Losses,
    /// Why nothing is written.
    pub(super) broken: Option<String>,
}

pub(super) enum Job {
    Moment(Box<Handed>),
    Flush(SyncSender<()>),
    Stop,
}

/// A moment on its way to the disk, with what its groups are.
pub(super) struct Handed {
    pub(super) target: String,
    pub(super) point: Point,
    pub(super) groups: Vec<Group>,
}

impl Shared {
    pub(super) fn lose(&self, name: &str, count: u64) {
        let mut health = lock(&self.health);
        let sum = health.lost.entry(name.to_owned()).or_default();
        *sum = sum.saturating_add(count);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
