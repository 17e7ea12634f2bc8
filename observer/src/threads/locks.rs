//! Who holds the locks that threads wait for, and who waits in a cycle.
//!
//! Reads the words at the futexes of threads that sleep there, of those whose wait may be one for a lock; what the
//! owner of each lock does, and its stack. Gives each sleeper its [`Lock`], the [`Holder`]s by thread, and deadlocks.
//! A wait that is seen to be for no lock is not looked at again. Less than a microsecond a waiter, some 20 µs a holder
//! that is not itself a known sleeper, and 5 ms once where a cycle is seen for the first time.

use std::collections::HashMap;
use std::io;

use super::naming::{self, Name};
use super::reader::{ThreadReader, ThreadSample};
use super::tracked::{Sleeper, Tracked};
use crate::kernel::census::ThreadRecord;
use crate::process::memory::RemoteMemory;
use crate::sample::{Degraded, GroupId, lose};

mod cycles;
mod deadlocks;
pub(super) mod found;
mod glibc;
mod holders;
mod musl;
mod owners;
mod recognise;
pub(super) mod remembered;
mod words;

use found::Found;
use owners::ThreadTable;
use recognise::{is_one_word, lock};
use remembered::Remembered;

/// Futexes looked at in one sample.
const MAX_FUTEXES: usize = 1 << 14;

impl ThreadReader {
    /// Finds what the sleepers wait for, and who has it.
    pub(super) fn find_locks(
        &mut self,
        sleepers: &mut [Sleeper],
        census: Option<&[ThreadRecord]>,
        at: f64,
        sample: &mut ThreadSample,
    ) -> Found {
        let mut found = Found::default();
        for sleeper in sleepers.iter() {
            *found.waiters.entry(sleeper.now.wait.address).or_default() += 1;
            let (operation, places) = (sleeper.now.wait.reason, &self.places);
            self.names.entry(sleeper.now.group).or_insert_with(|| {
                naming::of(operation, places.get(&sleeper.now.group).map_or(&[], |frames| frames))
            });
        }
        let asked = self.worth_reading(sleepers);
        if asked.is_empty() {
            self.remembered = Remembered::default();
            return found;
        }
        let mut addresses: Vec<u64> =
            asked.iter().filter_map(|&index| sleepers.get(index)).map(|s| s.now.wait.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        lose(&mut sample.losses, "futexes_left_out", addresses.len().saturating_sub(MAX_FUTEXES) as u64);
        addresses.truncate(MAX_FUTEXES);
        let memory = RemoteMemory::new(self.pid);
        let words = match words::read(memory, &addresses) {
            Ok(words) => words,
            Err(error) => {
                sample.degraded.extend(unreadable(self.pid, &error));
                return found;
            }
        };
        let crowd = ThreadTable::new(self.pid, census);
        for index in asked {
            let Some(sleeper) = sleepers.get_mut(index) else { continue };
            let name = self.name(&sleeper.now);
            sleeper.lock = words
                .get(&sleeper.now.wait.address)
                .and_then(|words| lock(&sleeper.now.wait, words, name, &crowd));
            sleeper.now.no_lock = sleeper.lock.is_none() && !name.may_have_owner();
        }
        self.rename(sleepers);
        let sleeping: HashMap<u32, &Sleeper> =
            sleepers.iter().map(|sleeper| (sleeper.tid, sleeper)).collect();
        found.holders = self.holders(sleepers, &sleeping, &crowd);
        sample.deadlocks = self.deadlocks(&sleeping, &crowd, memory, at, sample);
        found
    }

    /// The sleepers whose futex may be a lock.
    fn worth_reading(&self, sleepers: &[Sleeper]) -> Vec<usize> {
        let worth = |sleeper: &Sleeper| {
            is_one_word(sleeper.now.wait.reason)
                && !sleeper.now.no_lock
                && (sleeper.ran || sleeper.before.is_none() || self.name(&sleeper.now).may_have_owner())
        };
        sleepers.iter().enumerate().filter(|(_, sleeper)| worth(sleeper)).map(|(index, _)| index).collect()
    }

    fn name(&self, now: &Tracked) -> Name {
        self.names.get(&now.group).copied().unwrap_or_else(|| Name::of_operation(now.wait.reason))
    }

    /// What the locks' own words say is surer than a stack without names: where all members are in mutexes, the
    /// group is called so, and stays called so.
    fn rename(&mut self, sleepers: &[Sleeper]) {
        let mut all: HashMap<GroupId, bool> = HashMap::new();
        for sleeper in sleepers {
            let is_mutex = sleeper.lock.is_some_and(|lock| lock.kind == "mutex");
            *all.entry(sleeper.now.group).or_insert(true) &= is_mutex;
        }
        for (group, _) in all.into_iter().filter(|(_, all)| *all) {
            let name = self.names.entry(group).or_insert(naming::MUTEX);
            if name.reason != naming::MUTEX.reason {
                *name = naming::MUTEX;
            }
        }
    }
}

/// That the process is gone is noticed elsewhere.
fn unreadable(pid: u32, error: &io::Error) -> Option<Degraded> {
    (error.raw_os_error() != Some(libc::ESRCH)).then(|| Degraded {
        feature: "lock owners".to_owned(),
        reason: format!("the memory of pid {pid} may not be read ({error}): who holds a lock is not known"),
        remedy: "give observer CAP_SYS_PTRACE, or run it as the target's user".to_owned(),
    })
}
