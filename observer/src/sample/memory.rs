//! The memory of a target: what it has, what grew, and what its allocator handed out.
//!
//! Plain data, as `sample` says.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::frame::Frame;
use super::group::{GroupId, GroupKind};
use super::names::names;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    pub resident_bytes: u64,
    /// Resident and swapped anonymous memory (RssAnon + VmSwap).
    pub anonymous_bytes: u64,
    /// The lowest memory limit of the target's cgroups, v1 or v2.
    pub limit_bytes: Option<u64>,
    /// What counts against `limit_bytes` now: the whole cgroup, without file pages that were not used lately.
    #[serde(default)]
    pub limit_usage_bytes: Option<u64>,
    /// Absent where the runtime has none of its own, or it cannot be read.
    #[serde(rename = "go")]
    pub heap: Option<HeapUsage>,
}

impl Memory {
    /// The heaps that runtimes keep, each with the kind of the members that it serves.
    pub fn heaps(&self) -> impl Iterator<Item = (GroupKind, &HeapUsage)> {
        self.heap.iter().map(|heap| (GroupKind::Goroutine, heap))
    }
}

/// What a runtime says of its heap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "GoMemory")]
pub struct HeapUsage {
    /// Spans in use (`MemStats.HeapInuse`).
    pub heap_in_use_bytes: u64,
    /// Objects in those spans, garbage not yet swept included (`MemStats.HeapAlloc`).
    pub heap_objects_bytes: u64,
    /// Spans of goroutine stacks (`MemStats.StackInuse`).
    pub stack_in_use_bytes: u64,
    /// Collections of garbage that the runtime has begun since it started, as its spans tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collections: Option<u64>,
}

/// Memory that became real, since observation began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Growth {
    /// Page faults of the target (counted, not sampled).
    pub page_faults: u64,
    /// One fault of so many is sampled.
    pub sample_period: u64,
    /// Bytes touched for the first time, and of those what was given back since: unmapped, or by `madvise`. As sampled.
    #[serde(default)]
    pub touched_bytes: u64,
    #[serde(default)]
    pub returned_bytes: u64,
    pub sites: Vec<GrowthSite>,
    pub mapped: Mapped,
}

/// Memory that is still there, by the stack that first touched it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GrowthSite {
    /// Innermost first, from the instruction that touched it outward.
    pub frames: Arc<[Frame]>,
    pub bytes: u64,
    /// By how much it grew in the latter half of the time observed, ten minutes at most, net of what went again.
    #[serde(default)]
    pub bytes_per_second: f64,
    /// `mmap`, `brk`, `mprotect` or `fault`.
    pub via: Via,
    /// There are more frames above: the stack is deeper than what was copied of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Allocations of the target's own allocator since they are tracked, estimated from samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Allocations {
    /// Which allocators: `libc.so.6`.
    pub allocators: Vec<String>,
    /// How their calls are seen: `uprobe session`.
    pub hook: String,
    /// One of so many bytes is sampled now, on average.
    pub sample_bytes: u64,
    /// Tracked for so long.
    pub since_seconds: f64,
    pub allocated_bytes: u64,
    /// Not freed yet.
    pub live_bytes: u64,
    /// Allocations that were sampled.
    pub samples: u64,
    /// Those of them that were freed.
    pub frees: u64,
    /// Those with the most live bytes first.
    pub sites: Vec<AllocationSite>,
}

/// A stack that allocated what is not freed yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AllocationSite {
    pub id: GroupId,
    /// From the caller of the allocator outward.
    pub frames: Arc<[Frame]>,
    pub live_bytes: u64,
    /// One standard error of `live_bytes`.
    pub error_bytes: u64,
    /// Samples that `live_bytes` rests on.
    pub live_samples: u64,
    /// Growth of the live bytes over the second half of the time.
    pub growth_bytes_per_second: f64,
    pub allocated_bytes: u64,
    pub samples: u64,
    pub frees: u64,
}

names! {
    /// How memory that was touched for the first time had been asked for.
    pub enum Via {
        Unknown,
        Mmap = "mmap",
        Brk = "brk",
        Mprotect = "mprotect",
        /// It lies in no mapping that anybody asked for: a stack, or data of the program.
        Fault = "fault",
    }
}

names! {
    /// How mapped bytes are counted.
    pub enum MappedSource {
        Unknown,
        /// Every call is traced.
        Exact = "exact",
        /// By the difference of the memory maps of two samples.
        Maps = "maps",
    }
}

names! {
    /// A call that maps or unmaps memory.
    pub enum MappedCall {
        Unknown,
        Mmap = "mmap",
        MmapReserve = "mmap_reserve",
        Munmap = "munmap",
        Mremap = "mremap",
        Brk = "brk",
        Mprotect = "mprotect",
        Madvise = "madvise",
    }
}

/// Bytes of address space that changed hands, by call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mapped {
    /// `exact` (every call traced) or `maps` (difference of the memory map between samples).
    pub source: MappedSource,
    pub mapped_bytes: BTreeMap<MappedCall, u64>,
    pub unmapped_bytes: BTreeMap<MappedCall, u64>,
}
