//! Ring one: what can be tested without root, eBPF programs or Go. One program, whose tests run side by side as threads.
//!
//! So no test changes what belongs to the whole process: its environment, directory, umask or limits.

#[path = "../simulate/simulate.rs"]
#[allow(dead_code, unused_imports, reason = "the tests with root share it, and neither ring uses all of it")]
mod simulate;
#[path = "../support/support.rs"]
#[allow(dead_code, reason = "the tests with root share it, and neither ring uses all of it")]
mod support;

mod alerts;
mod arrows;
mod commands;
mod config;
mod dashboard;
mod invariants;
mod manual;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod page;
mod profiles;
mod recording;
mod replay;
mod report;
mod schema;
mod server;
mod store;
mod systemd;
mod terminal;
mod timeline;
mod web_config;
