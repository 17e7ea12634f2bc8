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
        need("dpkg-shlibdeps", "says which libraries it depends on", &["--version"], "dpkg-dev"),
        need("strip", "takes the debug information out", &["--version"], "binutils"),
    ]
}

/// To test it.
pub fn testing() -> Vec<Need> {
    vec![
        need("mmdebstrap", "makes the Debian that it is installed in", &["--version"], "mmdebstrap"),
        need("lintian", "judges it", &["--version"], "lintian"),
        need("man", "judges the manual", &["--version"], "man-db"),
        need("zsh", "loads its completions", &["--version"], "zsh"),
        need("fish", "completes with its completions", &["--version"], "fish"),
        need("gcc", "builds the program that the service observes", &["--version"], "gcc"),
    ]
}

fn need(program: &str, why: &'static str, arguments: &[&str], package: &'static str) -> Need {
    let version = run::output(program, arguments).and_then(|text| Some(text.lines().next()?.to_owned()));
    let state = match version {
        Some(found) => State::Here(found),
        None => State::Missing(Recipe {
            packages: vec![package],
            elsewhere: vec![format!("(install {program} from your distribution)")],
            ..Recipe::default()
        }),
    };
    Need { what: program.to_owned(), why, state }
}
