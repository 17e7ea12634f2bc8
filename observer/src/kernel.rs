//! The kernel half, from user space: loads the eBPF object once for one or many targets and drains it.
//!
//! One module a source, named as in `observer-ebpf`. What this kernel does not permit is left out with a
//! reason ([`Features`]), not an error; [`Probes::load`] fails only when no program can run at all.

pub(crate) mod allocations;
pub(crate) mod btf;
pub(crate) mod census;
mod error;
mod events;
pub mod features;
pub mod floor;
mod growth;
pub(crate) mod heap;
pub(crate) mod layout;
mod lifecycle;
mod mapped;
mod maps;
mod object;
mod options;
mod probes;
pub(crate) mod shared;
mod source;
mod sources;
mod sys;
mod targets;
mod waits;
mod windows;

pub use census::{Census, ThreadRecord};
pub use error::KernelError;
pub use events::{Allocation, Change, Fault, LifecycleEvent, Moved};
pub use features::Features;
pub use object::built;
pub use options::KernelOptions;
pub use probes::Probes;
pub use shared::{SharedProbes, TargetRegistration};
pub use source::Drained;
pub use targets::TargetHandle;
pub use windows::{Hooks, Windows};
