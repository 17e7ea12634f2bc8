//! What a language runtime inside a process tells, whichever it is: the interface that each folder here implements.
//!
//! Only types; nothing is read. Whoever adds a runtime writes a folder with an `open` of type [`Open`] and a line in the
//! table of `runtime.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::process::code::RuntimeCode;
use crate::sample::{self, Deadlock, Degraded, Group, GroupId, GroupKind, HeapUsage, Losses, Retained};
use crate::symbol::Symbolizer;

/// Looks for a runtime in the process `pid` of observer's PID namespace. `None`: it is not there.
pub type Open = fn(u32) -> Result<Option<Box<dyn Runtime>>, Box<Refused>>;

/// One language runtime inside a process image.
pub trait Runtime: Send {
    fn info(&self) -> sample::Runtime;

    /// What its tasks are.
    fn kind(&self) -> GroupKind;

    /// All tasks now, in groups. `at_seconds` is the reader's clock, which ages waits.
    fn tasks(&mut self, at_seconds: f64) -> Result<Tasks, RuntimeError>;

    /// Its heap and stacks, where it keeps books of its own.
    fn heap(&mut self) -> Result<Option<HeapUsage>, RuntimeError> {
        Ok(None)
    }

    /// What the members of groups of the last sample alone keep reachable; nothing of a group that could not be
    /// followed within `time`, or where the heap cannot be.
    fn retained(&mut self, _groups: &[GroupId], _time: Duration) -> BTreeMap<GroupId, Retained> {
        BTreeMap::new()
    }

    /// Names its code in stacks that others walked.
    fn symbolizer(&self) -> Option<Box<dyn Symbolizer>> {
        None
    }

    /// Where its code lies, and what that means to whoever walks native stacks.
    fn code(&self) -> RuntimeCode {
        RuntimeCode::default()
    }
}

/// The tasks of one runtime at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    /// Largest first, at most some thousands.
    pub groups: Vec<Group>,
    /// All tasks, also those of no group, without the runtime's own.
    pub alive: u64,
    /// Groups, also those that are not in `groups`, and the members of those.
    pub groups_total: u64,
    pub members_left_out: u64,
    /// Cycles of tasks that wait for each other, where the runtime knows who holds what; else none.
    pub deadlocks: Vec<Deadlock>,
    pub losses: Losses,
    pub degraded: Vec<Degraded>,
}

/// Why a runtime that was found gave nothing.
#[derive(Clone, Debug)]
pub enum RuntimeError {
    /// The process has exited, or runs another program.
    Exited,
    Unreadable(Degraded),
}

/// A runtime that is there and cannot be read.
#[derive(Clone, Debug)]
pub struct Refused {
    /// As far as it is known.
    pub info: Option<sample::Runtime>,
    pub degraded: Degraded,
    pub code: RuntimeCode,
}
