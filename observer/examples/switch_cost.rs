//! What a target pays at a context switch above an empty program at the same hook: `cargo run --release --example
//! switch_cost`, as root.
//!
//! The same futex ping-pong in the same process: nothing attached, an empty program, observer with its default hooks,
//! an empty program, nothing, round after round, so that other load on the machine meets all of them. CPU time of the
//! process. observer is drained as `attach` drains it. Prints a line a scene: the targets, the threads of the one that
//! is measured, and of each round observer by the empty program and that by nothing.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use observer::kernel::floor::Floor;
use observer::kernel::{KernelOptions, Probes};

#[path = "driven/program.rs"]
mod program;

use program::{Driven, build};

/// Or as the environment variable ROUNDS says.
const ROUNDS: usize = 21;
/// Hand-overs of a run, of all pairs together.
const HANDED: &str = "40000";
/// As `attach` does.
const DRAIN: Duration = Duration::from_millis(50);
/// Until the share of waits that are timed has settled.
const SETTLE: Duration = Duration::from_millis(600);

/// Targets, and threads of the one that is measured.
const SCENES: [(usize, usize); 4] = [(1, 10), (1, 1000), (50, 10), (50, 1000)];

fn main() -> Result<()> {
    let rounds: usize = std::env::var("ROUNDS").map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let binary = build("pingpong")?;
    println!(
        "| targets, threads | observer by the empty program | the empty program by nothing |\n|---|---|---|"
    );
    for (targets, threads) in SCENES {
        let scene = scene(&binary, targets, threads, rounds);
        let [above, floor] = scene.inspect_err(|_| drop(std::fs::remove_file(&binary)))?;
        println!("| {targets} | {threads} | {} | {} |", shown(&above), shown(&floor));
    }
    nanoseconds(&binary)?;
    std::fs::remove_file(&binary)?;
    Ok(())
}

/// Ratios of each round: observer by the empty program, and that by nothing.
fn scene(binary: &Path, targets: usize, threads: usize, rounds: usize) -> Result<[Vec<f64>; 2]> {
    let mut game = Game::start(binary, threads / 2)?;
    let others = (1..targets).map(|_| Game::start(binary, 1)).collect::<Result<Vec<_>>>()?;
    let floor = Floor::load()?;
    game.run()?;
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let nothing = game.run()?;
        let attached = floor.attach()?;
        let empty = game.run()?;
        drop(attached);
        let observed = observed(&mut game, &others, Game::run)?;
        let attached = floor.attach()?;
        let empty = f64::midpoint(empty, game.run()?);
        drop(attached);
        ratios[0].push(observed / empty);
        ratios[1].push(empty / f64::midpoint(nothing, game.run()?));
    }
    Ok(ratios)
}

/// What is measured while it is a target among others and the share of waits that are timed has settled.
fn observed(game: &mut Game, others: &[Game], measured: impl Fn(&mut Game) -> Result<f64>) -> Result<f64> {
    let mut kernel = Probes::load(&KernelOptions::default())?;
    for other in others.iter().chain([&*game]) {
        kernel.add_target(other.process.child.id())?;
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
        let begun = std::time::Instant::now();
        let mut took = game.run();
        while begun.elapsed() < SETTLE && took.is_ok() {
            took = game.run();
        }
        let took = took.and_then(|_| measured(game));
        done.store(true, Ordering::Relaxed);
        took
    })
}

/// Prints what a run of each program takes, by the kernel's own count.
fn nanoseconds(binary: &Path) -> Result<()> {
    let _measured = enable_stats(Stats::RunTime)?;
    let each = |game: &mut Game, name: &str| {
        let before = runs(name)?;
        game.run()?;
        let after = runs(name)?;
        Ok((after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64)
    };
    let mut game = Game::start(binary, 5)?;
    let floor = Floor::load()?;
    let attached = floor.attach()?;
    let empty = each(&mut game, "floor")?;
    drop(attached);
    let observer = observed(&mut game, &[], |game| each(game, "waits"))?;
    println!(
        "\nA run of the empty program takes {empty:.0} ns, of observer's {observer:.0} ns, by the kernel's count."
    );
    Ok(())
}

/// Nanoseconds and runs of a program since it was loaded.
fn runs(name: &str) -> Result<(u128, u64)> {
    let program = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.name_as_str() == Some(name))
        .with_context(|| format!("no program {name}"))?;
    Ok((program.run_time().as_nanos(), program.run_count()))
}

fn shown(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(" ")
}

/// Hands turns to and fro between pairs of threads.
struct Game {
    process: Driven,
}

impl Game {
    fn start(binary: &Path, pairs: usize) -> Result<Self> {
        Ok(Self { process: Driven::start(Command::new(binary).arg(pairs.to_string()))? })
    }

    /// Seconds of CPU for one run.
    fn run(&mut self) -> Result<f64> {
        self.process.run(HANDED)
    }
}
