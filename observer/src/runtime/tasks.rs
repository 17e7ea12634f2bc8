//! What all runtimes share: their tasks in groups by raw stack, over the samples, and what those are called.
//!
//! A runtime's folder finds its tasks and says of each what it sees ([`members::Members`]); [`report::report`] gives
//! the groups their names ([`report::Names`]).

pub(crate) mod entry;
pub(crate) mod groups;
pub(crate) mod members;
pub(crate) mod report;
pub(crate) mod slot;
