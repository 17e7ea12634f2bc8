//! Reports: one diagnosis or one snapshot, written for a person or a tool.
//!
//! Renderers take data and give a string; none reads a clock, a file or the environment. Whatever came from the
//! target (names, paths, reasons) goes through [`escape`] before a terminal sees it.

mod allocated;
pub mod folded;
pub mod html;
pub mod json;
pub(crate) mod names;
pub mod pprof;
pub mod svg;
pub mod text;

use schemars::JsonSchema;
use serde::Serialize;

use crate::sample::{Group, Losses, Memory, Sample, TargetInfo};

/// Version of the JSON document: fields are added, never changed.
pub const SNAPSHOT_SCHEMA: &str = "observer.snapshot/1";

/// How to write on the page: decided once by the command, from where the output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Only on a terminal; never the only sign of anything.
    pub color: bool,
    /// Columns to wrap at.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { color: false, width: 110 }
    }
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn alarm(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub fn warning(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    pub fn good(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    pub fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// One moment of one target, as `observer snapshot` prints it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Snapshot {
    #[schemars(extend("const" = SNAPSHOT_SCHEMA))]
    pub schema: &'static str,
    /// RFC 3339.
    pub taken_at: String,
    pub took_seconds: f64,
    pub target: TargetInfo,
    pub memory: Memory,
    /// Largest first.
    pub groups: Vec<Group>,
    pub totals: crate::sample::Totals,
    /// Circles of threads that wait for each other.
    pub deadlocks: Vec<crate::sample::Deadlock>,
    /// What grew while it was watched; absent where nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<crate::sample::Growth>,
    pub losses: Losses,
    pub degraded: Vec<crate::sample::Degraded>,
}

impl Snapshot {
    pub fn new(target: TargetInfo, sample: Sample, taken_at: String) -> Self {
        let Sample { took_seconds, memory, mut groups, totals, deadlocks, losses, degraded, growth, .. } =
            sample;
        // Of a moment there is no growth, only that it was not sampled.
        let growth = growth.filter(|growth| growth.sample_period > 0);
        for group in &mut groups {
            if let (None, Some(retained)) = (group.retained_bytes, &group.retained) {
                // Saturating: a float out of range casts to the nearest number.
                group.retained_bytes =
                    Some((retained.exclusive_bytes_per_member * group.count as f64) as u64);
            }
        }
        groups.sort_by(|a, b| b.count.cmp(&a.count).then(a.id.cmp(&b.id)));
        Self {
            schema: SNAPSHOT_SCHEMA,
            taken_at,
            took_seconds,
            target,
            memory,
            groups,
            totals,
            deadlocks,
            growth,
            losses,
            degraded,
        }
    }
}
