//! Which lock a wait is for: by the words at its futex, and by the wait's name where words alone do not prove it.
//!
//! Pure; the words are the target's and may be anything.

use super::found::{Lock, Owner};
use super::glibc::{self, Held, Rwlock};
use super::musl;
use super::owners::{self, ThreadTable};
use super::words::Words;
use crate::threads::futex;
use crate::threads::naming::{self, Name};

pub(super) fn is_one_word(operation: &str) -> bool {
    matches!(operation, futex::WAIT | futex::WAIT_BITSET | futex::LOCK_PI)
}

/// The lock that a wait is for, by its words, and by its name where words alone do not prove it.
pub(super) fn lock(wait: &futex::Wait, words: &Words, name: Name, crowd: &ThreadTable<'_>) -> Option<Lock> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::census::ThreadRecord;

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
