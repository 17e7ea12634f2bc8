//! What was found out about locks at one moment: which lock a thread waits for, who has it, how many wait.

use std::collections::HashMap;

use crate::sample::Holder;

/// What a thread was found to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::threads) struct Lock {
    pub(in crate::threads) kind: &'static str,
    pub(in crate::threads) owner: Owner,
}

/// Who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::threads) enum Owner {
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
pub(in crate::threads) struct Found {
    pub(in crate::threads) holders: HashMap<Owner, Holder>,
    /// Threads at each futex.
    pub(in crate::threads) waiters: HashMap<u64, u64>,
}
