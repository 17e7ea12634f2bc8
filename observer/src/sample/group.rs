//! Members that wait at the same place, and what they wait for.
//!
//! Plain data, as `sample` says.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::frame::{Frame, Place};
use super::wait::{GroupState, HolderState, ObjectKind, WaitReason};

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
    pub state: GroupState,
    /// By its own name in the runtime (`chan send`), by what the stack shows (`mutex lock`), or the futex operation;
    /// empty where there is none.
    pub wait_reason: WaitReason,
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

impl Group {
    /// Why its members wait; where there is no reason, what they do.
    pub fn reason(&self) -> &str {
        if self.wait_reason.is_empty() { &self.state } else { &self.wait_reason }
    }
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

/// What the members of a group wait on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitsOn {
    /// `channel`, `mutex`, `rwmutex`, `cond`, `waitgroup`, `semaphore`, `futex`, ...
    pub kind: ObjectKind,
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
    pub state: HolderState,
    /// Members of the group that wait for it.
    pub waiters: u64,
    /// What it sleeps in: a wait reason (`mutex lock`) or a system call (`read`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_in: Option<WaitReason>,
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
