//! What building the Debian package needs, and what its tests need besides: a Debian to install it in, a systemd to
//! boot there, and those who judge packages, manuals and completions.

use super::{Need, Recipe, State, Step};
use crate::run;

const INSTALL: &str =
    "cargo install cargo-deb --version 3.8.0 --locked --no-default-features --features lzma";

/// To build it.
pub fn building() -> Vec<Need> {
    let state = match run::output("cargo-deb", &["--version"]) {
        Some(version) => State::Here(version),
        None => State::Missing(Recipe {
            packages: vec!["dpkg-dev", "liblzma-dev", "pkg-config"],
            steps: vec![Step { says: "cargo-deb (cargo install)".to_owned(), shell: INSTALL.to_owned() }],
            elsewhere: vec![INSTALL.to_owned()],
        }),
    };
    vec![
        Need { what: "cargo-deb".to_owned(), why: "packs the Debian package", state },
        need("dpkg-shlibdeps", "says which libraries it depends on", "dpkg-dev"),
        need("strip", "takes the debug information out", "binutils"),
    ]
}

/// To test it.
pub fn testing() -> Vec<Need> {
    vec![
        need("mmdebstrap", "makes the Debian that it is installed in", "mmdebstrap"),
        need("lintian", "judges it", "lintian"),
        need("man", "judges the manual", "man-db"),
        need("zsh", "loads its completions", "zsh"),
        need("fish", "completes with its completions", "fish"),
    ]
}

fn need(program: &str, why: &'static str, package: &'static str) -> Need {
    Need::tool(program, why, program, package)
}
