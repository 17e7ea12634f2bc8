//! Threads that wait for each other.
//!
//! Plain data, as `sample` says.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::frame::{Frame, Place};
use super::wait::{ObjectKind, WaitReason};

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
    pub wait_reason: WaitReason,
    /// What it waits for: `mutex`, `rwlock`, `thread`.
    pub waits_for: ObjectKind,
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
