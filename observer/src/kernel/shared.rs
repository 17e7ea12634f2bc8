//! One loaded object for many observers: each has registered its target.
//!
//! Nothing that is done under the lock waits for a target: a census walks the kernel's own structures, and the
//! memory of processes is read elsewhere. So a target that hangs in the kernel holds up nobody else.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::allocations::Function;
use super::census::Census;
use super::error::KernelError;
use super::events::Allocation;
use super::options::KernelOptions;
use super::probes::Probes;
use super::source::Drained;
use super::targets::TargetHandle;
use crate::sample::{Degraded, Mapped, Waits, lose};

/// Sampled allocations that wait for their follower: a copied stack each.
const MAX_WAITING: usize = 1 << 13;

/// The object, and what it offers here.
pub struct SharedProbes {
    probes: Mutex<Probes>,
    /// Sampled allocations that nobody has taken yet, by pid.
    allocations: Mutex<HashMap<u32, Vec<Allocation>>>,
    not_taken: AtomicU64,
    degraded: Vec<Degraded>,
}

impl SharedProbes {
    pub fn load(options: &KernelOptions) -> Result<Arc<Self>, KernelError> {
        let probes = Probes::load(options)?;
        let degraded = probes.features().degraded();
        Ok(Arc::new(Self {
            probes: Mutex::new(probes),
            allocations: Mutex::default(),
            not_taken: AtomicU64::new(0),
            degraded,
        }))
    }

    /// What this kernel does not offer, and why.
    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }

    /// Begins to observe a process; `copy_stacks` for code without frame pointers.
    pub fn register(
        self: &Arc<Self>,
        pid: u32,
        copy_stacks: bool,
    ) -> Result<TargetRegistration, KernelError> {
        let mut probes = self.lock();
        let target = probes.add_target(pid)?;
        if copy_stacks && let Err(error) = probes.copy_stacks(&target, true) {
            probes.remove_target(&target);
            return Err(error);
        }
        drop(probes);
        Ok(TargetRegistration { probes: Arc::clone(self), target })
    }

    /// Takes all that the kernel half has put by, of all targets. To be called several times a second. Allocations are
    /// put by for [`TargetRegistration::allocations`], and none is left in what this gives.
    pub fn drain(&self) -> Drained {
        let mut drained = self.lock().drain();
        let allocations = std::mem::take(&mut drained.allocations);
        if !allocations.is_empty() {
            self.put_by(allocations);
        }
        lose(&mut drained.losses, "allocations_not_taken", self.not_taken.swap(0, Ordering::Relaxed));
        drained
    }

    fn put_by(&self, allocations: Vec<Allocation>) {
        let mut waiting = self.allocations.lock().unwrap_or_else(PoisonError::into_inner);
        for allocation in allocations {
            let queue = waiting.entry(allocation.pid()).or_default();
            if queue.len() < MAX_WAITING {
                queue.push(allocation);
            } else {
                // Its free, if it comes, is that of a block that is not known. A free that is lost counts as a leak,
                // which the next use of its address ends.
                self.not_taken.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Every step leaves the object as it must be, also one that panics.
    fn lock(&self) -> MutexGuard<'_, Probes> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One target of the object; dropped, it is none any more.
pub struct TargetRegistration {
    probes: Arc<SharedProbes>,
    target: TargetHandle,
}

impl TargetRegistration {
    /// Every thread of the target. Empty when the process is gone.
    pub fn census(&self) -> Result<Census, KernelError> {
        self.probes.lock().census(&self.target)
    }

    /// Futex waits that ended since the registration; absent without the program.
    pub fn waits(&self) -> Option<Waits> {
        self.probes.lock().waits(&self.target)
    }

    /// Bytes mapped and unmapped since the registration; absent where the calls are not traced.
    pub fn mapped(&self) -> Option<Mapped> {
        self.probes.lock().mapped(&self.target)
    }

    /// Samples of page faults carry twice as much of the stack from now on.
    pub fn copy_deep_stacks(&self) -> Result<(), KernelError> {
        self.probes.lock().copy_deep_stacks(&self.target)
    }

    /// Puts breakpoints on functions of the target's allocator, until the registration is dropped.
    pub fn track_allocations(&self, file: &Path, functions: &[Function]) -> Result<(), KernelError> {
        self.probes.lock().track_allocations(&self.target, file, functions)
    }

    /// Allocations of the target that were sampled or freed, and drained since the last call.
    pub fn allocations(&self) -> Vec<Allocation> {
        let mut waiting = self.probes.allocations.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.target.pid()).unwrap_or_default()
    }

    /// How allocations are probed, and one of how many bytes is sampled now; absent without the program.
    pub fn allocation_sampling(&self) -> Option<(&'static str, u64)> {
        self.probes.lock().allocation_sampling()
    }

    /// One page fault of so many is sampled now; absent without the program.
    pub fn sample_period(&self) -> Option<u64> {
        self.probes.lock().sample_period()
    }
}

impl Drop for TargetRegistration {
    fn drop(&mut self) {
        self.probes.lock().remove_target(&self.target);
        self.allocations();
    }
}
