//! Threads that sleep, on a futex or in another system call: where, on what, since when; also those that slept before observer came.
//!
//! Reads a census of the threads (the kernel's iterator, or `/proc` without it) and the stacks of those that are
//! new or have moved; gives groups of threads with one stack and one reason. A thread that did not move costs a
//! hash lookup, a new one some 10 µs, a new place in the code its symbolization.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::kernel::census::ThreadRecord;
use crate::memory::pagemap::Pagemap;
use crate::memory::smaps::Smaps;
use crate::process::code::RuntimeCode;
use crate::process::maps::Mapping;
use crate::sample::{Deadlock, Degraded, Frame, Group, GroupId, Losses, lose};
use crate::symbol::Symbolizer;
use crate::symbol::cache::Cache;

pub mod comm;
pub mod futex;
mod locks;
mod members;
mod naming;
mod parking;
pub mod procfs;
mod stacks;
pub mod syscall;
mod tracked;

use crate::unwind::Unwinder;
use parking::Parking;
use stacks::tell_of_cut_stacks;
use tracked::{Sleeper, Tracked};

/// Groups in a sample; the smallest beyond that are only counted.
pub const MAX_GROUPS: usize = 4000;
/// Different stacks that are remembered with their frames.
const CACHED_STACKS: usize = 1 << 12;
/// Different stacks that are told apart at one time.
const MAX_PLACES: usize = 1 << 13;
/// Stacks read in one sample; those that are left get their turn in the next one.
const MAX_NEW_STACKS: usize = 1 << 16;
/// Threads looked at again in one sample that left a call and came back to it, futex calls apart: a server's threads
/// do so all the time. The others are believed to be where they were, and get their turn.
const MAX_RECHECKED: usize = 1024;
/// Threads whose resident stack is measured in one sample; the others get the mean of their group.
const MAX_MEASURED_STACKS: usize = 1024;
/// A stack mapping larger than this is measured so far from its top.
const MAX_STACK_PAGES: u64 = 4096;

#[derive(Debug, Error)]
pub enum ThreadError {
    #[error("process {0} has exited")]
    Exited(u32),
    #[error("cannot read /proc/{pid}/task: {source} (needs CAP_SYS_PTRACE, or the target's own user)")]
    Unreadable { pid: u32, source: io::Error },
}

/// One thread in a census.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockedThread {
    /// In observer's PID namespace.
    pub tid: u32,
    /// Start time in any unit: with the tid it is the thread's identity.
    pub started: u64,
    pub voluntary_switches: u64,
    /// Negative outside a syscall, and when the thread is awake.
    pub syscall: i64,
    pub arguments: [u64; 6],
    pub ip: u64,
    pub sp: u64,
    pub bp: Option<u64>,
    pub lr: Option<u64>,
    pub comm: comm::Comm,
}

impl BlockedThread {
    /// `None` for a thread that is awake: where it entered the kernel last says nothing.
    fn of_sleeper(record: &ThreadRecord) -> Option<Self> {
        record.is_sleeping().then(|| Self {
            tid: record.tid,
            started: record.started,
            voluntary_switches: record.voluntary_switches,
            syscall: record.syscall.and_then(|number| i64::try_from(number).ok()).unwrap_or(-1),
            arguments: record.arguments,
            ip: record.ip,
            sp: record.sp,
            bp: Some(record.bp),
            lr: Some(record.lr),
            comm: comm::Comm::new(record.comm.as_bytes()),
        })
    }
}

/// The threads of one moment.
#[derive(Clone, Debug, Default)]
pub struct ThreadSample {
    /// Largest first.
    pub groups: Vec<Group>,
    /// All threads of the process.
    pub threads: u64,
    /// Threads of runtimes that wait for a task: in no group.
    pub idle_carriers: u64,
    pub groups_total: u64,
    pub members_left_out: u64,
    pub deadlocks: Vec<Deadlock>,
    pub losses: Losses,
    pub degraded: Vec<Degraded>,
}

/// Groups the sleeping threads of one process image, sample after sample.
pub struct ThreadReader {
    pid: u32,
    symbolizer: Box<dyn Symbolizer>,
    unwinder: Box<dyn Unwinder>,
    maps: Vec<Mapping>,
    /// Where threads that carry no task of a runtime sleep.
    parking: Parking,
    /// Tells how much of a stack is there; where it may not be read, `smaps` does.
    pagemap: Option<Pagemap>,
    smaps: Smaps,
    threads: HashMap<u32, Tracked>,
    stacks: Cache<StackKey, (GroupId, Arc<[Frame]>)>,
    places: HashMap<GroupId, Arc<[Frame]>>,
    /// What the waits of each group are called.
    names: HashMap<GroupId, naming::Name>,
    remembered: locks::Remembered,
    first: bool,
    /// Where in the line of threads that came back the rechecking goes on.
    turn: usize,
}

type StackKey = (&'static str, Box<[u64]>);

impl ThreadReader {
    /// Prepares to read a process; nothing is read of it yet. `symbolizer` is asked for each new place in its code.
    pub fn open(pid: u32, code: &RuntimeCode, symbolizer: Box<dyn Symbolizer>) -> Self {
        Self {
            pid,
            symbolizer,
            unwinder: Box::new(crate::unwind::dwarf::CallFrames::beside(pid, code)),
            maps: Vec::new(),
            parking: Parking::of(pid, code),
            pagemap: Pagemap::open(pid).ok(),
            smaps: Smaps::new(pid),
            threads: HashMap::new(),
            stacks: Cache::new(CACHED_STACKS),
            places: HashMap::new(),
            names: HashMap::new(),
            remembered: locks::Remembered::default(),
            first: true,
            turn: 0,
        }
    }

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

    /// The share of one core that looking at mappings may take.
    pub fn set_share(&mut self, share: f64) {
        self.smaps.set_share(share);
    }

    /// The sleepers of the last sample, each with its group.
    pub fn members(&self) -> impl Iterator<Item = (u32, GroupId)> {
        self.threads.iter().map(|(tid, thread)| (*tid, thread.group))
    }

    fn error(&self, source: io::Error) -> ThreadError {
        match source.kind() {
            io::ErrorKind::NotFound => ThreadError::Exited(self.pid),
            _ if source.raw_os_error() == Some(libc::ESRCH) => ThreadError::Exited(self.pid),
            _ => ThreadError::Unreadable { pid: self.pid, source },
        }
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
