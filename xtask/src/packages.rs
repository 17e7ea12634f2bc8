//! `cargo xtask test packages`: the Debian package and all that is in it, used as on a server.
//!
//! Builds the package, has it judged, and installs, runs, upgrades, removes and purges it where a systemd runs it: the
//! service under its own restrictions. Half a minute beyond the build; leaves nothing but a Debian in the cache.

mod install;
mod machine;
mod service;
mod shells;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use crate::{build, deb, place};
use machine::Machine;

/// What lintian may say, and why it is so.
const KNOWN: [&str; 2] = [
    // One package for every release, and the same program as in the image.
    "statically-linked-binary",
    // There is nobody yet whom to write to.
    "bogus-mail-host-in-debian-changelog",
];

pub fn test(clock: Clock) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("installing packages needs root");
    }
    setup::ensure(Purpose::Packages, clock)?;
    let observer = build::dist(clock)?;
    let generated = deb::generate(&observer)?;
    shells::check(&generated)?;
    clock.say("test", "manual and completions: passed");

    let later = deb::pack(clock, Some("999.0-1"))?;
    let package = deb::pack(clock, None)?;
    lintian(&package)?;
    clock.say("test", &format!("lintian: passed; {} KiB", package.metadata()?.len() / 1024));

    let machine = Machine::boot(clock, &machine::debian(clock)?)?;
    machine.put(&package, "observer.deb")?;
    machine.put(&later, "later.deb")?;
    std::fs::remove_file(&later).with_context(|| format!("cannot remove {}", later.display()))?;
    machine.put(&target()?, "obs-piler")?;
    machine.run("install -m 755 /opt/obs-piler /usr/local/bin/obs-piler")?;
    let before = install::files(&machine)?;
    install::install(&machine)?;
    clock.say("test", "installed, neither enabled nor started: passed");
    service::check(clock, &machine)?;
    install::upgrade(&machine)?;
    clock.say("test", "upgraded: passed");
    install::remove(&machine, &before)?;
    clock.say("test", "removed and purged, nothing left: passed");
    Ok(())
}

fn lintian(package: &Path) -> Result<()> {
    let mut command = Command::new("lintian");
    command
        .args(["--allow-root", "--fail-on", "error,warning", "--suppress-tags"])
        .arg(KNOWN.join(","))
        .arg(package);
    run::check(&mut command)
}

/// A program whose threads pile up, 400 of them in 40 s, without need of the libraries of its machine.
fn target() -> Result<std::path::PathBuf> {
    let to = place::work().join("obs-piler");
    let mut gcc = Command::new("gcc");
    gcc.args(["-g", "-O1", "-fno-omit-frame-pointer", "-static", "-pthread", "-o"])
        .arg(&to)
        .arg(place::root().join("xtask/targets/c/piler/piler.c"));
    run::check(&mut gcc)?;
    Ok(to)
}
