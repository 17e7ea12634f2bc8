//! cargo-deny, which checks licences and dependencies.

use super::{Need, Recipe, State, Step};
use crate::run;

const INSTALL: &str = "cargo install cargo-deny --version 0.20.2 --locked";

pub fn cargo_deny() -> Need {
    let state = match run::output("cargo-deny", &["--version"]) {
        Some(version) => State::Here(version),
        None => State::Missing(Recipe {
            steps: vec![Step { says: "cargo-deny (cargo install)".to_owned(), shell: INSTALL.to_owned() }],
            elsewhere: vec![INSTALL.to_owned()],
            ..Recipe::default()
        }),
    };
    Need { what: "cargo-deny".to_owned(), why: "checks licences and dependencies", state }
}
