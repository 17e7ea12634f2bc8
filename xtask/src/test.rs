//! The tests, in rings: the first runs anywhere, the second needs root, eBPF, gcc and the Go toolchains.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::build::{self, cargo};
use crate::image::Arch;
use crate::packages;
use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use crate::{pods, vm};

#[derive(Args)]
pub struct Options {
    /// Which ring; both where root runs it
    #[arg(value_enum)]
    ring: Option<Ring>,
    /// Of `pods`: with an observer that is built quickly instead of the one that is shipped
    #[arg(long)]
    quick: bool,
    /// Of `vm`: the processor of the machines
    #[arg(long, value_enum, default_value = "amd64")]
    arch: Arch,
    /// Only tests whose module and name contain this (`growth::` is all of one module)
    #[arg(long)]
    name: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ring {
    /// Without root, eBPF toolchain or Go
    Unit,
    /// With root: the eBPF programs and real target processes
    Root,
    /// On other kernels, in QEMU: not part of the default
    Vm,
    /// In pods, with podman: not part of the default
    Pods,
    /// The Debian package, installed where a systemd runs it: not part of the default
    Packages,
}

pub fn test(options: &Options) -> Result<()> {
    let clock = Clock::start();
    let name = options.name.as_deref();
    let root = nix::unistd::geteuid().is_root();
    match options.ring {
        Some(Ring::Unit) => unit(clock, name),
        Some(Ring::Root) if !root => bail!("the tests with root need root (run: cargo xtask test unit)"),
        Some(Ring::Root) => {
            setup::ensure(Purpose::Test, clock)?;
            with_root(clock, name)
        }
        Some(Ring::Vm) => vm::test(clock, options.arch),
        Some(Ring::Pods) if !root => bail!("the tests in pods need root"),
        Some(Ring::Pods) => pods::test(clock, options.quick),
        Some(Ring::Packages) if !root => bail!("installing packages needs root"),
        Some(Ring::Packages) => packages::test(clock),
        None if !root => {
            unit(clock, name)?;
            clock.say("test", "not root: the tests that need it (cargo xtask test root) did not run");
            Ok(())
        }
        None => {
            setup::ensure(Purpose::Test, clock)?;
            unit(clock, name)?;
            with_root(clock, name)
        }
    }
}

fn unit(clock: Clock, name: Option<&str>) -> Result<()> {
    clock.say("test", "without root: cargo test");
    run::check(cargo().arg("test").args(name))?;
    // The one feature that is off by default. Which tests need it says their module; a name may be one of theirs.
    let otlp = ["test", "-p", "observer", "--features", "otlp", "--test", "unit", name.unwrap_or("otlp::")];
    run::check(cargo().args(otlp))?;
    clock.say("test", "without root: passed");
    Ok(())
}

/// One at a time: they share the machine's kernel and measure its memory.
fn with_root(clock: Clock, name: Option<&str>) -> Result<()> {
    clock.say("test", "with root: cargo test --test root -- --ignored");
    build::root_tests()?;
    for package in ["observer", "xtask"] {
        let root = ["test", "-p", package, "--test", "root"];
        run::check(cargo().args(root).args(name).args(["--", "--ignored", "--test-threads=1"]))?;
    }
    clock.say("test", "with root: passed");
    Ok(())
}
