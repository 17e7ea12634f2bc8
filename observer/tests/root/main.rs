//! Ring two: the eBPF programs and real target processes. Needs root, the eBPF object, a C compiler and what
//! `cargo xtask setup` installs; so each test is ignored unless asked for.
//!
//! One program that runs them one after the other (`--ignored --test-threads=1`): they share the machine's kernel and
//! measure its memory. What a test takes away from its own process (a capability) it gives back, also when it fails.

#[path = "../simulate/simulate.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the tests without root share it, and neither ring uses all of it"
)]
mod simulate;
#[path = "../support/support.rs"]
#[allow(dead_code, reason = "the tests without root share it, and neither ring uses all of it")]
mod support;

mod programs;

mod allocations;
mod attach;
mod daemon;
mod fleet;
mod go_heap;
mod go_versions;
mod goroutines;
mod growth;
mod kernel;
mod languages;
mod limits;
mod locks;
mod page;
mod pprof;
mod prometheus;
mod store;
mod terminal;
mod threads;
mod unwind;
mod web_config;
