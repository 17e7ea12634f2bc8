//! Builds the observer that the demo runs and that its reader goes on with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run::{self, Clock};
use crate::{place, setup};

pub fn observer(clock: Clock) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "observer", "--bin", "observer"]);
    clock.run_logged("build", "observer (cargo build --release)", &mut command)?;
    with_ebpf(place::target().join("release/observer"))
}

/// As the tests build it: nothing new to compile after them.
pub fn unoptimized(clock: Clock) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "observer", "--bin", "observer"]);
    clock.run_logged("build", "observer (cargo build)", &mut command)?;
    with_ebpf(place::target().join("debug/observer"))
}

/// The tests that need root, with the observer that they run: one with eBPF.
pub fn root_tests() -> Result<()> {
    run::check(cargo().args(["test", "-p", "observer", "--test", "root", "--no-run"]))?;
    with_ebpf(place::target().join("debug/observer"))?;
    Ok(())
}

/// An observer without eBPF shows, tests and measures less than is asked for: that is said, and not done.
fn with_ebpf(observer: PathBuf) -> Result<PathBuf> {
    let version = run::output(&observer.to_string_lossy(), &["--version"])
        .with_context(|| format!("{} does not run", place::shown(&observer)))?;
    if version.contains("(with eBPF)") {
        return Ok(observer);
    }
    let why = version.split_once("(built without eBPF: ").and_then(|(_, why)| why.strip_suffix(')'));
    bail!(
        "this needs an observer with eBPF, and {} was built without it: {}",
        place::shown(&observer),
        why.unwrap_or(&version),
    )
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

/// The same for arm64, on whatever this is: by the checkout's toolchain, or the one that set-up found the library for.
pub fn dist_arm64(clock: Clock) -> Result<PathBuf> {
    let library =
        setup::arm64_library()?.context("no Rust for arm64 (install: cargo xtask setup --for arm64)")?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut command = match library.elsewhere {
        None => cargo(),
        Some((toolchain, sysroot)) => {
            flags.push(format!("--sysroot={}", sysroot.display()));
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "cargo"]).current_dir(place::root());
            // Those of the cargo that runs xtask.
            for name in ["RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO"] {
                command.env_remove(name);
            }
            command
        }
    };
    command
        .args(["build", "--locked", "--profile", "dist", "--package", "observer", "--bin", "observer"])
        .args(["--target", setup::TARGET])
        .env("OBSERVER_EBPF", "require")
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", setup::LINKER)
        // For that processor alone: what runs during the build is this one's.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CC_aarch64_unknown_linux_gnu", setup::LINKER);
    clock.run_logged("build", "observer for arm64 (cargo build --profile dist)", &mut command)?;
    Ok(place::target().join(setup::TARGET).join("dist/observer"))
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
