//! What is told to whoever shows a target while it is watched.

use std::sync::Arc;
use std::time::Duration;

use crate::diagnose::Diagnosis;
use crate::sample::{Sample, TargetInfo};

/// Told of what happens while a target is watched.
pub trait Progress {
    fn begin(&mut self, info: &TargetInfo, duration: Duration);
    fn sample(&mut self, info: &TargetInfo, sample: &Arc<Sample>);
    /// Whether it shows the verdict so far.
    fn wants_diagnosis(&self) -> bool {
        false
    }
    fn diagnosis(&mut self, _: Diagnosis) {}
    /// Clears what only mattered meanwhile.
    fn end(&mut self);
}
