//! Who holds a lock of musl, from the words of the lock. Pure.
//!
//! A mutex holds `type lock waiters`; its futex is `lock`. Only the kinds that check their owner record it: in a plain
//! one the word says that it is taken, not by whom.

use super::glibc::{Held, MOST_TID, TID_MASK, WAITERS, is_tid};
use super::words::Words;
use crate::threads::futex::{self, Wait};

/// What a taken plain mutex holds: `EBUSY`.
const BUSY: u32 = 16;
const KIND_MASK: u32 = 0xf;
const SHARED: u32 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutex {
    Held(Held),
    /// It is one that does not record its owner.
    Unrecorded,
}

/// The mutex that `wait` is on.
pub(super) fn mutex(wait: &Wait, words: &Words) -> Option<Mutex> {
    let (kind, lock, waiters) = (words.at(-4)?, words.at(0)?, words.at(4)?);
    let shared = kind & SHARED != 0;
    let fits = wait.reason == futex::WAIT
        && lock == wait.expected
        && lock & WAITERS != 0
        && kind & !(KIND_MASK | SHARED) == 0
        && shared == wait.shared
        && (1..=MOST_TID).contains(&waiters);
    if !fits {
        return None;
    }
    let by = lock & TID_MASK;
    match kind & KIND_MASK {
        0 => (by == BUSY).then_some(Mutex::Unrecorded),
        // Recursive, error checking, and both as robust ones.
        1 | 2 | 4 | 5 | 6 => is_tid(by).then_some(Mutex::Held(Held { by, shared })),
        _ => None,
    }
}

/// The thread whose end `wait` is for: its id lies two words before its state. Only for waits that are joins.
pub(super) fn joined(wait: &Wait, words: &Words) -> Option<u32> {
    let (tid, state) = (words.at(-8)?, words.at(0)?);
    let fits = wait.reason == futex::WAIT && state == wait.expected && (1..=2).contains(&state);
    (fits && is_tid(tid)).then_some(tid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: u32, lock: u32, waiters: u32, expected: u32) -> Option<Mutex> {
        let wait =
            Wait { reason: futex::WAIT, address: 0x1004, timed: false, expected, shared: kind & SHARED != 0 };
        mutex(&wait, &Words::of(&[kind], &[lock, waiters]))
    }

    #[test]
    fn only_checked_mutexes_say_who_has_them() {
        let taken = WAITERS | 77;
        assert_eq!(of(0, WAITERS | BUSY, 1, WAITERS | BUSY), Some(Mutex::Unrecorded));
        for kind in [1, 2, 4, 5, 6, 0x81] {
            let held = Held { by: 77, shared: kind & SHARED != 0 };
            assert_eq!(of(kind, taken, 2, taken), Some(Mutex::Held(held)), "{kind}");
        }
        for (kind, lock, waiters, expected) in [
            (0, taken, 1, taken),
            (1, taken, 0, taken),
            (1, 77, 1, 77),
            (1, taken, 1, taken + 1),
            (1, WAITERS, 1, WAITERS),
            (0x10, taken, 1, taken),
            (3, taken, 1, taken),
            (8, taken, 1, taken),
            (1, u32::MAX, 1, u32::MAX),
            (1, taken, u32::MAX, taken),
        ] {
            assert_eq!(
                of(kind, lock, waiters, expected),
                None,
                "{kind:#x} {lock:#x} {waiters} {expected:#x}"
            );
        }
    }
}
