//! What a diagnosis is: the verdict with its evidence, as the JSON document has it.
//!
//! Plain data. Times are seconds, sizes are bytes; fields are added, never changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::memory::MemoryTrend;
use crate::sample::{
    AllocationSite, Allocations, Deadlock, Degraded, Group, GrowthSite, Losses, Mapped, Place, TargetInfo,
    Waits,
};

/// Version of the JSON document: fields are added, never changed.
pub const SCHEMA: &str = "observer.diagnosis/1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// At least one group grows and does not drain.
    Leak,
    /// Memory grows, and no group accounts for it.
    Growing,
    Stable,
    InsufficientData,
}

/// All that can be said of a target; what every renderer shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    pub target: TargetInfo,
    pub window_seconds: f64,
    pub samples: u64,
    pub verdict: Verdict,
    /// The verdict in one sentence, and what follows from it.
    pub sentence: String,
    pub second_sentence: String,
    /// The target ended while it was observed.
    pub exited: bool,
    /// Lives of the target before the one that is judged.
    pub restarts: u32,
    pub memory: MemoryTrend,
    pub culprits: Vec<Culprit>,
    /// The largest groups that are not to blame, and why not.
    pub not_the_cause: Vec<Bystander>,
    pub growth_sites: Vec<GrowthSite>,
    /// What the target's own allocator handed out and did not get back, where that is tracked: all of it, without
    /// sites, and by site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations: Option<Allocations>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocation_sites: Vec<AllocationSite>,
    /// Page faults and address space over the window.
    pub growth: Option<GrowthTotals>,
    /// Futex waits that ended in the window; absent without eBPF.
    pub waits: Option<Waits>,
    pub deadlocks: Vec<Deadlock>,
    /// What else a reader should know.
    pub notes: Vec<String>,
    pub losses: Losses,
    pub degraded: Vec<Degraded>,
}

/// What the target asked of the kernel for memory, over the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GrowthTotals {
    pub page_faults: u64,
    /// One fault of so many is sampled now; 0 without eBPF.
    #[serde(default)]
    pub sample_period: u64,
    /// Bytes first touched in the window, and of those what was given back since, by whatever call (as sampled).
    #[serde(default)]
    pub touched_bytes: u64,
    #[serde(default)]
    pub returned_bytes: u64,
    pub mapped: Mapped,
}

/// A group that leaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Culprit {
    pub group: Group,
    /// The innermost frame of the target's own code: the line to look at.
    pub site: Option<Place>,
    pub growth_per_second: f64,
    /// What each member keeps, its companions in `in_step` included.
    pub bytes_per_member: f64,
    /// One standard error of it.
    pub bytes_error: Option<f64>,
    /// The evidence that it rests on.
    pub bytes_source: String,
    pub stack_bytes_per_member: f64,
    pub heap_bytes_per_member: f64,
    /// Of the growth of memory in use, 0 to 1.
    pub share_of_growth: f64,
    /// 0 to 1.
    pub confidence: f64,
    /// Sentences with their numbers.
    pub evidence: Vec<String>,
    /// Groups that leak because this one does.
    pub in_step: Vec<Group>,
}

/// A group that is not to blame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bystander {
    pub group: Group,
    pub why: String,
}
