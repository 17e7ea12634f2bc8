//! Builds the observer that the demo runs and that its reader goes on with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::place;
use crate::run::Clock;

pub fn observer(clock: Clock) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "observer", "--bin", "observer"]);
    clock.run_logged("build", "observer (cargo build --release)", &mut command)?;
    Ok(place::target().join("release/observer"))
}

/// As the tests build it: nothing new to compile after them.
pub fn unoptimized(clock: Clock) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "observer", "--bin", "observer"]);
    clock.run_logged("build", "observer (cargo build)", &mut command)?;
    Ok(place::target().join("debug/observer"))
}

/// The cargo that runs xtask, in the root of the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(place::root());
    command
}
