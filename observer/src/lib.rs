//! observer attaches to a running process from outside and says who keeps its memory.
//!
//! Data flows one way: `target` and `kernel` are read by `collect`, which makes a [`sample::Sample`];
//! `diagnose` turns samples into a [`diagnose::Diagnosis`]; `tell` shows it. ARCHITECTURE.md has the map.

pub mod collect;
pub mod command;
pub mod config;
pub mod daemon;
pub mod diagnose;
pub mod kernel;
pub mod observe;
pub mod sample;
pub mod symbol;
pub mod systemd;
pub mod target;
pub mod tell;
pub mod timeline;
mod trust;
