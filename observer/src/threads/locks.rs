//! Who holds the locks that threads wait for, and who waits in a cycle.
//!
//! Reads the words at the futexes of threads that sleep there, of those whose wait may be one for a lock; what the
//! owner of each lock does, and its stack. Gives each sleeper its [`Lock`], the [`Holder`]s by thread, and deadlocks.
//! A wait that is seen to be for no lock is not looked at again. Less than a microsecond a waiter, some 20 µs a holder
//! that is not itself a known sleeper, and 5 ms once where a cycle is seen for the first time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::naming::{self, Name};
use super::tracked::{Sleeper, Tracked};
use super::{ThreadReader, ThreadSample, futex, procfs};
use crate::kernel::census::ThreadRecord;
use crate::process::memory::RemoteMemory;
use crate::sample::{Degraded, Frame, GroupId, Holder, lose};

mod cycles;
mod deadlocks;
mod glibc;
mod holders;
mod musl;
mod owners;
mod words;

use deadlocks::Link;
use glibc::{Held, Rwlock};
use owners::{ThreadId, ThreadTable};
use words::Words;

/// Futexes looked at in one sample.
const MAX_FUTEXES: usize = 1 << 14;

/// What a thread was found to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) kind: &'static str,
    pub(super) owner: Owner,
}

/// Who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Owner {
    /// A thread of the target, by its number in observer's PID namespace.
    Thread(u32),
    /// None of its threads, by the number that the target knows it by.
    Elsewhere(u32),
    /// Nobody says who: a plain mutex of musl.
    Unrecorded,
    /// So many readers, who are not recorded.
    Readers(u32),
}

/// What is known of the locks of one moment.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) holders: HashMap<Owner, Holder>,
    /// Threads at each futex.
    pub(super) waiters: HashMap<u64, u64>,
}

/// What is remembered from one sample to the next.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Circles that a second look confirmed.
    confirmed: HashSet<Vec<Link>>,
    stacks: HashMap<u32, (ThreadId, Arc<[Frame]>)>,
}

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

fn is_one_word(operation: &str) -> bool {
    matches!(operation, futex::WAIT | futex::WAIT_BITSET | futex::LOCK_PI)
}

/// The lock that a wait is for, by its words, and by its name where words alone do not prove it.
fn lock(wait: &futex::Wait, words: &Words, name: Name, crowd: &ThreadTable<'_>) -> Option<Lock> {
    let is = |other: Name| name.reason == other.reason && name.owner == naming::Owner::Recorded;
    // Where the words could be others by accident, a thread that is there is asked for, or a stack that says so.
    let owner = |held: Held, sure: bool| match crowd.find(held.by) {
        Some(tid) => Some(Owner::Thread(tid)),
        None if sure || (held.shared && crowd.shares_numbers() && owners::anywhere(held.by).is_some()) => {
            Some(Owner::Elsewhere(held.by))
        }
        None => None,
    };
    let mutex = |owner| Some(Lock { kind: "mutex", owner });
    if let Some(held) = glibc::priority_owner(wait, words) {
        return mutex(owner(held, true)?);
    }
    if is(naming::READ_LOCK) || is(naming::WRITE_LOCK) {
        let owner = match glibc::rwlock(wait, words)? {
            Rwlock::Written(held) => owner(held, true)?,
            Rwlock::Read(readers) => Owner::Readers(readers),
        };
        return Some(Lock { kind: "rwlock", owner });
    }
    if is(naming::JOIN) || name.owner == naming::Owner::Unknown {
        let thread = glibc::joined(wait, words).and_then(|number| crowd.find(number));
        let by_musl =
            || musl::joined(wait, words).filter(|_| is(naming::JOIN)).and_then(|number| crowd.find(number));
        if let Some(tid) = thread.or_else(by_musl) {
            return Some(Lock { kind: "thread", owner: Owner::Thread(tid) });
        }
    }
    if let Some(held) = glibc::mutex(wait, words) {
        return mutex(owner(held, is(naming::MUTEX))?);
    }
    match musl::mutex(wait, words)? {
        musl::Mutex::Held(held) => mutex(owner(held, is(naming::MUTEX))?),
        musl::Mutex::Unrecorded => {
            is(naming::MUTEX).then_some(Lock { kind: "mutex", owner: Owner::Unrecorded })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever lies at a futex: no panic, and no owner who is not there unless the stack says that it is a mutex.
    #[test]
    fn hostile_words_make_no_owners_up() {
        let record = |tid| ThreadRecord {
            tid,
            namespace_tid: tid + 1000,
            comm: "t".to_owned(),
            ..ThreadRecord::default()
        };
        let records: Vec<_> = (1..50).map(record).collect();
        let crowd = ThreadTable::new(1, Some(&records));
        let names = [Name::of_operation(futex::WAIT), naming::MUTEX, naming::READ_LOCK, naming::JOIN];
        let operations = [futex::WAIT, futex::WAIT_BITSET, futex::LOCK_PI, futex::WAITV];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut found = 0;
        for _ in 0..200_000 {
            // Mostly words that could be meant.
            let mut word = || match next(8) {
                0 => 0,
                1 => next(4) as u32,
                2 => 1001 + next(60) as u32,
                3 => 0x8000_0000 | (1001 + next(60) as u32),
                4 => next(0x400) as u32,
                5 => 2,
                6 => 0,
                _ => next(1 << 32) as u32,
            };
            let (before, behind) = ([word(), word(), word(), word()], [(); 12].map(|()| word()));
            let words = Words::of(&before, &behind);
            let wait = futex::Wait {
                reason: operations[next(4) as usize],
                address: 0x1000,
                timed: false,
                expected: if next(2) == 0 { behind[0] } else { 2 },
                shared: next(2) == 0,
            };
            let name = names[next(4) as usize];
            let Some(lock) = lock(&wait, &words, name, &crowd) else { continue };
            found += 1;
            match lock.owner {
                Owner::Thread(tid) => assert!((1..50).contains(&tid)),
                Owner::Elsewhere(_) => {
                    assert!(name.kind != "futex" || wait.reason == futex::LOCK_PI, "{words:?}");
                }
                Owner::Unrecorded | Owner::Readers(_) => assert_ne!(name.kind, "futex"),
            }
        }
        assert!(found > 100, "{found} of these were locks by accident or design");
    }
}
