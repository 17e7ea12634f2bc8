//! `cargo xtask test packages`: the Debian package and all that is in it, used as on a server.
//!
//! Builds the package, has it judged, and installs, runs, upgrades, removes and purges it where a systemd runs it: the
//! service under its own restrictions. A minute beyond the build; leaves nothing but a Debian in the cache.

mod install;
mod machine;
mod service;
mod shells;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use crate::{build, checkout, deb};
use machine::Machine;

/// What lintian may say, and why it is so.
const KNOWN: [&str; 5] = [
    // One package for every release, and the same program as in the image.
    "statically-linked-binary",
    // What it takes a static program that may lie anywhere in memory for.
    "shared-library-lacks-prerequisites",
    // There is nobody yet whom to write to, ...
    "bogus-mail-host",
    "bogus-mail-host-in-debian-changelog",
    // ... and this package is not one of Debian's own.
    "initial-upload-closes-no-bugs",
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

    let package = deb::pack(clock, None)?;
    lintian(&package)?;
    clock.say("test", &format!("lintian: passed; {} KiB", package.metadata()?.len() / 1024));

    let machine = Machine::boot(clock, &machine::debian(clock)?)?;
    machine.put(&package, "observer.deb")?;
    machine.put(&checkout::build(clock)?, "checkout")?;
    machine.run("install -m 755 /opt/checkout /usr/local/bin/checkout")?;
    life(clock, &machine).with_context(|| machine.last_words())?;
    machine.forget();
    Ok(())
}

/// From the installation to the purge.
fn life(clock: Clock, machine: &Machine) -> Result<()> {
    let before = install::files(machine)?;
    install::install(machine)?;
    clock.say("test", "installed, neither enabled nor started: passed");
    service::check(clock, machine)?;
    install::upgrade(machine)?;
    clock.say("test", "upgraded, with its configuration kept: passed");
    install::remove(machine, &before)?;
    clock.say("test", "removed, installed again and purged, nothing left: passed");
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
