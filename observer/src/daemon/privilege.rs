//! Gives away what is not needed once everything is attached.
//!
//! Of the capabilities that observer was started with, it keeps those that reading processes takes. Capabilities
//! belong to a thread and are inherited: this is to be called before there are others.

use caps::{CapSet, Capability, CapsHashSet};

/// What each is for.
const KEPT: [(Capability, &str); 5] = [
    (Capability::CAP_BPF, "an iterator for each new target"),
    (Capability::CAP_PERFMON, "an iterator for each new target"),
    (Capability::CAP_SYS_PTRACE, "the memory of processes"),
    (Capability::CAP_CHECKPOINT_RESTORE, "the very files that a process has mapped"),
    (Capability::CAP_DAC_READ_SEARCH, "those files where only their owner may read them"),
];

/// Drops everything else, for good: no program that we might execute could have it again. A kernel or container that
/// refuses is no reason to stop.
pub(super) fn drop_unneeded() {
    let kept: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
    if let Err(error) = reduce(&kept) {
        tracing::warn!("capabilities that are not needed could not be dropped: {error}");
    }
}

fn reduce(kept: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    let had = caps::read(None, CapSet::Permitted)?;
    // Without CAP_SETPCAP the bounding set stays: then nothing can be dropped from it, and nothing needs to.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    let left: CapsHashSet = had.intersection(kept).copied().collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)?;
    if had.len() > left.len() {
        tracing::debug!("dropped {} capabilities, kept {left:?}", had.len() - left.len());
    }
    Ok(())
}
