//! One moment of one target: what collectors make, what `diagnose` reads, what recordings keep.
//!
//! Plain data. Times are seconds, sizes are bytes. Field names are those of the JSON interface.

pub mod group_id;
pub mod origin;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was lost or left out since the last sample, by name: `torn_reads`, `ring_full`, `stacks_truncated`, ...
pub type Losses = BTreeMap<String, u64>;

/// Counts what was lost, unless it is nothing.
pub fn lose(losses: &mut Losses, name: &str, lost: u64) {
    if lost > 0 {
        *losses.entry(name.to_owned()).or_default() += lost;
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

/// Who is observed. Does not change while one process image lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetInfo {
    /// Process id (tgid) in observer's own PID namespace.
    pub pid: u32,
    /// Process id in the target's innermost PID namespace, where that differs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace_pid: Option<u32>,
    pub comm: String,
    pub exe: String,
    pub runtime: Runtime,
    /// RFC 3339.
    pub started_at: String,
    /// Absent outside of containers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Container>,
}

/// Where a process runs, as far as it can be told from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Container {
    /// What its runtime names it by: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Runtime {
    /// `go`, `java`, `python`, `node`, `ruby`, `dotnet`, `rust`, `c++`; `native` where none of them is known.
    pub name: String,
    /// As the runtime writes it: `go1.27.3`, `17.0.15`; of Rust the compiler's.
    pub version: Option<String>,
    /// No symbol table.
    #[serde(default)]
    pub stripped: bool,
}

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
    pub go: Option<GoMemory>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoMemory {
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Every live goroutine, also those in no group of the sample.
    pub goroutines: Option<u64>,
    pub threads: u64,
    /// Distinct groups before the sample was bounded.
    pub groups: u64,
    /// Members of the groups that were left out.
    pub members_left_out: u64,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    #[default]
    Goroutine,
    Thread,
}

/// Identifies a group over samples and observer's restarts: a hash of kind, wait reason and symbolized stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

impl Serialize for GroupId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl JsonSchema for GroupId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GroupId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9a-f]{16}$",
            "description": "Identifies a group over samples and observer's restarts."
        })
    }
}

impl<'de> Deserialize<'de> for GroupId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Goroutines or threads with the same stack, state, wait reason and creator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    pub id: GroupId,
    pub kind: GroupKind,
    /// `waiting`, `syscall`, `runnable`, `running`, `preempted`, `leaked` for goroutines; `sleeping`, ... for threads.
    pub state: String,
    /// By its own name in the runtime (`chan send`), by what the stack shows (`mutex lock`), or the futex operation;
    /// empty where there is none.
    pub wait_reason: String,
    pub count: u64,
    /// Members that came since the last sample. In a first sample: 0.
    #[serde(default)]
    pub joined: u64,
    /// Members that were in this group at the last sample and no longer are.
    #[serde(default)]
    pub left: u64,
    /// Of those that left, how many ended altogether (the goroutine or thread is gone); the rest went to another
    /// group. Absent where the source does not tell: then every one that left counts as ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Members that stayed but ran in between (a worker that took a job and waits again).
    #[serde(default)]
    pub moved: u64,
    /// The longest wait of a member: the runtime's own clock where it has one, else since observer first saw it wait.
    pub oldest_wait_seconds: Option<f64>,
    /// Memory that the members were the first to touch since observation began and that is still there, their stacks
    /// included: an estimate from sampled page faults. For threads; absent without eBPF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched_bytes: Option<u64>,
    /// Names of the members, most frequent first and a few of them; for threads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thread_names: Vec<ThreadName>,
    /// Stacks of all members.
    pub stack_bytes: u64,
    /// Memory that only the members keep reachable, all members together; absent where nothing measured it.
    pub retained_bytes: Option<u64>,
    /// How `retained_bytes` came about.
    #[serde(default)]
    pub retained: Option<Retained>,
    /// Innermost first.
    pub frames: Arc<[Frame]>,
    /// Why the stack of a member is not known to be whole; absent where it reaches the thread's first frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_end: Option<StackEnd>,
    pub created_by: Option<Place>,
    pub waits_on: Option<WaitsOn>,
}

/// What a stack lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StackEnd {
    /// It has more frames than are kept; those shown are right.
    Truncated,
    /// Code that tells nothing about its frames was crossed by frame pointers: some may be missing there.
    Gap,
    /// What calls the last frame is not known.
    Unknown,
}

/// A name that threads of a group have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadName {
    /// As the kernel keeps it, 15 bytes at most; a number that is not the same in all is `#`: `pool-1-thread-#`.
    pub name: String,
    pub count: u64,
}

/// The heap that members of a group keep, estimated from some of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Retained {
    /// Members whose reachable objects were followed.
    pub sampled_members: u64,
    /// Mean heap bytes a member reaches that no global, no other group and no other sampled member reaches.
    pub exclusive_bytes_per_member: f64,
    /// Mean heap bytes only this member reaches, though something global reaches them too.
    pub also_global_bytes_per_member: f64,
    /// Standard error of the mean of `exclusive_bytes_per_member`.
    pub standard_error_bytes: f64,
    /// Members whose walk hit a bound: the true figure is larger.
    pub truncated_members: u64,
    /// Heap bytes that all members together keep and nothing else does, what they share included; absent where
    /// the whole heap could not be followed.
    #[serde(default)]
    pub group_bytes: Option<u64>,
    /// Heap bytes that this group keeps together with others of the groups measured, and nothing else does.
    #[serde(default)]
    pub shared_with_groups_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Fully qualified (`checkout.(*Quoter).fetch`); empty where it is unknown: then `module` and `address` say what is known.
    pub function: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// The file the code lies in: `libfoo.so`.
    pub module: Option<String>,
    /// Of that file, in hexadecimal, where no function is known: with `address` it says which code this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// File-relative address (as `nm` prints) inside `module`, or the plain address without one.
    pub address: u64,
    /// Compiled into the next frame.
    pub inlined: bool,
    /// On the stack no longer: the next frame called it, and it ended by jumping to what the frame before shows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tail_call: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    pub function: String,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// What the members of a group wait on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitsOn {
    /// `channel`, `mutex`, `rwmutex`, `cond`, `waitgroup`, `semaphore`, `futex`, ...
    pub kind: String,
    /// Different objects that the members wait on.
    pub objects: u64,
    /// `*checkout.quote`.
    pub element_type: Option<String>,
    /// Of the channel, when all have the same.
    pub capacity: Option<u64>,
    /// Who holds it, where that can be known.
    pub owner: Option<String>,
    /// The address, when there is only one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// What else is known, in words: `one sender each, no receiver`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The futex operation of threads: `futex wait`, `futex lock pi`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Threads, of this group and others, that wait on the one object that most wait on; absent where none is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_waiters: Option<u64>,
    /// The threads that hold what the members wait for, most waited for first; a few of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
}

/// A thread that holds what others wait for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// In observer's PID namespace; for `elsewhere`, as the target numbers it.
    pub tid: u32,
    pub name: String,
    /// `running`, `sleeping`, `stopped`, `ended` (still known to the kernel) or `elsewhere` (no thread of the target).
    pub state: String,
    /// Members of the group that wait for it.
    pub waiters: u64,
    /// What it sleeps in: a wait reason (`mutex lock`) or a system call (`read`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_in: Option<String>,
    /// The thread that it waits for in its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<u32>,
    /// The process it belongs to, where that is another one and could be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// Its own stack, innermost first; empty where it cannot be read. Of a running thread: where it lately was.
    #[serde(default)]
    pub frames: Arc<[Frame]>,
}

/// Threads that wait for each other in a circle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deadlock {
    /// All of it in a sentence.
    pub description: String,
    /// Those in the circle, each waiting for the next and the last for the first; of a very long one the first few.
    #[serde(default)]
    pub threads: Vec<DeadlockedThread>,
    /// Threads in the circle.
    #[serde(default)]
    pub length: u64,
    /// Threads that are not in the circle and wait for one that is, directly or through others.
    #[serde(default)]
    pub also_waiting: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadlockedThread {
    /// In observer's PID namespace.
    pub tid: u32,
    /// In the target's, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_tid: Option<u32>,
    pub name: String,
    pub wait_reason: String,
    /// What it waits for: `mutex`, `rwlock`, `thread`.
    pub waits_for: String,
    /// Where that lies in memory.
    pub address: u64,
    /// The thread that has it: the next of the circle.
    pub held_by: u32,
    /// Since observer first saw it wait.
    pub wait_seconds: f64,
    /// The innermost frame of the target's own code.
    #[serde(default)]
    pub site: Option<Place>,
    /// Innermost first.
    pub frames: Arc<[Frame]>,
}

/// Futex waits of the target that ended, since observation began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waits {
    pub ended: u64,
    /// `[i]` counts waits of 2^i to 2^(i+1) microseconds (`[0]` also shorter ones).
    pub log2_microseconds: Vec<u64>,
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
    pub via: String,
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

/// Bytes of address space that changed hands, by call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mapped {
    /// `exact` (every call traced) or `maps` (difference of the memory map between samples).
    pub source: String,
    pub mapped_bytes: BTreeMap<String, u64>,
    pub unmapped_bytes: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Degraded {
    /// `ebpf`, `growth`, `goroutines`, `symbols`, ...
    pub feature: String,
    pub reason: String,
    pub remedy: String,
}
