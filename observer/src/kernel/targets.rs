//! The processes that the programs look at: from a pid in our namespace to the global tgid they filter by.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use observer_common::target::MAX_TARGETS;

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
}

struct Entry {
    global_tgid: u32,
    /// The iterator over this target's threads.
    link: OwnedFd,
}

pub(super) struct Targets {
    /// By slot.
    entries: BTreeMap<u32, Entry>,
}

impl Targets {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, census: &mut CensusProgram, pid: u32) -> Result<TargetHandle, KernelError> {
        let gone = || KernelError::NoSuchProcess { pid };
        let slot = (0..MAX_TARGETS)
            .find(|slot| !self.entries.contains_key(slot))
            .ok_or(KernelError::TooManyTargets)?;
        let (link, _scoped) = match census.link(pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(gone()),
            linked => linked.map_err(|error| KernelError::Census { pid, error })?,
        };
        let leader = census
            .leader(link.as_fd(), pid)
            .map_err(|error| KernelError::Census { pid, error })?
            .ok_or_else(gone)?;
        self.entries.insert(slot, Entry { global_tgid: leader.global_tgid, link });
        Ok(TargetHandle { pid, namespace_pid: leader.namespace_tid, global_tgid: leader.global_tgid, slot })
    }

    pub(super) fn remove(&mut self, target: &TargetHandle) {
        if self.link(target).is_some() {
            self.entries.remove(&target.slot);
        }
    }

    /// The iterator over the target's threads, while it is observed.
    pub(super) fn link(&self, target: &TargetHandle) -> Option<BorrowedFd<'_>> {
        let entry = self.entries.get(&target.slot)?;
        (entry.global_tgid == target.global_tgid).then(|| entry.link.as_fd())
    }
}
