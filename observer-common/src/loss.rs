//! What the programs could not keep, counted per CPU under an index that has a name.

/// Index into the array of loss counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A thread's stack could not be read where its frame pointer said.
    CensusStackUnreadable = 0,
    /// A thread's stack had more frames than a record holds.
    CensusStackTruncated = 1,
    /// The map of sleeping threads was full: that wait is not timed.
    WaitsThreadsFull = 2,
    /// The ring of growth samples was full.
    GrowthRingFull = 3,
    /// No user stack could be walked at a sampled fault.
    GrowthStackUnreadable = 4,
    /// The ring of lifecycle events was full.
    LifecycleRingFull = 5,
}

impl Loss {
    pub const ALL: [Self; 6] = [
        Self::CensusStackUnreadable,
        Self::CensusStackTruncated,
        Self::WaitsThreadsFull,
        Self::GrowthRingFull,
        Self::GrowthStackUnreadable,
        Self::LifecycleRingFull,
    ];

    /// As it stands in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CensusStackUnreadable => "census_stack_unreadable",
            Self::CensusStackTruncated => "census_stack_truncated",
            Self::WaitsThreadsFull => "waits_threads_full",
            Self::GrowthRingFull => "growth_ring_full",
            Self::GrowthStackUnreadable => "growth_stack_unreadable",
            Self::LifecycleRingFull => "lifecycle_ring_full",
        }
    }
}

/// Entries of the array of loss counters.
pub const LOSSES: u32 = Loss::ALL.len() as u32;
