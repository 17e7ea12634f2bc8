//! A busy HTTP service, observed and not: carts a second, and its own CPU for each.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::measure::{self, Budget, Row, Unit};
use crate::checkout::{self, Checkout};
use crate::run::{Background, Clock, output};

/// More than the service can do, so that it is busy.
const RATE: &str = "2000";
/// Until observer has looked at everything once.
const SETTLE: Duration = Duration::from_secs(2);

pub fn rows(clock: Clock, observer: &Path, quick: bool) -> Result<Vec<Row>> {
    let (pairs, seconds) = if quick { (3, 3) } else { (6, 7) };
    let program = checkout::build(clock)?;
    let mut checkout = Checkout::start(&program, true, 1, true)?;
    let (pid, address) = (checkout.pid(), checkout.address().to_owned());
    let once = || -> Result<[f64; 2]> {
        let before = measure::cpu_seconds(pid)?;
        let carts = carts(&program, &address, seconds)?;
        Ok([carts, (measure::cpu_seconds(pid)? - before) / carts])
    };
    let observed = || -> Result<[f64; 2]> {
        let mut command = Command::new(observer);
        command.args(["attach", &pid.to_string(), "--duration", "60s"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut attached = Background::start("observer attach", &mut command)?;
        thread::sleep(SETTLE);
        let result = once()?;
        attached.still_runs()?;
        Ok(result)
    };
    once()?;
    let [mut throughput, mut cpu] = [Vec::new(), Vec::new()];
    for pair in 1..=pairs {
        clock.say("measure", &format!("the service observed and not, pair {pair} of {pairs}"));
        // Neither is always the first.
        let (with, without) = if pair % 2 == 0 {
            let with = observed()?;
            (with, once()?)
        } else {
            let without = once()?;
            (observed()?, without)
        };
        throughput.push(100.0 * with[0] / without[0]);
        cpu.push(with[1] / without[1]);
        checkout.check()?;
    }
    Ok(vec![
        Row::new(
            "busy HTTP service: throughput, observed by unobserved",
            throughput,
            Unit::Percent,
            Budget::AtLeast(99.0),
        ),
        Row::new("the same: its CPU a request", cpu, Unit::Times, Budget::None),
    ])
}

fn carts(program: &Path, address: &str, seconds: u32) -> Result<f64> {
    let life = format!("{seconds}s");
    let program = program.to_str().context("a path that is not UTF-8")?;
    let text = output(program, &["load", "--target", address, "--rate", RATE, "--idle", "0", "--for", &life])
        .context("the load failed")?;
    match text.strip_prefix("load: ").and_then(|rest| rest.split(' ').next()).map(str::parse) {
        Some(Ok(carts)) if carts > 0.0 => Ok(carts),
        _ => bail!("the load said `{text}`"),
    }
}
