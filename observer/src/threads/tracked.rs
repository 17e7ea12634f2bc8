//! What is remembered of a sleeping thread from one sample to the next: where it was, so that a thread that did not
//! move is not read again.

use super::blocked::BlockedThread;
use super::comm::Comm;
use super::futex;
use super::locks::found::Lock;
use crate::sample::{GroupId, StackEnd};

/// A thread that slept at the last sample.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) started: u64,
    pub(super) voluntary_switches: u64,
    pub(super) sp: u64,
    pub(super) ip: u64,
    pub(super) wait: futex::Wait,
    pub(super) first_seen: f64,
    pub(super) group: GroupId,
    /// What its stack lacks.
    pub(super) stack_end: Option<StackEnd>,
    pub(super) stack_bytes: Option<u64>,
    /// Its futex was looked at, and the wait is for no lock.
    pub(super) no_lock: bool,
}

impl Tracked {
    /// Whether a thread still is in the very wait that it was in.
    pub(super) fn has_not_moved(&self, visit: &BlockedThread, wait: Option<futex::Wait>) -> bool {
        self.is(visit)
            && (self.sp, self.ip) == (visit.sp, visit.ip)
            && match wait {
                Some(wait) => {
                    self.voluntary_switches == visit.voluntary_switches
                        && (self.wait.address, self.wait.reason) == (wait.address, wait.reason)
                }
                // A signal woke it, and the kernel took the same wait up again under another number.
                None => true,
            }
    }

    /// It ran, and sleeps in the same call again with the same stack pointer; the frames above may be others.
    pub(super) fn came_back(&self, visit: &BlockedThread, wait: futex::Wait) -> bool {
        (self.sp, self.ip, self.wait.reason) == (visit.sp, visit.ip, wait.reason)
    }

    /// The same place, in another wait.
    pub(super) fn again(self, visit: &BlockedThread, wait: futex::Wait, now: f64) -> Self {
        Self { voluntary_switches: visit.voluntary_switches, wait, first_seen: now, ..self }
    }

    pub(super) fn is(&self, visit: &BlockedThread) -> bool {
        self.started == visit.started
    }
}

/// A thread asleep at this moment, and where it was at the last one.
pub(super) struct Sleeper {
    pub(super) tid: u32,
    pub(super) now: Tracked,
    pub(super) before: Option<GroupId>,
    /// It is not the wait that it was in before.
    pub(super) ran: bool,
    pub(super) comm: Comm,
    /// The lock that it waits for, once that was looked for.
    pub(super) lock: Option<Lock>,
}
