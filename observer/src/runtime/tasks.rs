//! What all runtimes share: their tasks in groups by raw stack, over the samples, and what those are called.
//!
//! A runtime's folder finds its tasks and says of each what it sees ([`members::Members`]); [`report::report`] gives
//! the groups their names ([`report::Names`]).

pub mod entry;
pub mod groups;
pub mod members;
pub mod report;
pub mod slot;
