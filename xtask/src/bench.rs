//! What observing costs, beside the same work unobserved: a table in Markdown, never a test.
//!
//! Every figure is a ratio within one run, or CPU time, so that it means something on a machine that does
//! other things too; where its spread lies on both sides of the budget the table says that it cannot tell.
//! Takes up to fifteen minutes, `--quick` six, both after the build; needs root and 4 GB of memory.

mod fleet;
mod goroutines;
mod hooks;
mod measure;
mod peers;
mod service;

use std::fs;

use anyhow::{Result, bail};
use clap::Args;

use crate::build;
use crate::interrupt::interrupted;
use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use measure::Row;

#[derive(Args)]
pub struct Options {
    /// Fewer rounds, and no million goroutines
    #[arg(long)]
    quick: bool,
    /// Only the parts whose name contains this: service, goroutines, hooks, switches, windows, census, fleet, peers
    #[arg(long, default_value = "")]
    only: String,
}

pub fn bench(options: &Options) -> Result<()> {
    let clock = Clock::start();
    setup::ensure(Purpose::Bench, clock)?;
    let observer = build::observer(clock)?;
    let before = load_average();
    let quick = options.quick;
    type Part<'p> = (&'static str, &'p dyn Fn() -> Result<Vec<Row>>);
    let parts: [Part<'_>; 8] = [
        ("goroutines", &|| goroutines::rows(clock, &observer, quick)),
        ("service", &|| service::rows(clock, &observer, quick)),
        ("census", &|| Ok(vec![hooks::census(clock)?])),
        ("hooks", &|| hooks::rows(clock, quick)),
        ("switches", &|| hooks::switches(clock, quick)),
        ("windows", &|| hooks::windows(clock, quick)),
        ("fleet", &|| fleet::rows(clock, &observer, quick)),
        ("peers", &|| peers::rows(clock, &observer, quick)),
    ];
    let mut rows: Vec<Row> = Vec::new();
    let mut failed = Vec::new();
    for (name, part) in parts.iter().filter(|(name, _)| name.contains(&options.only)) {
        match part() {
            Ok(measured) => rows.extend(measured),
            Err(error) if interrupted() => return Err(error),
            // What was measured before, and will be, is not lost with it.
            Err(error) => {
                rows.push(Row::left_out(*name, &error));
                failed.push(*name);
            }
        }
    }
    println!("\n{}. Load average {before} before, {} after.\n", machine(), load_average());
    println!("| what | measured: median (lowest to highest) | budget | |\n|---|---|---|---|");
    for row in &rows {
        println!("{row}");
    }
    if !failed.is_empty() {
        bail!("could not be measured: {}", failed.join(", "));
    }
    Ok(())
}

/// Date, processor, kernel.
fn machine() -> String {
    let date = run::output("date", &["+%Y-%m-%d %H:%M"]).unwrap_or_default();
    let kernel = run::output("uname", &["-r"]).unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()))
        .unwrap_or("unknown processor");
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{date}, {count} x {model}, Linux {kernel}")
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
