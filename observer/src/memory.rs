//! What a process's memory does: how much there is, what grew, what its allocator handed out.
//!
//! A module a source. Each reads `/proc` or what the kernel half put by, and gives its part of a
//! [`crate::sample::Sample`].

pub mod allocations;
pub mod growth;
pub(crate) mod mapped;
pub(crate) mod pagemap;
pub(crate) mod smaps;
pub mod usage;
