//! The demo: a Go service that leaks (or its fixed twin), and observer attached to it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::checkout::{self, Checkout};
use crate::interrupt::interrupted;
use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use crate::{build, place};

#[derive(Args)]
pub struct Options {
    /// Run the twin without the leak: the verdict must be stable
    #[arg(long)]
    fixed: bool,
    /// How long observer watches
    #[arg(long, default_value = "60s")]
    duration: String,
    /// Carts a second; 16 of 60 leak
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// Leave the service and its load running afterwards (they end by themselves after 15 minutes)
    #[arg(long, conflicts_with = "page")]
    keep: bool,
    /// Run observer beside the service until Ctrl-C (at most a quarter of an hour), with its page on loopback
    #[arg(long)]
    page: bool,
}

/// The service is observed when it has run for a while, as services are.
const WARM_UP: Duration = Duration::from_secs(5);
/// Where `observer run` serves by default.
const PAGE: &str = "127.0.0.1:9713";
/// `--fail-on leak` was met.
const LEAK: i32 = 3;

pub fn demo(options: &Options) -> Result<()> {
    let clock = Clock::start();
    setup::ensure(Purpose::Demo, clock)?;
    let observer = build::observer(clock)?;
    let program = checkout::build(clock)?;

    let mut checkout = Checkout::start(&program, options.fixed, options.rate, !options.keep)?;
    let pid = checkout.pid().to_string();
    let twin = if options.fixed { "its fixed twin" } else { "leaking" };
    clock.say(
        "start",
        &format!("checkout, {twin}: pid {pid} on {}, {} carts/s", checkout.address(), options.rate),
    );
    if options.page {
        return page(clock, &observer, &pid);
    }
    checkout.warm_up(WARM_UP)?;

    let mut command = Command::new(&observer);
    command.args(["attach", &pid, "--duration", &options.duration, "--fail-on", "leak"]);
    clock.say("attach", &format!("{} {}", place::shown(&observer), run::shown_arguments(&command)));
    println!();
    let status = run::wait(&mut command, |_| ())?;
    println!();
    checkout.check()?;

    if options.keep {
        let [service, load] = checkout.keep();
        clock.say("kept", &format!("service and load still run; stop them with: kill {service} {load}"));
    } else {
        drop(checkout);
        clock.say("stop", "service and load have ended");
    }
    let wanted = if options.fixed { 0 } else { LEAK };
    if status.code() != Some(wanted) {
        bail!(
            "the demo expects {}, but observer ended with {status}",
            if options.fixed { "no leak (exit 0)" } else { "the verdict leak (exit 3)" },
        );
    }
    println!("\nNow your own service: {} attach <your own PID>", place::shown(&observer));
    Ok(())
}

/// Until it is interrupted, which is its good end.
fn page(clock: Clock, observer: &Path, pid: &str) -> Result<()> {
    let mut command = Command::new(observer);
    command.args(["run", "--pid", pid, "--listen", PAGE]);
    clock.say("run", &format!("{} {}", place::shown(observer), run::shown_arguments(&command)));
    println!("\nThe page: http://{PAGE}/ (the verdict takes about a minute; Ctrl-C ends it)\n");
    match run::wait(&mut command, |_| ()) {
        Err(_) if interrupted() => Ok(()),
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("observer run ended with {status}"),
        Err(error) => Err(error),
    }
}
