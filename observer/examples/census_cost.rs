//! CPU of a census of 10,000 threads: `cargo run --release --example census_cost`, as root.
//!
//! Prints the milliseconds of each of nine.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use observer::kernel::{KernelOptions, Probes};

const THREADS: usize = 10_000;
const ROUNDS: usize = 9;

struct Sleepers(Child);

impl Drop for Sleepers {
    fn drop(&mut self) {
        // Fails only for a child that is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/c/sleepers/main.c");
    let binary = std::env::temp_dir().join(format!("observer-census-{}", std::process::id()));
    let built = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&binary).arg(source).status()?;
    ensure!(built.success(), "cc sleepers");
    let child =
        Command::new(&binary).arg(THREADS.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    std::fs::remove_file(&binary)?;
    let mut sleepers = Sleepers(child?);
    let mut line = String::new();
    BufReader::new(sleepers.0.stdout.take().context("piped")?).read_line(&mut line)?;
    ensure!(line.starts_with("ready"), "the target did not start its threads");

    let mut kernel =
        Probes::load(&KernelOptions { waits: false, growth: false, ..KernelOptions::default() })?;
    let target = kernel.add_target(sleepers.0.id())?;
    for _ in 0..ROUNDS {
        let begun = cpu_milliseconds()?;
        let census = kernel.census(&target)?;
        let used = cpu_milliseconds()? - begun;
        ensure!(census.threads.len() > THREADS, "a census of {} threads", census.threads.len());
        println!("{used:.1}");
    }
    Ok(())
}

fn cpu_milliseconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1000.0)
}
