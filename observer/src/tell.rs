//! What was found, told: to a person, a tool, a terminal. Never looks behind a diagnosis and the last sample.

pub mod alert;

pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod report;
pub mod terminal;
pub mod web;
