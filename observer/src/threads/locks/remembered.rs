//! What is remembered of locks from one sample to the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::owners::ThreadId;
use crate::sample::Frame;

/// One thread of a cycle, in one wait.
pub(super) type Link = (u32, u64, u64, u64);

/// What is remembered from one sample to the next.
#[derive(Debug, Default)]
pub(in crate::threads) struct Remembered {
    /// Cycles that a second look confirmed.
    pub(super) confirmed: HashSet<Vec<Link>>,
    pub(super) stacks: HashMap<u32, (ThreadId, Arc<[Frame]>)>,
}
