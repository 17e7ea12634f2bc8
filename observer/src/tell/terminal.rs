//! What `attach` shows while it watches: a full-screen view on a terminal, plain lines elsewhere.
//!
//! Told of samples and of the diagnosis so far; keeps a bounded series of memory figures and of group sizes. Whoever
//! samples never waits for drawing or for keys: the screen has a thread of its own.

mod draw;
mod log;
mod plain;
mod rates;
mod rows;
mod screen;
mod stack;
mod view;

use std::sync::Arc;
use std::time::Duration;

use crate::diagnose::Diagnosis;
use crate::sample::{Sample, TargetInfo};

pub use draw::draw;
pub use plain::Plain;
pub use screen::Screen;
pub use view::{Action, View};

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
