//! Threads that sleep, on a futex or in another system call: where, on what, since when; also those that slept before observer came.
//!
//! Reads a census of the threads (the kernel's iterator, or `/proc` without it) and the stacks of those that are
//! new or have moved; gives groups of threads with one stack and one reason. A thread that did not move costs a
//! hash lookup, a new one some 10 µs, a new place in the code its symbolization.

mod blocked;
pub(crate) mod comm;
pub(crate) mod futex;
mod locks;
mod members;
mod naming;
mod parking;
pub mod procfs;
mod reader;
mod stacks;
pub(crate) mod syscall;
mod tracked;

use crate::kernel::census::ThreadRecord;
use crate::sample::{Degraded, lose};
use stacks::tell_of_cut_stacks;
use tracked::Sleeper;

pub use blocked::BlockedThread;
pub use reader::{MAX_GROUPS, ThreadError, ThreadReader, ThreadSample};

/// Stacks read in one sample; those that are left get their turn in the next one.
const MAX_NEW_STACKS: usize = 1 << 16;
/// Threads looked at again in one sample that left a call and came back to it, futex calls apart: a server's threads
/// do so all the time. The others are believed to be where they were, and get their turn.
const MAX_RECHECKED: usize = 1024;

impl ThreadReader {
    /// The sleeping threads now, at `at_seconds` on the caller's clock, by the kernel's census or else by `/proc`.
    pub fn sample(
        &mut self,
        at_seconds: f64,
        census: Option<&[ThreadRecord]>,
    ) -> Result<ThreadSample, ThreadError> {
        let mut sample = ThreadSample::default();
        let (converted, walked): (Vec<BlockedThread>, procfs::Census);
        let visits: &[BlockedThread] = match census {
            Some(records) => {
                sample.threads = records.len() as u64;
                converted = records.iter().filter_map(BlockedThread::of_sleeper).collect();
                &converted
            }
            None => {
                walked = procfs::census(self.pid).map_err(|source| self.error(source))?;
                sample.threads = walked.threads;
                lose(&mut sample.losses, "threads_unreadable", walked.refused);
                lose(&mut sample.losses, "threads_left_out", walked.left_out);
                if walked.refused > 0 && walked.visits.is_empty() {
                    sample.degraded.push(Degraded {
                        feature: "threads".to_owned(),
                        reason: format!("/proc/{}/task/*/syscall may not be read", self.pid),
                        remedy: "give observer CAP_SYS_PTRACE, or run it as the target's user".to_owned(),
                    });
                }
                &walked.visits
            }
        };
        let mut sleepers = self.sleepers(visits, at_seconds, &mut sample);
        self.measure_stacks(&mut sleepers, at_seconds);
        tell_of_cut_stacks(&sleepers, census.is_some(), &mut sample);
        let locks = self.find_locks(&mut sleepers, census, at_seconds, &mut sample);
        self.group(at_seconds, sleepers, &locks, &mut sample);
        self.first = false;
        Ok(sample)
    }

    /// Brings what is known about each sleeping thread up to date; the thread ids with what they were before.
    fn sleepers(&mut self, visits: &[BlockedThread], now: f64, sample: &mut ThreadSample) -> Vec<Sleeper> {
        let mut sleepers = Vec::new();
        let mut moved = Vec::new();
        let mut returned = Vec::new();
        for visit in visits {
            let futex = futex::wait(visit.syscall, &visit.arguments);
            let wait = futex.or_else(|| syscall::wait(visit.syscall, &visit.arguments));
            let known = self.threads.get(&visit.tid).filter(|known| known.is(visit));
            if let Some(known) = known.filter(|known| {
                // It may be any call that was taken up again; the address it has is the one that it had.
                let wait = wait.filter(|_| !futex::restarted(visit.syscall));
                (wait.is_some() || futex::restarted(visit.syscall)) && known.has_not_moved(visit, wait)
            }) {
                sleepers.push(Sleeper {
                    tid: visit.tid,
                    now: known.clone(),
                    before: Some(known.group),
                    ran: false,
                    comm: visit.comm,
                    lock: None,
                });
            } else if let Some((known, wait)) =
                known.zip(wait).filter(|(known, wait)| futex.is_none() && known.came_back(visit, *wait))
            {
                returned.push((visit, wait, known.clone()));
            } else if let Some(wait) = wait {
                moved.push((visit, wait, known.map(|known| known.group)));
            }
        }
        // Each gets its turn.
        let turn = if returned.len() > MAX_RECHECKED { self.turn % returned.len() } else { 0 };
        returned.rotate_left(turn);
        self.turn = turn + MAX_RECHECKED;
        for (place, (visit, wait, known)) in returned.into_iter().enumerate() {
            if place < MAX_RECHECKED {
                moved.push((visit, wait, Some(known.group)));
                continue;
            }
            let before = Some(known.group);
            let now = known.again(visit, wait, now);
            sleepers.push(Sleeper { tid: visit.tid, now, before, ran: true, comm: visit.comm, lock: None });
        }
        if !moved.is_empty() {
            self.remap();
            moved.retain(|(visit, ..)| {
                let idle = self.parking.holds(visit.ip, &self.maps);
                sample.idle_carriers += u64::from(idle);
                !idle
            });
            let over = moved.len().saturating_sub(MAX_NEW_STACKS);
            moved.truncate(MAX_NEW_STACKS);
            lose(&mut sample.losses, "thread_stacks_postponed", over as u64);
            self.read_stacks(moved, now, &mut sleepers, sample);
        }
        sleepers
    }
}
