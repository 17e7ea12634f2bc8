//! Format, lints, licences and dependencies.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::build::cargo;
use crate::run::{self, Clock};
use crate::setup;

#[derive(Args)]
pub struct Options {
    /// Without cargo-deny, which takes minutes to install
    #[arg(long)]
    no_deny: bool,
}

pub fn lint(options: &Options) -> Result<()> {
    let clock = Clock::start();
    if !options.no_deny {
        setup::ensure(setup::Purpose::Lint, clock)?;
    }
    clock.say("lint", "format");
    run::check(cargo().args(["fmt", "--all", "--check"]))?;
    clock.say("lint", "clippy without eBPF");
    run::check(clippy(&mut cargo()).env("OBSERVER_EBPF", "off"))?;
    clock.say("lint", "clippy");
    run::check(clippy(&mut cargo()))?;
    for (says, features) in [("every feature", "--all-features"), ("no feature", "--no-default-features")] {
        clock.say("lint", &format!("clippy with {says}"));
        let clippy = ["clippy", "-p", "observer", features, "--all-targets", "--", "-D", "warnings"];
        run::check(cargo().args(clippy))?;
    }
    if !options.no_deny {
        clock.say("lint", "licences and dependencies");
        run::check(cargo().args(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))?;
    }
    clock.say("lint", "passed");
    Ok(())
}

fn clippy(command: &mut Command) -> &mut Command {
    command.args(["clippy", "--all-targets", "--", "-D", "warnings"])
}
