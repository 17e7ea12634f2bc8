//! What everybody pays where hooks are there in windows only, as in `observer run`: `cargo run --release --example
//! window_cost`, as root.
//!
//! The same loop in the same process, for two periods with the hooks by half as long without them just before and
//! after; CPU time of the process. The hooks are drained as `run` drains them. Prints a line a loop: its name, and the
//! ratio of each round.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use observer::kernel::{Hooks, KernelOptions, Probes, Windows};

#[path = "driven/program.rs"]
mod program;

use program::{Driven, build};

/// Or as the environment variable ROUNDS says.
const ROUNDS: usize = 5;
/// As `run` does.
const DRAIN: Duration = Duration::from_millis(100);
/// The kernel tells once a second how often it switches: by then the windows have begun.
const SETTLE: Duration = Duration::from_secs(4);

/// Name, program, what it is told, whether it is the target.
const LOOPS: [(&str, &str, &str, bool); 3] = [
    ("futex ping-pong, target", "pingpong", "20000", true),
    ("futex ping-pong, neighbour", "pingpong", "20000", false),
    ("fault loop, target", "loops", "fault 12000", true),
];

fn main() -> Result<()> {
    let rounds: usize = std::env::var("ROUNDS").map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    for (name, program, order, target) in LOOPS {
        let mut one = Loop::start(program, order)?;
        let period = Windows::default().every;
        one.run_for(Duration::from_secs(1))?;
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            let before = one.run_for(period / 2)?;
            let with = with_windows(&mut one, target, 2 * period)?;
            ratios.push(format!("{:.3}", with / f64::midpoint(before, one.run_for(period / 2)?)));
        }
        println!("| {name} | {} |", ratios.join(" "));
    }
    Ok(())
}

/// Seconds a run for so long, beside hooks that have come to windows.
fn with_windows(one: &mut Loop, target: bool, time: Duration) -> Result<f64> {
    let options = KernelOptions { hooks: Hooks::Windows(Windows::default()), ..KernelOptions::default() };
    let mut kernel = Probes::load(&options)?;
    // Somebody is a target all the time.
    kernel.add_target(std::process::id())?;
    if target {
        kernel.add_target(one.process.child.id())?;
    }
    let (kernel, done) = (Mutex::new(kernel), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(mut kernel) = kernel.lock() {
                    kernel.drain();
                }
                thread::sleep(DRAIN);
            }
        });
        let took = one.run_for(SETTLE).and_then(|_| one.run_for(time));
        done.store(true, Ordering::Relaxed);
        took
    })
}

struct Loop {
    order: &'static str,
    process: Driven,
}

impl Loop {
    fn start(program: &str, order: &'static str) -> Result<Self> {
        let binary = build(program)?;
        let process = Driven::start(&mut Command::new(&binary));
        std::fs::remove_file(&binary)?;
        Ok(Self { order, process: process? })
    }

    /// The mean of all runs of so long a time.
    fn run_for(&mut self, time: Duration) -> Result<f64> {
        let begun = Instant::now();
        let (mut sum, mut runs) = (0.0, 0u32);
        while begun.elapsed() < time || runs == 0 {
            sum += self.process.run(self.order)?;
            runs += 1;
        }
        Ok(sum / f64::from(runs))
    }
}
