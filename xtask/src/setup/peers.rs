//! The tools that `cargo xtask bench` measures beside observer, and what they are tried on.

use super::Need;

pub fn each() -> Vec<Need> {
    vec![
        need("gcc", "builds the loops that are measured", "gcc", "gcc"),
        need("strace", "is measured beside observer", "strace", "strace"),
        need("perf", "is measured beside observer", "perf", "linux-perf"),
        need("bpftrace", "is measured beside observer", "bpftrace", "bpftrace"),
        need("gdb", "is measured beside observer", "gdb", "gdb"),
    ]
}

fn need(what: &str, why: &'static str, program: &str, package: &'static str) -> Need {
    Need::program(what, why, program, &["--version"], &[package])
}
