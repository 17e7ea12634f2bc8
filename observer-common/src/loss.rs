//! What the programs could not keep, counted per CPU under an index that has a name.

/// Index into the array of loss counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Two sleeping threads had the same place in the map: the wait of one is not timed.
    WaitsThreadsFull = 0,
    /// The ring of growth samples was full.
    GrowthRingFull = 1,
    /// No user stack could be walked at a sampled fault.
    GrowthStackUnreadable = 2,
    /// The ring of lifecycle events was full.
    LifecycleRingFull = 3,
    /// The ring of sampled allocations was full.
    AllocationsRingFull = 4,
    /// The ring of what was freed was full: those blocks count as alive until their address is used again.
    AllocationsFreeRingFull = 5,
    /// More sampled allocations were alive than can be kept.
    AllocationsLiveFull = 6,
    /// A sampled allocation could not be followed to its return.
    AllocationsPendingFull = 7,
    /// The stack at a sampled allocation could not be read.
    AllocationsStackUnreadable = 8,
}

impl Loss {
    pub const ALL: [Self; 9] = [
        Self::WaitsThreadsFull,
        Self::GrowthRingFull,
        Self::GrowthStackUnreadable,
        Self::LifecycleRingFull,
        Self::AllocationsRingFull,
        Self::AllocationsFreeRingFull,
        Self::AllocationsLiveFull,
        Self::AllocationsPendingFull,
        Self::AllocationsStackUnreadable,
    ];

    /// As it stands in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitsThreadsFull => "waits_threads_full",
            Self::GrowthRingFull => "growth_ring_full",
            Self::GrowthStackUnreadable => "growth_stack_unreadable",
            Self::LifecycleRingFull => "lifecycle_ring_full",
            Self::AllocationsRingFull => "allocations_ring_full",
            Self::AllocationsFreeRingFull => "allocations_free_ring_full",
            Self::AllocationsLiveFull => "allocations_live_full",
            Self::AllocationsPendingFull => "allocations_pending_full",
            Self::AllocationsStackUnreadable => "allocations_stack_unreadable",
        }
    }
}

/// Entries of the array of loss counters.
pub const LOSSES: u32 = Loss::ALL.len() as u32;
