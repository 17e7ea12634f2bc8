//! What runtimes have in common: their tasks in groups by raw stack, over the samples, and what those are called.

pub mod entry;
pub mod groups;
pub mod report;
