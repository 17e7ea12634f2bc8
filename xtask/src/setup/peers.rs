//! The tools that `cargo xtask bench` measures beside observer, and what they are tried on.

use super::Need;

pub fn each() -> Vec<Need> {
    vec![
        Need::tool("gcc", "builds the loops that are measured", "gcc", "gcc"),
        Need::tool("strace", "is measured beside observer", "strace", "strace"),
        Need::tool("perf", "is measured beside observer", "perf", "linux-perf"),
        Need::tool("bpftrace", "is measured beside observer", "bpftrace", "bpftrace"),
        Need::tool("gdb", "is measured beside observer", "gdb", "gdb"),
    ]
}
