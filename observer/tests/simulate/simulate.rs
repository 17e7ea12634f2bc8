//! Simulated services, whose truth is known, for tests of what is made of samples.

pub mod cases;
pub mod service;
