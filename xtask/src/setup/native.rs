//! What the tests of native stacks and locks need: another libc, and a debugger whose stacks ours are compared with.

use super::{Need, Recipe, State};
use crate::run;

pub fn each() -> Vec<Need> {
    vec![
        need("musl", "the libc of programs that are observed in the tests", "musl-gcc", "musl-tools"),
        need("gdb", "says in the tests what stacks there are", "gdb", "gdb"),
    ]
}

fn need(what: &str, why: &'static str, program: &str, package: &'static str) -> Need {
    let said = run::output(program, &["--version"]);
    let state = match said.as_deref().and_then(|said| said.lines().next()) {
        Some(version) => State::Here(version.to_owned()),
        None => State::Missing(Recipe {
            packages: vec![package],
            elsewhere: vec![format!("(install {program} from your distribution)")],
            ..Recipe::default()
        }),
    };
    Need { what: what.to_owned(), why, state }
}
