//! Who holds the locks that threads wait for, and who waits in a circle.
//!
//! Reads the words at the futexes of threads that sleep there, of those whose wait may be one for a lock; what the
//! owner of each lock does, and its stack. Gives each sleeper its [`Lock`], the [`Holder`]s by thread, and deadlocks.
//! A wait that is seen to be for no lock is not looked at again. Less than a microsecond a waiter, some 20 µs a holder
//! that is not itself a known sleeper, and 5 ms once where a circle is seen for the first time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::naming::{self, Name};
use super::tracked::{Sleeper, Tracked};
use super::unwind::{End, Registers};
use super::{ThreadReader, ThreadSample, Visit, count, futex, procfs};
use crate::kernel::census::ThreadRecord;
use crate::sample::{Deadlock, DeadlockedThread, Degraded, Frame, GroupId, Holder};
use crate::symbol;
use crate::target::memory::RemoteMemory;

mod cycles;
mod glibc;
mod musl;
mod owners;
mod words;

use cycles::Circle;
use glibc::{Held, Rwlock};
use owners::{Crowd, Person, State};
use words::Words;

/// Futexes looked at in one sample.
const MAX_FUTEXES: usize = 1 << 14;
/// Owners told of in one sample, those that most wait for.
const MAX_HOLDERS: usize = 256;
/// Deadlocks told in one sample.
const MAX_DEADLOCKS: usize = 16;
/// Threads of one circle that are told with their stacks.
const MAX_TOLD: usize = 32;
/// Circles of more threads are not followed.
const MAX_CIRCLE: usize = 4096;
/// Between two looks at a circle.
const SECOND_LOOK: Duration = Duration::from_millis(5);

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
    stacks: HashMap<u32, (Person, Arc<[Frame]>)>,
}

/// One thread of a circle, in one wait.
type Link = (u32, u64, u64, u64);

fn link(tid: u32, now: &Tracked) -> Link {
    (tid, now.started, now.voluntary_switches, now.wait.address)
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
        count(&mut sample.losses, "futexes_left_out", addresses.len().saturating_sub(MAX_FUTEXES) as u64);
        addresses.truncate(MAX_FUTEXES);
        let memory = RemoteMemory::new(self.pid);
        let words = match words::read(memory, &addresses) {
            Ok(words) => words,
            Err(error) => {
                sample.degraded.extend(unreadable(self.pid, &error));
                return found;
            }
        };
        let crowd = Crowd::new(self.pid, census);
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

    /// What is to be told of each owner.
    fn holders(
        &mut self,
        sleepers: &[Sleeper],
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &Crowd<'_>,
    ) -> HashMap<Owner, Holder> {
        let mut waiters: HashMap<Owner, u64> = HashMap::new();
        for lock in sleepers.iter().filter_map(|sleeper| sleeper.lock) {
            *waiters.entry(lock.owner).or_default() += 1;
        }
        let mut owners: Vec<(Owner, u64)> = waiters.into_iter().collect();
        owners.sort_unstable_by_key(|&(owner, waiters)| (std::cmp::Reverse(waiters), owner));
        let mut stacks = HashMap::new();
        let mut mapped = false;
        let mut holders = HashMap::new();
        for (owner, _) in owners.into_iter().take(MAX_HOLDERS) {
            let holder = match owner {
                Owner::Thread(tid) => match sleeping.get(&tid) {
                    Some(sleeper) => self.sleeping_holder(sleeper, crowd),
                    None => {
                        let Some(person) = crowd.person(tid) else { continue };
                        let frames = self.stack_of(tid, &person, &mut mapped);
                        stacks.insert(tid, (person.clone(), Arc::clone(&frames)));
                        other_holder(tid, person, frames)
                    }
                },
                Owner::Elsewhere(number) => {
                    let known = crowd.shares_numbers().then(|| owners::anywhere(number)).flatten();
                    let (process, name) = known.unzip();
                    Holder {
                        tid: number,
                        name: name.unwrap_or_default(),
                        state: "elsewhere".to_owned(),
                        process,
                        ..Holder::default()
                    }
                }
                Owner::Unrecorded | Owner::Readers(_) => continue,
            };
            holders.insert(owner, holder);
        }
        self.remembered.stacks = stacks;
        holders
    }

    fn sleeping_holder(&self, sleeper: &Sleeper, crowd: &Crowd<'_>) -> Holder {
        Holder {
            tid: sleeper.tid,
            name: crowd.name(sleeper.tid),
            state: "sleeping".to_owned(),
            waits_in: Some(self.name(&sleeper.now).reason.to_owned()),
            waits_for: sleeper.lock.and_then(|lock| match lock.owner {
                Owner::Thread(tid) => Some(tid),
                _ => None,
            }),
            frames: self.places.get(&sleeper.now.group).cloned().unwrap_or_default(),
            ..Holder::default()
        }
    }

    /// The stack of an owner that is in no group: asleep elsewhere, or running.
    fn stack_of(&mut self, tid: u32, person: &Person, mapped: &mut bool) -> Arc<[Frame]> {
        if let Some((before, frames)) = self.remembered.stacks.get(&tid)
            && before == person
            && person.state != State::Running
        {
            return Arc::clone(frames);
        }
        let Some(registers) = person.registers.filter(|_| person.state != State::Ended) else {
            return Arc::default();
        };
        if !std::mem::replace(mapped, true) {
            self.remap();
        }
        let Registers { ip, sp, bp } = registers;
        let mut stack = self.unwinder.unwind(&registers);
        let stays = procfs::still_there(self.pid, &Visit { tid, ip, sp, bp, ..Visit::default() });
        if person.state == State::Running && (stack.end != End::Root || stack.guessed) {
            // It was there when it last entered the kernel; what lies on its stack has changed since.
            stack.addresses.truncate(1);
        } else if person.state != State::Running && !stays {
            return Arc::default();
        }
        symbol::stacks(&mut *self.symbolizer, &[&stack.addresses]).pop().unwrap_or_default()
    }

    /// Threads that wait in a circle, each seen twice in the same wait.
    fn deadlocks(
        &mut self,
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &Crowd<'_>,
        memory: RemoteMemory,
        at: f64,
        sample: &mut ThreadSample,
    ) -> Vec<Deadlock> {
        // Who has set itself a time goes on when it is over.
        let waits_for: BTreeMap<u32, u32> = sleeping
            .values()
            .filter(|sleeper| !sleeper.now.wait.timed)
            .filter_map(|sleeper| match sleeper.lock?.owner {
                Owner::Thread(owner) => Some((sleeper.tid, owner)),
                _ => None,
            })
            .collect();
        let mut circles = cycles::find(&waits_for);
        let seen = circles.len();
        circles.retain(|circle| circle.threads.len() <= MAX_CIRCLE);
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.threads.len() as u64 + circle.behind));
        circles.truncate(MAX_DEADLOCKS);
        count(&mut sample.losses, "deadlocks_left_out", (seen - circles.len()) as u64);
        let links = |circle: &Circle| -> Vec<Link> {
            let waits = circle.threads.iter().filter_map(|tid| sleeping.get(tid));
            waits.map(|sleeper| link(sleeper.tid, &sleeper.now)).collect()
        };
        let known = |circle: &Circle| self.remembered.confirmed.contains(&links(circle));
        if circles.iter().any(|circle| !known(circle)) {
            thread::sleep(SECOND_LOOK);
            circles.retain(|circle| known(circle) || self.still_waits(circle, sleeping, crowd, memory));
        }
        let told = circles.iter().map(|circle| self.tell(circle, sleeping, crowd, at)).collect();
        self.remembered.confirmed = circles.iter().map(links).collect();
        told
    }

    /// Whether all threads of a circle still are in the same waits for the same owners, and did not run meanwhile.
    fn still_waits(
        &self,
        circle: &Circle,
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &Crowd<'_>,
        memory: RemoteMemory,
    ) -> bool {
        let sleepers: Vec<&Sleeper> =
            circle.threads.iter().filter_map(|tid| sleeping.get(tid).copied()).collect();
        let addresses: Vec<u64> = sleepers.iter().map(|sleeper| sleeper.now.wait.address).collect();
        let Ok(words) = words::read(memory, &addresses) else { return false };
        sleepers.len() == circle.threads.len()
            && sleepers.iter().all(|sleeper| {
                let now = &sleeper.now;
                let again = words
                    .get(&now.wait.address)
                    .and_then(|words| lock(&now.wait, words, self.name(now), crowd));
                again == sleeper.lock && sleeps_on(self.pid, sleeper.tid, now)
            })
    }

    fn tell(
        &self,
        circle: &Circle,
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &Crowd<'_>,
        at: f64,
    ) -> Deadlock {
        let next = circle.threads.iter().cycle().skip(1);
        let threads = circle.threads.iter().zip(next).take(MAX_TOLD).filter_map(|(&tid, &held_by)| {
            let sleeper = sleeping.get(&tid)?;
            let number = crowd.number(tid);
            Some(DeadlockedThread {
                tid,
                namespace_tid: (number != tid).then_some(number),
                name: crowd.name(tid),
                wait_reason: self.name(&sleeper.now).reason.to_owned(),
                waits_for: sleeper.lock.map_or("", |lock| lock.kind).to_owned(),
                address: sleeper.now.wait.address,
                held_by,
                wait_seconds: (at - sleeper.now.first_seen).max(0.0),
                site: None,
                frames: self.places.get(&sleeper.now.group).cloned().unwrap_or_default(),
            })
        });
        Deadlock {
            description: String::new(),
            threads: threads.collect(),
            length: circle.threads.len() as u64,
            also_waiting: circle.behind,
        }
    }
}

fn is_one_word(operation: &str) -> bool {
    matches!(operation, futex::WAIT | futex::WAIT_BITSET | futex::LOCK_PI)
}

/// Whether a thread has not run since it was visited.
fn sleeps_on(pid: u32, tid: u32, before: &Tracked) -> bool {
    procfs::look(pid, tid).is_some_and(|now| {
        now.voluntary_switches == before.voluntary_switches
            && now.call.is_some_and(|call| (call.sp, call.ip) == (before.sp, before.ip))
    })
}

/// The lock that a wait is for, by its words, and by its name where words alone do not prove it.
fn lock(wait: &futex::Wait, words: &Words, name: Name, crowd: &Crowd<'_>) -> Option<Lock> {
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

fn other_holder(tid: u32, person: Person, frames: Arc<[Frame]>) -> Holder {
    let state = match person.state {
        State::Running => "running",
        State::Sleeping => "sleeping",
        State::Stopped => "stopped",
        State::Ended => "ended",
    };
    Holder { tid, name: person.name, state: state.to_owned(), frames, ..Holder::default() }
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
        let crowd = Crowd::new(1, Some(&records));
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
                    assert!(name.kind != "futex" || wait.reason == futex::LOCK_PI, "{words:?}")
                }
                Owner::Unrecorded | Owner::Readers(_) => assert_ne!(name.kind, "futex"),
            }
        }
        assert!(found > 100, "{found} of these were locks by accident or design");
    }
}
