//! The thread that writes: gathers what is handed over, commits it every few seconds, keeps the file within its limits,
//! and opens it anew after the disk has failed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use redb::{Database, Error};

use super::file::{self, Known};
use super::shared::{Handed, Job, Shared, lock};

/// A commit waits for the disk twice: not more often than this.
const COMMIT: Duration = Duration::from_secs(5);
/// Moments of one commit.
const BATCH: usize = 512;
/// The file is looked at when so much of its limit was written, and no commit is larger.
const STEPS: u64 = 64;
/// How soon, and at most how late, a failed disk is tried again.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// How often old moments are deleted.
const DELETE: Duration = Duration::from_secs(600);

pub(super) fn run(shared: &Shared, jobs: &Receiver<Job>) {
    let mut writer = Writer {
        shared,
        known: Known::default(),
        written: 0,
        deleted: None,
        retry: RETRY,
        failed: Some(Instant::now()),
    };
    let mut batch = Vec::new();
    let mut pending = 0_u64;
    let mut due = Instant::now() + COMMIT;
    writer.keep_within_limits();
    loop {
        let job = jobs.recv_timeout(due.saturating_duration_since(Instant::now()));
        match job {
            Ok(Job::Moment(handed)) => {
                pending = pending.saturating_add(writer.known.weight(&handed));
                batch.push(*handed);
                if batch.len() < BATCH && pending < shared.limits.max_bytes / STEPS {
                    continue;
                }
                writer.commit(&mut batch);
            }
            Ok(Job::Flush(done)) => {
                writer.commit(&mut batch);
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => writer.commit(&mut batch),
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => {
                writer.commit(&mut batch);
                return;
            }
        }
        due = Instant::now() + COMMIT;
        pending = 0;
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    known: Known,
    /// Bytes since the file was last looked at.
    written: u64,
    deleted: Option<Instant>,
    retry: Duration,
    /// When the disk was last found to fail.
    failed: Option<Instant>,
}

impl Writer<'_> {
    fn commit(&mut self, batch: &mut Vec<Handed>) {
        self.reopen();
        if batch.is_empty() {
            return self.keep_within_limits();
        }
        let known = &mut self.known;
        let written = with(self.shared, |database| file::write(database, known, batch));
        match written {
            Some(Ok(bytes)) => {
                self.written = self.written.saturating_add(bytes);
                self.retry = RETRY;
            }
            Some(Err(error)) => {
                self.fail(&error);
                self.shared.lose("history_not_written", batch.len() as u64);
            }
            None => self.shared.lose("history_not_written", batch.len() as u64),
        }
        batch.clear();
        self.keep_within_limits();
    }

    /// After an error the database takes nothing more until it is opened anew.
    fn fail(&mut self, why: &str) {
        self.known.forget();
        *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        let mut health = lock(&self.shared.health);
        if health.broken.is_none() {
            tracing::warn!(path = %self.shared.path.display(), why, "the history is not written");
        }
        health.broken = Some(why.to_owned());
        self.failed = Some(Instant::now());
    }

    fn reopen(&mut self) {
        let broken = self.shared.database.read().unwrap_or_else(PoisonError::into_inner).is_none();
        if !broken || self.failed.is_some_and(|failed| failed.elapsed() < self.retry) {
            return;
        }
        self.retry = (self.retry * 2).min(RETRY_MOST);
        match file::open(&self.shared.path) {
            Ok(database) => {
                *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
                lock(&self.shared.health).broken = None;
                tracing::info!(path = %self.shared.path.display(), "the history is written again");
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn keep_within_limits(&mut self) {
        let due = self.deleted.is_none_or(|deleted| deleted.elapsed() >= DELETE);
        let much = self.written >= self.shared.limits.max_bytes / STEPS;
        if !(due || much) {
            return;
        }
        self.written = 0;
        self.deleted = Some(Instant::now());
        let (shared, known) = (self.shared, &mut self.known);
        let mut compact = false;
        let kept = with(shared, |database| {
            forget_old(shared, known, database)?;
            compact = make_room(shared, known, database)?;
            Ok(())
        });
        if let Some(Err(why)) = kept {
            self.fail(&why);
        }
        if compact {
            self.compact();
        }
    }

    /// Gives back to the disk what is free in the file. Nobody reads meanwhile.
    fn compact(&mut self) {
        let mut database = self.shared.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = database.as_mut() else { return };
        let compacted = catch_unwind(AssertUnwindSafe(|| open.compact()));
        drop(database);
        match compacted {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.fail(&error.to_string()),
            Err(_) => self.fail("the file contradicts itself"),
        }
    }
}

/// Runs on the database, if there is one; a panic of a database whose file was altered is an error of the file.
fn with<T>(shared: &Shared, run: impl FnOnce(&Database) -> Result<T, Error>) -> Option<Result<T, String>> {
    let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
    let database = database.as_ref()?;
    Some(match catch_unwind(AssertUnwindSafe(|| run(database))) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the file contradicts itself".to_owned()),
    })
}

fn forget_old(shared: &Shared, known: &mut Known, database: &Database) -> Result<(), Error> {
    let Some((oldest, latest)) = file::span(database)? else { return Ok(()) };
    let keep = u64::try_from(shared.limits.keep.as_millis()).unwrap_or(u64::MAX);
    // By the latest moment, not by the clock: one that is set wrongly for a while deletes nothing.
    let cut = latest.saturating_sub(keep);
    // A little more at once, so that it is not done for a single moment.
    if oldest < cut.saturating_sub(keep / 50) {
        while file::delete_before(database, known, cut)? {}
    }
    Ok(())
}

/// The file doubles as it grows: before it would grow beyond its limit, the oldest moments go. True when it is larger
/// than the limit already, as after the limit was lowered.
fn make_room(shared: &Shared, known: &mut Known, database: &Database) -> Result<bool, Error> {
    let limit = shared.limits.max_bytes;
    let length = fs::metadata(&shared.path).map_or(0, |metadata| metadata.len());
    if length.saturating_mul(2) <= limit {
        return Ok(false);
    }
    let too_long = length > limit;
    let room = if too_long { limit / 2 } else { length };
    if file::used(database)? <= room / 100 * 80 {
        return Ok(too_long);
    }
    for _ in 0..30 {
        let Some((oldest, latest)) = file::span(database)? else { break };
        let step = (latest.saturating_sub(oldest) / 8).max(1);
        while file::delete_before(database, known, oldest.saturating_add(step))? {}
        if file::used(database)? <= room / 100 * 65 {
            break;
        }
    }
    Ok(too_long)
}
