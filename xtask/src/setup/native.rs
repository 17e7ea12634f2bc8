//! What the tests of native stacks, locks and languages need: another libc, allocators, compilers and runtimes, and a debugger
//! whose stacks ours are compared with.

use std::path::Path;

use super::Need;

pub fn each() -> Vec<Need> {
    vec![
        Need::tool("musl", "the libc of programs that are observed in the tests", "musl-gcc", "musl-tools"),
        Need::tool("g++", "builds C++ programs that are observed in the tests", "g++", "g++"),
        Need::tool("javac", "and Java programs", "javac", "default-jdk-headless"),
        Need::tool("java", "runs them", "java", "default-jdk-headless"),
        Need::tool("python3", "and Python programs", "python3", "python3"),
        Need::tool("node", "and programs for Node", "node", "nodejs"),
        Need::tool("gdb", "says in the tests what stacks there are", "gdb", "gdb"),
        library("libjemalloc.so.2", "libjemalloc2"),
        library("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
        library("libmimalloc.so.2", "libmimalloc2.0"),
    ]
}

/// An allocator that programs are run with in the tests.
fn library(name: &str, package: &'static str) -> Need {
    let path = format!("/usr/lib/{}-linux-gnu/{name}", std::env::consts::ARCH);
    let found = Path::new(&path).exists().then_some(path);
    Need::packaged(name, "an allocator that programs are observed with in the tests", found, &[package])
}
