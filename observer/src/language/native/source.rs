//! Whose code a frame is: the program's own, a library's that it was built with, or the language's.
//!
//! By where its source lies, as compilers write it: Rust's and C++'s libraries are compiled into the program, and
//! their functions may bear no more than `lock` for a name. Pure; a frame without a file is the program's own here.

use super::super::interface::Origin;
use crate::sample::Frame;

/// Where the sources of language libraries lie, anywhere in a path.
const STANDARD: [&str; 7] = [
    "/lib/rustlib/src/rust/library/",
    "/include/c++/",
    "/usr/include/",
    "/usr/lib/gcc/",
    "/libstdc++-v3/",
    "/glibc/",
    "/libcxx/include/",
];
/// Where cargo puts the sources of other packages.
const DEPENDENCY: [&str; 3] = ["/registry/src/", "/git/checkouts/", "/cargo/vendor/"];

pub(crate) fn origin(frame: &Frame) -> Origin {
    let Some(file) = frame.file.as_deref() else { return Origin::Own };
    // rustc's own path for its library: `/rustc/<commit>/library/std/src/thread/mod.rs`.
    let of_rust = file
        .strip_prefix("/rustc/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, rest)| rest.starts_with("library/") || rest.starts_with("/library/"));
    if of_rust || STANDARD.iter().any(|part| file.contains(part)) {
        Origin::Standard
    } else if DEPENDENCY.iter().any(|part| file.contains(part)) {
        Origin::Dependency
    } else {
        Origin::Own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_tell_whose_code_it_is() {
        let of = |file: &str| origin(&Frame { file: Some(file.to_owned()), ..Frame::default() });
        let rust = "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/sys/sync/mutex/futex.rs";
        assert_eq!(of(rust), Origin::Standard);
        assert_eq!(of("/usr/include/c++/12/future"), Origin::Standard);
        let parking =
            "/home/me/.cargo/registry/src/index-1949cf8c6b5b557f/parking_lot-0.12.5/src/raw_mutex.rs";
        assert_eq!(of(parking), Origin::Dependency);
        for own in ["/home/me/shop/src/main.rs", "src/main.rs", "/rustc/", "/rustc/x", "library/x.c", ""] {
            assert_eq!(of(own), Origin::Own, "{own}");
        }
        assert_eq!(origin(&Frame::default()), Origin::Own);
    }
}
