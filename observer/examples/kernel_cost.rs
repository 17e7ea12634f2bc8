//! What each hook costs a target and its neighbours: `cargo run --release --example kernel_cost`, as root.
//!
//! Every figure is the same loop in the same process with the hooks, by without them just before and after;
//! of the rounds the median, with the lowest and the highest. CPU time of the loop's process, so that other
//! load on the machine disturbs little. Prints a table in Markdown.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use observer::kernel::features::State;
use observer::kernel::{KernelOptions, Probes};

#[path = "driven/program.rs"]
mod program;

use program::{Driven, build};

/// Or as the environment variable ROUNDS says.
const ROUNDS: usize = 7;

struct Loop {
    name: &'static str,
    order: &'static str,
    process: Driven,
}

impl Loop {
    fn start(program: &str, name: &'static str, order: &'static str) -> Result<Self> {
        let binary = build(program)?;
        let process = Driven::start(&mut Command::new(&binary));
        std::fs::remove_file(&binary)?;
        Ok(Self { name, order, process: process? })
    }

    /// Seconds of CPU for one run of the loop.
    fn run(&mut self) -> Result<f64> {
        self.process.run(self.order)
    }
}

fn main() -> Result<()> {
    let off = KernelOptions { waits: false, growth: false, ..KernelOptions::default() };
    let configurations = [
        ("census, lifecycle only", off.clone()),
        ("waits", KernelOptions { waits: true, ..off.clone() }),
        ("growth", KernelOptions { growth: true, ..off.clone() }),
        ("default: waits and growth", KernelOptions::default()),
        ("`--exact`", KernelOptions { exact: true, ..off }),
    ];
    // Only those whose name contains the argument, if there is one.
    let only = std::env::args().nth(1).unwrap_or_default();
    let configurations: Vec<_> =
        configurations.into_iter().filter(|(name, _)| name.contains(&only)).collect();
    let mut loops = [
        Loop::start("pingpong", "futex ping-pong", "15000")?,
        Loop::start("loops", "map, touch, unmap 16 KiB", "fault 12000")?,
        Loop::start("loops", "mmap, munmap", "mmap 40000")?,
        Loop::start("loops", "getppid", "getppid 400000")?,
    ];
    for one in &mut loops {
        one.run()?;
    }
    // [configuration][loop][as target, as bystander]
    let mut ratios = vec![vec![[Vec::new(), Vec::new()]; loops.len()]; configurations.len()];
    let mut hooks = vec![String::new(); configurations.len()];
    let rounds = std::env::var("ROUNDS").map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (row, (_, options)) in configurations.iter().enumerate() {
            let before = loops.iter_mut().map(Loop::run).collect::<Result<Vec<_>>>()?;
            let mut kernel = Probes::load(options)?;
            // Somebody is a target all the time.
            kernel.add_target(std::process::id())?;
            let mut with = Vec::new();
            for one in &mut loops {
                let target = kernel.add_target(one.process.child.id())?;
                let as_target = one.run()?;
                kernel.remove_target(&target);
                with.push([as_target, one.run()?]);
                kernel.drain();
            }
            if options.exact
                && let Some(feature) = kernel.features().get("mapped")
                && let State::On { hook, .. } = feature.state
            {
                hooks[row] = format!(" ({hook})");
            }
            drop(kernel);
            for (column, one) in loops.iter_mut().enumerate() {
                let without = f64::midpoint(before[column], one.run()?);
                for cell in 0..2 {
                    ratios[row][column][cell].push(with[column][cell] / without);
                }
            }
        }
    }
    print!("| hooks |");
    for one in &loops {
        print!(" {}: target | neighbour |", one.name);
    }
    println!("\n|---|{}", "---|---|".repeat(loops.len()));
    for ((name, _), (hook, row)) in configurations.iter().zip(hooks.iter().zip(&mut ratios)) {
        print!("| {name}{hook} |");
        for cell in row.iter_mut().flatten() {
            cell.sort_by(f64::total_cmp);
            print!(" {:.2} ({:.2} to {:.2}) |", cell[cell.len() / 2], cell[0], cell[cell.len() - 1]);
        }
        println!();
    }
    println!("\n| program | loop | nanoseconds a run: target | neighbour |\n|---|---|---|---|");
    let _measured = enable_stats(Stats::RunTime)?;
    for (_, options) in
        configurations.iter().filter(|(name, _)| name.contains("default") || name.contains("exact"))
    {
        let mut kernel = Probes::load(options)?;
        for one in &mut loops {
            let start = runs();
            let target = kernel.add_target(one.process.child.id())?;
            one.run()?;
            kernel.remove_target(&target);
            let middle = runs();
            // A machine's idle sched_switches are not this loop's: the program's cost to whoever is no target.
            one.run()?;
            let end = runs();
            for (name, after) in &end {
                let each = |from: &Runs, to: &Runs| {
                    let (nanoseconds, count) = (to[name].0 - from[name].0, to[name].1 - from[name].1);
                    (count >= 1000).then(|| nanoseconds as f64 / count as f64)
                };
                if let (Some(target), Some(neighbour)) = (each(&start, &middle), each(&middle, &end))
                    && after.1 > 0
                {
                    println!("| {name} | {} | {target:.0} | {neighbour:.0} |", one.name);
                }
            }
            kernel.drain();
        }
    }
    Ok(())
}

/// Nanoseconds and runs by program, since it was loaded.
type Runs = BTreeMap<String, (u128, u64)>;

/// Of our own programs: their names tell them apart, and only the newest of a name is running.
fn runs() -> Runs {
    loaded_programs()
        .filter_map(Result::ok)
        .filter_map(|program| {
            let name = program.name_as_str()?.to_owned();
            ["waits", "growth", "exact_btf", "exact_tracepoin"]
                .contains(&name.as_str())
                .then(|| (name, (program.run_time().as_nanos(), program.run_count())))
        })
        .collect()
}
