//! From samples to a verdict: who keeps the memory, how sure that is, and what is not known.
//!
//! Pure: no I/O, no clock, no kernel. Imports `sample`, `language` and `format`, and nothing else of the crate, so that every case that ever went
//! wrong can be kept as a recorded series ([`recording`]) and replayed. A [`History`] takes each sample as it comes and
//! stays small; [`diagnose`] may be called at any time, costs about a millisecond for a thousand groups, and says the
//! same for the same samples.

mod allocated;
mod attribution;
mod cause;
mod diagnosis;
mod findings;
pub(crate) mod growth;
mod history;
pub mod locks;
mod memory;
pub mod recording;
mod sentences;
pub(crate) mod site;
mod trend;
mod turnover;
mod verdict;
mod words;

pub use diagnosis::{Bystander, Culprit, Diagnosis, GrowthTotals, SCHEMA, Verdict};
pub use history::{Bounds, GroupPoint, GroupSeries, History, MemoryPoint};
pub use memory::MemoryTrend;
pub use turnover::{LEAST_SAMPLES, LEAST_SECONDS};
pub use verdict::diagnose;

pub use crate::sample::Deadlock;
