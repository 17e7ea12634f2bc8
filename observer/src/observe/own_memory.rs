//! Whether observer itself has memory enough: a container's limit counts the maps and rings of its eBPF object too, and
//! one that is too small shows only as a map that cannot be made, or as a process that is killed.

use crate::format::bytes;
use crate::memory::usage::cgroup::{Limit, Limits};
use crate::sample::Degraded;

/// What it takes with one ordinary target; see "Memory of a sidecar" in ARCHITECTURE.md.
pub(crate) const LEAST: u64 = 48 << 20;
/// What is advised, with room for large targets and for several.
pub(crate) const ADVISED: u64 = 128 << 20;

/// The limit that observer is under; `None` without one.
pub(crate) fn limit() -> Option<Limit> {
    Limits::of(std::process::id()).lowest()
}

/// What there is to say about the limit, if anything.
pub(crate) fn tight(limit: Option<Limit>) -> Option<Degraded> {
    let limit = limit.filter(|limit| limit.bytes < LEAST)?;
    Some(Degraded {
        feature: "memory_limit".to_owned(),
        reason: format!(
            "observer itself may use {}, its eBPF maps included, and needs at least {}: it may be killed",
            bytes(limit.bytes as f64),
            bytes(LEAST as f64)
        ),
        remedy: format!("raise its limit (resources.limits.memory, MemoryMax) to {}", bytes(ADVISED as f64)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_limit_is_spoken_of() {
        let of = |bytes| tight(Some(Limit { bytes, usage_bytes: None }));
        assert_eq!(tight(None), None);
        assert_eq!(of(LEAST), None);
        let told = of(16 << 20).unwrap();
        assert!(
            told.reason.contains("may use 16 MiB") || told.reason.contains("may use 16.0 MiB"),
            "{told:?}"
        );
        assert!(told.remedy.contains("limits.memory") && told.remedy.contains("128 MiB"), "{told:?}");
    }
}
