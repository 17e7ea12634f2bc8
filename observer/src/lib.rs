//! observer attaches to a running process from outside and says who keeps its memory.
//!
//! Data flows one way: `process` and `kernel` are read by `runtime`, `threads` and `memory`; `observe` joins what
//! they give to a [`sample::Sample`]; `diagnose` turns samples into a [`diagnose::Diagnosis`]; `tell` shows it.
//! ARCHITECTURE.md has the map.

// What main, tests and xtask need is public, and nothing else: so rustc sees what nobody uses.
#![warn(unreachable_pub)]

pub mod board;
pub mod command;
pub mod config;
pub(crate) mod daemon;
pub mod diagnose;
pub mod error_line;
pub(crate) mod escape;
pub(crate) mod format;
pub mod kernel;
pub(crate) mod language;
pub mod memory;
pub mod observe;
pub mod process;
pub mod runtime;
pub mod sample;
pub mod select;
pub mod symbol;
pub(crate) mod systemd;
pub mod tell;
pub mod threads;
pub mod timeline;
mod trust;
pub mod unwind;
