//! The processes that the programs look at: from a pid in our namespace to the global tgid they filter by.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::maps::{Array, MapData, MapError};
use observer_common::target::{MAX_TARGETS, SEARCHED, TABLE, Target};

use super::census::CensusProgram;
use super::error::KernelError;

/// A process that the kernel side observes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetHandle {
    pid: u32,
    namespace_pid: u32,
    global_tgid: u32,
    slot: u8,
    generation: u16,
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
        u32::from(self.slot)
    }
}

struct Entry {
    pid: u32,
    global_tgid: u32,
    generation: u16,
    /// The iterator over this target's threads.
    link: OwnedFd,
}

pub(super) struct Targets {
    map: Array<MapData, Target>,
    registered: Array<MapData, u64>,
    table: Table,
    /// By slot.
    entries: BTreeMap<u8, Entry>,
    generation: u16,
}

fn map_error(error: MapError) -> KernelError {
    KernelError::Map { map: "TARGETS", error }
}

impl Targets {
    pub(super) fn new(map: Array<MapData, Target>, registered: Array<MapData, u64>) -> Self {
        Self { map, registered, table: Table::default(), entries: BTreeMap::new(), generation: 0 }
    }

    /// Finds the process and gives it a slot. The programs see it only after [`Self::publish`].
    pub(super) fn add(&mut self, census: &mut CensusProgram, pid: u32) -> Result<TargetHandle, KernelError> {
        let gone = || KernelError::NoSuchProcess { pid };
        let failed = |error| KernelError::Census { pid, error };
        let slot = (0..MAX_TARGETS)
            .filter_map(|slot| u8::try_from(slot).ok())
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
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.entries.insert(slot, Entry { pid, global_tgid, generation, link });
        Ok(TargetHandle { pid, namespace_pid: leader.namespace_tid, global_tgid, slot, generation })
    }

    /// Shows a target to the programs, or changes its `FLAG_...` bits.
    pub(super) fn publish(&mut self, target: &TargetHandle, flags: u8) -> Result<(), KernelError> {
        let entry = Target::new(target.global_tgid, target.slot, flags, target.generation);
        self.registered.set(target.slot(), entry.owner(0), 0).map_err(map_error)?;
        let place = self.table.insert(entry).ok_or(KernelError::TooManyTargets)?;
        self.map.set(place, entry, 0).map_err(map_error)
    }

    pub(super) fn remove(&mut self, target: &TargetHandle) {
        if self.link(target).is_some() {
            self.entries.remove(&target.slot);
            // Nothing can fail here: these are elements of arrays.
            let _ = self.registered.set(target.slot(), 0, 0);
            // A target that was never published is not in the table.
            if let Some((place, entry)) = self.table.remove(target.global_tgid) {
                let _ = self.map.set(place, entry, 0);
            }
        }
    }

    /// The iterator over the target's threads, while it is observed.
    pub(super) fn link(&self, target: &TargetHandle) -> Option<BorrowedFd<'_>> {
        let entry = self.entries.get(&target.slot)?;
        (entry.generation == target.generation && entry.global_tgid == target.global_tgid)
            .then(|| entry.link.as_fd())
    }

    /// Whether the handle still stands for a target.
    pub(super) fn knows(&self, target: &TargetHandle) -> bool {
        self.link(target).is_some()
    }

    /// The pid (in our namespace) of the target in a slot, if it is the one with that global tgid.
    pub(super) fn pid_of(&self, slot: u32, global_tgid: u32) -> Option<u32> {
        let entry = self.entries.get(&u8::try_from(slot).ok()?)?;
        (entry.global_tgid == global_tgid).then_some(entry.pid)
    }
}

/// What the programs' table holds: an open hash table, in which a search ends at the first entry that never was one.
struct Table(Vec<Target>);

impl Default for Table {
    fn default() -> Self {
        Self(vec![Target::NONE; TABLE as usize])
    }
}

impl Table {
    /// Where the search for a tgid leads, in order.
    fn places(global_tgid: u32) -> impl Iterator<Item = usize> {
        let first = Target::place(global_tgid);
        std::iter::successors(Some(first), |&place| Some(Target::next(place)))
            .take(SEARCHED as usize)
            .map(|place| place as usize)
    }

    /// Where it is now; `None` where all places are taken.
    fn insert(&mut self, target: Target) -> Option<u32> {
        let tgid = target.global_tgid();
        let at = Self::places(tgid)
            .find(|&place| self.0[place].global_tgid() == tgid)
            .or_else(|| Self::places(tgid).find(|&place| self.0[place].global_tgid() == 0))?;
        self.0[at] = target;
        u32::try_from(at).ok()
    }

    /// Where it was, and what is there now.
    fn remove(&mut self, global_tgid: u32) -> Option<(u32, Target)> {
        let at = Self::places(global_tgid).find(|&place| self.0[place].global_tgid() == global_tgid)?;
        // Others that are looked for behind it must still be found.
        let next = self.0[Target::next(u32::try_from(at).ok()?) as usize];
        self.0[at] = if next == Target::NONE { Target::NONE } else { Target::REMOVED };
        Some((u32::try_from(at).ok()?, self.0[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the programs search.
    fn find(table: &Table, tgid: u32) -> Option<Target> {
        for place in Table::places(tgid) {
            match table.0[place] {
                entry if entry.global_tgid() == tgid => return Some(entry),
                Target::NONE => return None,
                _ => {}
            }
        }
        None
    }

    #[test]
    fn the_parts_of_an_entry() {
        let entry = Target::new(0xdead_beef, 0xff, 3, 0xabcd);
        assert_eq!((entry.global_tgid(), entry.slot(), entry.flags()), (0xdead_beef, 255, 3));
        assert_eq!(entry.owner(7), 0xabcd_ff00_0000_0007);
        assert_eq!(entry.owner(7), Target::new(1, 0xff, 0, 0xabcd).owner(7), "flags may change");
        assert_eq!(Target::REMOVED.global_tgid(), 0);
    }

    #[test]
    fn a_full_table_finds_all_and_nobody_else() {
        // Pids in a row, as those of one container, and such as collide with them.
        let row = |from: u32| (0..u32::from(u8::MAX)).map(move |n| from + n);
        let same_place = (1u32..).filter(|&tgid| Target::place(tgid) == 77).take(SEARCHED as usize);
        for tgids in [row(1).collect::<Vec<_>>(), row(4_000_000).collect(), same_place.collect()] {
            let mut table = Table::default();
            for (slot, &tgid) in tgids.iter().enumerate() {
                assert!(table.insert(Target::new(tgid, slot as u8, 0, 1)).is_some(), "{tgid}");
            }
            // Every other one goes, and the rest is still found.
            for &tgid in tgids.iter().step_by(2) {
                assert!(table.remove(tgid).is_some());
            }
            for (slot, &tgid) in tgids.iter().enumerate() {
                let found = find(&table, tgid).map(Target::slot);
                assert_eq!(found, (slot % 2 == 1).then_some(slot as u32), "{tgid}");
            }
            // Their places are used again.
            for &tgid in tgids.iter().step_by(2) {
                assert!(table.insert(Target::new(tgid, 9, 1, 2)).is_some(), "{tgid}");
            }
            assert!(tgids.iter().all(|&tgid| find(&table, tgid).is_some()));
            let used = table.0.iter().filter(|entry| entry.global_tgid() != 0).count();
            assert_eq!(used, tgids.len(), "none stands there twice");
        }
    }

    #[test]
    fn a_place_that_is_full_refuses() {
        let mut table = Table::default();
        let mut same = (1u32..).filter(|&tgid| Target::place(tgid) == 4095);
        for _ in 0..SEARCHED {
            assert!(table.insert(Target::new(same.next().unwrap(), 0, 0, 0)).is_some());
        }
        assert_eq!(table.insert(Target::new(same.next().unwrap(), 0, 0, 0)), None);
    }
}
