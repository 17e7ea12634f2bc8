//! What `attach` shows while it watches: a view that redraws itself on a terminal, plain lines elsewhere.
//!
//! Takes samples, gives text; keeps a bounded series of memory figures and the first size of each group.

mod live;
mod plain;

use std::time::Duration;

use crate::sample::{Sample, TargetInfo};

pub use live::LiveView;
pub use plain::Plain;

/// Told of each sample while a target is watched.
pub trait Progress {
    fn begin(&mut self, info: &TargetInfo, duration: Duration);
    fn sample(&mut self, info: &TargetInfo, sample: &Sample);
    /// Clears what only mattered meanwhile.
    fn end(&mut self);
}
