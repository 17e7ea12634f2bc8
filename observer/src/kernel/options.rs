//! What to load of the kernel half.

use super::windows::Hooks;

/// What to load.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Trace every mapping call: exact, where fexit is refused at the cost of every process of the machine.
    pub exact: bool,
    /// Sample page faults.
    pub growth: bool,
    /// Time futex waits.
    pub waits: bool,
    /// When the hooks of those two are attached.
    pub hooks: Hooks,
    /// Be able to sample allocations, one of so many bytes: for targets that it is asked for, which it touches.
    pub allocations: Option<u64>,
    /// Bytes of the ring of sampled faults, rounded up to a power of two of pages.
    pub growth_ring_bytes: u32,
    /// Bytes of the ring of lifecycle events, likewise.
    pub lifecycle_ring_bytes: u32,
}

impl Default for KernelOptions {
    /// What costs the target and its neighbours next to nothing.
    fn default() -> Self {
        Self {
            exact: false,
            growth: true,
            waits: true,
            hooks: Hooks::Always,
            allocations: None,
            growth_ring_bytes: 2 << 20,
            lifecycle_ring_bytes: 64 << 10,
        }
    }
}
