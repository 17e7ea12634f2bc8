//! What is kept of the threads of one process image from sample to sample, and what a sample of them is.
//!
//! Only state and its bounds; the parts that fill it are the files beside this one.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::locks::remembered::Remembered;
use super::naming::Name;
use super::parking::Parking;
use super::tracked::Tracked;
use crate::memory::pagemap::Pagemap;
use crate::memory::smaps::Smaps;
use crate::process::code::RuntimeCode;
use crate::process::maps::Mapping;
use crate::sample::{Deadlock, Degraded, Frame, Group, GroupId, Losses};
use crate::symbol::Symbolizer;
use crate::symbol::cache::Cache;
use crate::unwind::Unwinder;
use crate::unwind::dwarf::CallFrames;

/// Groups in a sample; the smallest beyond that are only counted.
pub const MAX_GROUPS: usize = 4000;
/// Different stacks that are remembered with their frames.
pub(super) const CACHED_STACKS: usize = 1 << 12;
/// Different stacks that are told apart at one time.
pub(super) const MAX_PLACES: usize = 1 << 13;
/// Threads whose resident stack is measured in one sample; the others get the mean of their group.
pub(super) const MAX_MEASURED_STACKS: usize = 1024;
/// A stack mapping larger than this is measured so far from its top.
pub(super) const MAX_STACK_PAGES: u64 = 4096;

#[derive(Debug, Error)]
pub enum ThreadError {
    #[error("process {0} has exited")]
    Exited(u32),
    #[error("cannot read /proc/{pid}/task: {source} (needs CAP_SYS_PTRACE, or the target's own user)")]
    Unreadable { pid: u32, source: io::Error },
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
    pub(super) pid: u32,
    pub(super) symbolizer: Box<dyn Symbolizer>,
    pub(super) unwinder: Box<dyn Unwinder>,
    pub(super) maps: Vec<Mapping>,
    /// Where threads that carry no task of a runtime sleep.
    pub(super) parking: Parking,
    /// Tells how much of a stack is there; where it may not be read, `smaps` does.
    pub(super) pagemap: Option<Pagemap>,
    pub(super) smaps: Smaps,
    pub(super) threads: HashMap<u32, Tracked>,
    pub(super) stacks: Cache<StackKey, (GroupId, Arc<[Frame]>)>,
    pub(super) places: HashMap<GroupId, Arc<[Frame]>>,
    /// What the waits of each group are called.
    pub(super) names: HashMap<GroupId, Name>,
    pub(super) remembered: Remembered,
    pub(super) first: bool,
    /// Where in the line of threads that came back the rechecking goes on.
    pub(super) turn: usize,
}

pub(super) type StackKey = (&'static str, Box<[u64]>);

impl ThreadReader {
    /// Prepares to read a process; nothing is read of it yet. `symbolizer` is asked for each new place in its code.
    pub fn open(pid: u32, code: &RuntimeCode, symbolizer: Box<dyn Symbolizer>) -> Self {
        Self {
            pid,
            symbolizer,
            unwinder: Box::new(CallFrames::beside(pid, code)),
            maps: Vec::new(),
            parking: Parking::of(pid, code),
            pagemap: Pagemap::open(pid).ok(),
            smaps: Smaps::new(pid),
            threads: HashMap::new(),
            stacks: Cache::new(CACHED_STACKS),
            places: HashMap::new(),
            names: HashMap::new(),
            remembered: Remembered::default(),
            first: true,
            turn: 0,
        }
    }

    /// The share of one core that looking at mappings may take.
    pub fn set_share(&mut self, share: f64) {
        self.smaps.set_share(share);
    }

    /// The sleepers of the last sample, each with its group.
    pub fn members(&self) -> impl Iterator<Item = (u32, GroupId)> {
        self.threads.iter().map(|(tid, thread)| (*tid, thread.group))
    }

    pub(super) fn error(&self, source: io::Error) -> ThreadError {
        match source.kind() {
            io::ErrorKind::NotFound => ThreadError::Exited(self.pid),
            _ if source.raw_os_error() == Some(libc::ESRCH) => ThreadError::Exited(self.pid),
            _ => ThreadError::Unreadable { pid: self.pid, source },
        }
    }
}
