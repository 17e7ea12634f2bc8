//! What is asked of an observer: what may be used of the kernel, and what may be spent.

use std::sync::Arc;

use crate::kernel::SharedProbes;
use crate::sample::Degraded;

/// Where the kernel's half comes from.
#[derive(Clone)]
pub enum KernelSource {
    /// Nowhere: what can be read without eBPF is.
    Off,
    /// Loaded for this target alone.
    Load,
    /// Loaded already for many targets, or why it could not be. Whoever loaded it drains it.
    Shared(Result<Arc<SharedProbes>, Degraded>),
}

/// What may be used for a target.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Trace each call that maps memory, where fexit is refused at the cost of every syscall of the machine.
    pub exact: bool,
    /// Sample page faults, to name what grew.
    pub growth: bool,
    /// Follow the heap of groups in a snapshot whatever it costs.
    pub retained: bool,
    /// Track allocations, one of so many bytes, by breakpoints in the target's allocator: touches the target.
    pub allocations: Option<u64>,
}
