//! The processes that the programs look at: from a pid in our namespace to the global tgid they filter by.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::maps::{Array, HashMap, MapData, MapError};
use observer_common::target::{MAX_TARGETS, Target, TargetFilter};

use super::KernelError;
use super::census::CensusProgram;

/// A process that the kernel side observes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetHandle {
    pid: u32,
    namespace_pid: u32,
    global_tgid: u32,
    slot: u32,
}

impl TargetHandle {
    /// Pid in our PID namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Pid in the target's innermost PID namespace.
    pub fn namespace_pid(&self) -> u32 {
        self.namespace_pid
    }

    /// Pid in the initial PID namespace, by which eBPF programs know it.
    pub fn global_tgid(&self) -> u32 {
        self.global_tgid
    }

    /// Index of its counters.
    pub(super) fn slot(&self) -> u32 {
        self.slot
    }
}

struct Entry {
    pid: u32,
    global_tgid: u32,
    /// The iterator over this target's threads.
    link: OwnedFd,
}

pub(super) struct Targets {
    map: HashMap<MapData, u32, Target>,
    filter: Array<MapData, TargetFilter>,
    /// By slot.
    entries: BTreeMap<u32, Entry>,
}

fn map_error(error: MapError) -> KernelError {
    KernelError::Map { map: "TARGETS", error }
}

impl Targets {
    pub(super) fn new(map: HashMap<MapData, u32, Target>, filter: Array<MapData, TargetFilter>) -> Self {
        Self { map, filter, entries: BTreeMap::new() }
    }

    /// Finds the process and gives it a slot. The programs see it only after [`Self::publish`].
    pub(super) fn add(&mut self, census: &mut CensusProgram, pid: u32) -> Result<TargetHandle, KernelError> {
        let gone = || KernelError::NoSuchProcess { pid };
        let failed = |error| KernelError::Census { pid, error };
        let slot = (0..MAX_TARGETS)
            .find(|slot| !self.entries.contains_key(slot))
            .ok_or(KernelError::TooManyTargets)?;
        let link = match census.link(pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(gone()),
            linked => linked.map_err(failed)?,
        };
        let leader = census.leader(link.as_fd(), pid).map_err(failed)?.ok_or_else(gone)?;
        let global_tgid = leader.global_tgid;
        if self.entries.values().any(|entry| entry.global_tgid == global_tgid) {
            return Err(KernelError::AlreadyTarget { pid });
        }
        self.entries.insert(slot, Entry { pid, global_tgid, link });
        Ok(TargetHandle { pid, namespace_pid: leader.namespace_tid, global_tgid, slot })
    }

    /// Shows a target to the programs, or changes its `FLAG_...` bits.
    pub(super) fn publish(&mut self, target: &TargetHandle, flags: u32) -> Result<(), KernelError> {
        self.map.insert(target.global_tgid, Target { slot: target.slot, flags }, 0).map_err(map_error)?;
        self.set_filter()
    }

    pub(super) fn remove(&mut self, target: &TargetHandle) {
        if self.link(target).is_some() {
            self.entries.remove(&target.slot);
            // A target that was never published is not in the map; nothing else can fail here.
            let _ = self.map.remove(&target.global_tgid);
            let _ = self.set_filter();
        }
    }

    fn set_filter(&mut self) -> Result<(), KernelError> {
        let mut filter = TargetFilter::EMPTY;
        for entry in self.entries.values() {
            filter.insert(entry.global_tgid);
        }
        self.filter.set(0, filter, 0).map_err(map_error)
    }

    /// The iterator over the target's threads, while it is observed.
    pub(super) fn link(&self, target: &TargetHandle) -> Option<BorrowedFd<'_>> {
        let entry = self.entries.get(&target.slot)?;
        (entry.global_tgid == target.global_tgid).then(|| entry.link.as_fd())
    }

    /// Whether the handle still stands for a target.
    pub(super) fn knows(&self, target: &TargetHandle) -> bool {
        self.link(target).is_some()
    }

    /// The pid (in our namespace) of the target in a slot, if it is the one with that global tgid.
    pub(super) fn pid_of(&self, slot: u32, global_tgid: u32) -> Option<u32> {
        let entry = self.entries.get(&slot)?;
        (entry.global_tgid == global_tgid).then_some(entry.pid)
    }
}
