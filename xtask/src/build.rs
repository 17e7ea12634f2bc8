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

/// As it is shipped, in packages and images: optimized over all crates, with eBPF, and static, which only the last step
/// knows of. glibc resolves names by /etc/hosts and DNS without its libraries too.
pub fn dist(clock: Clock) -> Result<PathBuf> {
    fixed(clock, "dist", "observer as it is shipped (cargo rustc --profile dist)")
}

/// Static likewise, and as quick to build as for the tests.
pub fn unoptimized_static(clock: Clock) -> Result<PathBuf> {
    fixed(clock, "dev", "observer, static (cargo rustc)")
}

fn fixed(clock: Clock, profile: &str, says: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["rustc", "--locked", "--profile", profile, "--package", "observer", "--bin", "observer"]);
    command.args(["--", "-Ctarget-feature=+crt-static"]).env("OBSERVER_EBPF", "require");
    clock.run_logged("build", says, &mut command)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(place::target().join(folder).join("observer"))
}

/// The cargo that runs xtask, in the root of the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(place::root());
    command
}
