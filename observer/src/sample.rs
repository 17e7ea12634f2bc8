//! One moment of one target: what collectors make, what `diagnose` reads, what recordings keep.
//!
//! Plain data. Times are seconds, sizes are bytes. Field names are those of the JSON interface.

mod deadlock;
mod frame;
mod group;
pub(crate) mod group_id;
mod memory;
mod names;
mod target;
mod wait;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use deadlock::{Deadlock, DeadlockedThread};
pub use frame::{Frame, Place};
pub use group::{Group, GroupId, GroupKind, Holder, Retained, StackEnd, ThreadName, WaitsOn};
pub use memory::{
    AllocationSite, Allocations, Growth, GrowthSite, HeapUsage, Mapped, MappedCall, MappedSource, Memory, Via,
};
pub use target::{Container, Runtime, TargetInfo};
pub use wait::{GroupState, HolderState, ObjectKind, WaitReason};

/// What was lost or left out since the last sample, by name: `torn_reads`, `ring_full`, `stacks_truncated`, ...
pub type Losses = BTreeMap<String, u64>;

/// Counts what was lost, unless it is nothing.
pub fn lose(losses: &mut Losses, name: &str, lost: u64) {
    if lost > 0 {
        *losses.entry(name.to_owned()).or_default() += lost;
    }
}

/// Counts what others have counted.
pub fn lose_all(losses: &mut Losses, more: Losses) {
    for (name, lost) in more {
        *losses.entry(name).or_default() += lost;
    }
}

impl Totals {
    /// The members that a runtime keeps on its threads, by kind.
    pub fn tasks(&self) -> impl Iterator<Item = (GroupKind, u64)> {
        self.tasks.iter().map(|tasks| (GroupKind::Goroutine, *tasks))
    }
}

/// One moment of one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Seconds since observation of this target began, on the monotonic clock.
    pub at_seconds: f64,
    /// How long taking it took.
    pub took_seconds: f64,
    /// Which life of the target this is: 0, and one more after each exec or restart.
    pub generation: u32,
    pub memory: Memory,
    /// The blocked (and other) groups, at most a few thousand; the smallest beyond that are only counted in `totals`.
    pub groups: Vec<Group>,
    pub totals: Totals,
    /// Futex waits that ended since the last sample; absent without eBPF.
    pub waits: Option<Waits>,
    /// Memory that grew, by the stack that first touched it; absent without eBPF.
    pub growth: Option<Growth>,
    /// What the target's own allocator handed out and did not get back; absent where that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations: Option<Allocations>,
    /// Circles of threads that wait for each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deadlocks: Vec<Deadlock>,
    pub losses: Losses,
    /// What does not work here, and what it costs the reader.
    pub degraded: Vec<Degraded>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Every live goroutine, also those in no group of the sample.
    #[serde(rename = "goroutines")]
    pub tasks: Option<u64>,
    pub threads: u64,
    /// Distinct groups before the sample was bounded.
    pub groups: u64,
    /// Members of the groups that were left out.
    pub members_left_out: u64,
}

/// Futex waits of the target that ended, since observation began. Where there are many, or the machine switches between
/// threads often, an estimate from a part of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waits {
    pub ended: u64,
    /// `[i]` counts waits of 2^i to 2^(i+1) microseconds (`[0]` also shorter ones).
    pub log2_microseconds: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Degraded {
    /// `ebpf`, `growth`, `goroutines`, `symbols`, ...
    pub feature: String,
    pub reason: String,
    pub remedy: String,
}
