//! Who holds a lock of glibc, from the words of the lock. Pure.
//!
//! The layouts of x86-64 are part of glibc's ABI and the same in all its versions: `pthread_mutex_t` holds
//! `lock count owner nusers kind` (its futex is `lock`), `pthread_rwlock_t` holds `readers writers wrphase_futex
//! writers_futex pad pad cur_writer shared ... flags`. The word that a joiner waits on is the thread's own id.
//! Nothing says that the words at a futex are one of these: each rule asks for all that must hold in a lock that
//! somebody waits for, so that other words pass by no accident.

use super::words::Words;
use crate::threads::futex::{self, Wait};

/// The highest thread id that Linux gives.
pub(super) const MOST_TID: u32 = 1 << 22;
/// Of a word that the kernel knows the owner of.
pub(super) const TID_MASK: u32 = 0x3fff_ffff;
pub(super) const WAITERS: u32 = 0x8000_0000;

const RECURSIVE: u32 = 1;
const TYPE_MASK: u32 = 3;
const ROBUST: u32 = 0x10;
const INHERIT: u32 = 0x20;
const PROTECT: u32 = 0x40;
const SHARED: u32 = 0x80;
/// Also the bits that say whether the lock may be elided.
const KIND_MASK: u32 = 0x3ff;
/// A robust mutex whose owner died, taken by somebody who has not yet said that it is consistent.
const INCONSISTENT: u32 = 0x7fff_ffff;
/// The part of a priority-protected lock that is not its ceiling.
const BELOW_CEILING: u32 = 0x7_ffff;

/// A lock and the thread that has it, by the number it has in its own PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub by: u32,
    /// Threads of other processes may have it.
    pub shared: bool,
}

/// The owner of the mutex that `wait` is on, if there is one. Those that hand on priority have a rule of their own.
pub(super) fn mutex(wait: &Wait, words: &Words) -> Option<Held> {
    let [lock, count, owner, users, kind] = [0, 4, 8, 12, 16].map(|offset| words.at(offset));
    let (lock, count, owner, users, kind) = (lock?, count?, owner?, users?, kind?);
    let recursive = kind & TYPE_MASK == RECURSIVE;
    // Robust ones are marked as shared always.
    let shared = kind & SHARED != 0;
    if kind & !KIND_MASK != 0 || users == 0 || users > MOST_TID || wait.shared != shared {
        return None;
    }
    if kind & INHERIT != 0
        || !matches!(wait.reason, futex::WAIT | futex::WAIT_BITSET)
        || lock != wait.expected
    {
        return None;
    }
    let robust = kind & ROBUST != 0;
    let by = if robust { lock & TID_MASK } else { owner };
    let word_fits = match () {
        () if robust => lock & WAITERS != 0,
        () if kind & PROTECT != 0 => lock & BELOW_CEILING == 2,
        () => lock == 2,
    };
    let count_fits = match (recursive, robust) {
        (true, _) => count >= 1,
        (false, true) => count == 1,
        (false, false) => count == 0,
    };
    let owner_fits = owner == by || (robust && owner == INCONSISTENT);
    (word_fits && count_fits && owner_fits && is_tid(by)).then_some(Held { by, shared })
}

/// Who has a read-write lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rwlock {
    Written(Held),
    /// So many readers, who are nowhere recorded.
    Read(u32),
}

/// Who has the read-write lock that `wait` is on. Only for waits whose stack says that they are on one.
pub(super) fn rwlock(wait: &Wait, words: &Words) -> Option<Rwlock> {
    const WRITE_PHASE: u32 = 1;
    const WRITE_LOCKED: u32 = 2;
    const READER_SHIFT: u32 = 3;
    const FUTEX_USED: u32 = 2;
    if !matches!(wait.reason, futex::WAIT | futex::WAIT_BITSET) || wait.expected & FUTEX_USED == 0 {
        return None;
    }
    // The futex is one of two words of the lock.
    [8, 12].into_iter().find_map(|futex: i64| {
        let field = |offset: i64| words.at(offset - futex);
        let [readers, writer, shared, flags] = [field(0)?, field(24)?, field(28)?, field(48)?];
        let fits = words.at(0)? == wait.expected
            && field(16)? == 0
            && field(20)? == 0
            && shared == u32::from(wait.shared)
            && flags <= 2;
        if !fits {
            return None;
        }
        match readers & (WRITE_PHASE | WRITE_LOCKED) {
            both if both == WRITE_PHASE | WRITE_LOCKED => {
                is_tid(writer).then_some(Rwlock::Written(Held { by: writer, shared: shared == 1 }))
            }
            phase if phase & WRITE_PHASE == 0 && writer == 0 => Some(readers >> READER_SHIFT)
                .filter(|&readers| (1..=MOST_TID).contains(&readers))
                .map(Rwlock::Read),
            _ => None,
        }
    })
}

/// The thread whose end `wait` is for. Only for waits whose stack does not say that they are for something else.
pub(super) fn joined(wait: &Wait, words: &Words) -> Option<u32> {
    let word = words.at(0)?;
    let fits =
        matches!(wait.reason, futex::WAIT | futex::WAIT_BITSET) && wait.shared && word == wait.expected;
    (fits && is_tid(word)).then_some(word)
}

/// The owner of a lock that the kernel hands on by priority, whoever's it is: its word is an agreement with the kernel.
pub(super) fn priority_owner(wait: &Wait, words: &Words) -> Option<Held> {
    let word = words.at(0)?;
    let by = word & TID_MASK;
    (wait.reason == futex::LOCK_PI && word & WAITERS != 0 && is_tid(by))
        .then_some(Held { by, shared: wait.shared })
}

pub(super) fn is_tid(word: u32) -> bool {
    (1..=MOST_TID).contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u32 = 4242;

    fn wait(reason: &'static str, expected: u32, shared: bool) -> Wait {
        Wait { reason, address: 0x1000, timed: false, expected, shared }
    }

    fn owner(wait: &Wait, words: [u32; 5]) -> Option<u32> {
        mutex(wait, &Words::of(&[], &words)).map(|held| held.by)
    }

    /// As seen with glibc 2.36: lock, count, owner, users, kind.
    #[test]
    fn every_kind_of_mutex() {
        let word = WAITERS | A;
        for kind in [0, 2, 3, 0x100, 0x200, 0x203] {
            assert_eq!(owner(&wait(futex::WAIT, 2, false), [2, 0, A, 1, kind]), Some(A), "{kind:#x}");
            assert_eq!(owner(&wait(futex::WAIT_BITSET, 2, false), [2, 0, A, 1, kind]), Some(A), "{kind:#x}");
            assert_eq!(owner(&wait(futex::WAIT, 2, true), [2, 0, A, 1, kind | 0x80]), Some(A), "{kind:#x}");
        }
        assert_eq!(owner(&wait(futex::WAIT, 2, false), [2, 3, A, 1, 1]), Some(A), "recursive");
        assert_eq!(owner(&wait(futex::WAIT, word, true), [word, 1, A, 3, 0x90]), Some(A), "robust");
        assert_eq!(owner(&wait(futex::WAIT, word, true), [word, 2, A, 3, 0x91]), Some(A));
        let heir = [word, 1, 0x7fff_ffff, 3, 0x90];
        assert_eq!(owner(&wait(futex::WAIT, word, true), heir), Some(A), "whose owner died");
        let ceiling = 5 << 19 | 2;
        assert_eq!(owner(&wait(futex::WAIT, ceiling, false), [ceiling, 0, A, 1, 0x40]), Some(A), "protected");
        let inherit = Words::of(&[], &[word]);
        assert_eq!(
            priority_owner(&wait(futex::LOCK_PI, 0, false), &inherit),
            Some(Held { by: A, shared: false })
        );
        assert_eq!(priority_owner(&wait(futex::WAIT, word, false), &inherit), None);
        assert_eq!(priority_owner(&wait(futex::LOCK_PI, 0, false), &Words::of(&[], &[A])), None);
    }

    #[test]
    fn one_word_that_does_not_fit_is_enough() {
        let good = ([2, 0, A, 1, 0], wait(futex::WAIT, 2, false));
        assert_eq!(owner(&good.1, good.0), Some(A));
        let wrong = [
            (0, [0, 1, 3, 2 | WAITERS, u32::MAX]),
            (1, [1, 7, u32::MAX, u32::MAX, u32::MAX]),
            (2, [0, MOST_TID + 1, u32::MAX, 0x7fff_ffff, WAITERS | A]),
            (3, [0, MOST_TID + 1, u32::MAX, u32::MAX, u32::MAX]),
            (4, [1, 0x10, 0x20, 0x80, 0x400]),
        ];
        for (at, values) in wrong {
            for value in values {
                let mut words = good.0;
                words[at] = value;
                assert_eq!(owner(&good.1, words), None, "word {at} = {value:#x}");
            }
        }
        for other in [
            wait(futex::WAIT, 1, false),
            wait(futex::WAIT, 2, true),
            wait(futex::LOCK_PI, 2, false),
            wait(futex::WAITV, 2, false),
        ] {
            assert_eq!(owner(&other, good.0), None, "{other:?}");
        }
        assert_eq!(mutex(&good.1, &Words::of(&[], &[2, 0, A, 1])), None, "the last word is not mapped");
    }

    /// What the words are of waits that are no mutexes, as seen: a semaphore, conditions, barriers, Rust's mutex.
    #[test]
    fn no_other_wait_is_taken_for_a_mutex() {
        for words in [[0, 1, 0, 0, 0], [2, 0, 0, 0, 0], [2, 0, 77, 0, 0], [0, 2, 0, 2, 0], [1, 0, 0, 5, 0]] {
            for reason in [futex::WAIT, futex::WAIT_BITSET] {
                assert_eq!(owner(&wait(reason, words[0], false), words), None, "{words:?}");
            }
        }
    }

    #[test]
    fn a_rwlock_says_who_writes_and_how_many_read() {
        let lock = |readers: u32, writer: u32| [readers, 0, 3, 3, 0, 0, writer, 0, 0, 0, 0, 0, 0];
        let at = |futex: usize, words: &[u32; 13], expected| {
            rwlock(&wait(futex::WAIT_BITSET, expected, false), &Words::of(&words[..futex], &words[futex..]))
        };
        let written = Some(Rwlock::Written(Held { by: A, shared: false }));
        for futex in [2, 3] {
            assert_eq!(at(futex, &lock(3, A), 3), written);
            assert_eq!(at(futex, &lock(3 << 3 | 2, 0), 3), Some(Rwlock::Read(3)));
            assert_eq!(at(futex, &lock(3, 0), 3), None);
            assert_eq!(at(futex, &lock(1, A), 3), None, "in between");
            assert_eq!(at(futex, &lock(3, A), 1), None);
            assert_eq!(at(futex, &lock(2, 0), 3), None, "no reader");
        }
    }

    #[test]
    fn a_join_waits_on_the_id_of_a_thread() {
        assert_eq!(joined(&wait(futex::WAIT_BITSET, A, true), &Words::of(&[], &[A])), Some(A));
        assert_eq!(joined(&wait(futex::WAIT_BITSET, A, false), &Words::of(&[], &[A])), None);
        assert_eq!(joined(&wait(futex::WAIT_BITSET, A, true), &Words::of(&[], &[0])), None);
        assert_eq!(joined(&wait(futex::WAIT_BITSET, 0, true), &Words::of(&[], &[0])), None);
    }
}
