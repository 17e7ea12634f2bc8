//! Snapshots of many goroutines: observer's CPU and memory, and what the target feels of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::measure::{self, Budget, Row, Unit, Used};
use crate::run::{Background, Clock};
use crate::{place, setup};

const MIB: f64 = 1024.0 * 1024.0;
/// How long observer's own CPU is watched while it is attached.
const WATCH: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(3);

pub fn rows(clock: Clock, observer: &Path, quick: bool) -> Result<Vec<Row>> {
    let program = build(clock)?;
    let rounds = if quick { 3 } else { 7 };
    let mut rows = Vec::new();

    let mut few = Many::start(&program, 100, false)?;
    clock.say("measure", "a snapshot of 100 goroutines: what starting costs");
    let start = snapshots(observer, few.pid(), rounds)?;
    rows.push(Row::new("snapshot of 100 goroutines: CPU", seconds(&start), Unit::Seconds, Budget::None));
    drop(few);

    let mut many = Many::start(&program, 100_000, false)?;
    clock.say("measure", "snapshots of 100,000 goroutines");
    let taken = snapshots(observer, many.pid(), rounds)?;
    rows.push(Row::new(
        "snapshot of 100,000 goroutines: CPU",
        seconds(&taken),
        Unit::Seconds,
        Budget::AtMost(0.1),
    ));
    rows.push(Row::new("the same: peak memory", peaks(&taken), Unit::MiB, Budget::AtMost(64.0)));
    clock.say("measure", "scheduling gaps of a target of 100,000 goroutines");
    rows.extend(gaps(observer, &mut many, rounds)?);
    drop(many);

    let mut different = Many::start(&program, 100_000, true)?;
    clock.say("measure", "snapshots of 100,000 different stacks");
    let taken = snapshots(observer, different.pid(), if quick { 1 } else { 3 })?;
    rows.push(Row::new(
        "snapshot of 100,000 goroutines in 100,000 different stacks: CPU",
        seconds(&taken),
        Unit::Seconds,
        Budget::None,
    ));
    rows.push(Row::new("the same: peak memory", peaks(&taken), Unit::MiB, Budget::AtMost(256.0)));
    drop(different);

    if !quick {
        let mut million = Many::start(&program, 1_000_000, false)?;
        clock.say("measure", "snapshots of 1,000,000 goroutines");
        let taken = snapshots(observer, million.pid(), 5)?;
        rows.push(Row::new(
            "snapshot of 1,000,000 goroutines: CPU",
            seconds(&taken),
            Unit::Seconds,
            Budget::AtMost(1.0),
        ));
        rows.push(Row::new("the same: peak memory", peaks(&taken), Unit::MiB, Budget::AtMost(256.0)));
    }

    clock.say("measure", "observer attached to 10,000 goroutines");
    let mut service = Many::start(&program, 10_000, false)?;
    rows.extend(attached(observer, service.pid())?);
    Ok(rows)
}

fn build(clock: Clock) -> Result<PathBuf> {
    let (go, version) = setup::newest_go().context("no Go toolchain (install: cargo xtask setup)")?;
    let program = place::work().join("many");
    let mut command = Command::new(go);
    command
        .current_dir(place::root().join("xtask/targets/go/many"))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(".")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    clock.run_logged("build", &format!("the target many, with Go {version}"), &mut command)?;
    Ok(program)
}

fn seconds(taken: &[Used]) -> Vec<f64> {
    taken.iter().map(|used| used.cpu_seconds).collect()
}

fn peaks(taken: &[Used]) -> Vec<f64> {
    taken.iter().map(|used| used.peak_bytes / MIB).collect()
}

fn snapshots(observer: &Path, pid: u32, rounds: usize) -> Result<Vec<Used>> {
    (0..rounds).map(|_| snapshot(observer, pid)).collect()
}

fn snapshot(observer: &Path, pid: u32) -> Result<Used> {
    let mut command = Command::new(observer);
    command.args(["snapshot", &pid.to_string(), "--format", "json"]).stdout(Stdio::null());
    measure::run("observer snapshot", &mut command)
}

/// The worst lateness of a timer while nothing happens, during a snapshot, and during the target's own dump.
fn gaps(observer: &Path, many: &mut Many, rounds: usize) -> Result<Vec<Row>> {
    let pid = many.pid();
    let [mut idle, mut observed, mut ratios] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        // As long as a snapshot takes.
        let quiet = many.worst_gap(|_| {
            thread::sleep(Duration::from_millis(300));
            Ok(())
        })?;
        let during = many.worst_gap(|_| snapshot(observer, pid).map(|_| ()))?;
        idle.push(quiet);
        observed.push(during);
        ratios.push(during / quiet.max(0.1));
    }
    let dump = many.worst_gap(|many| many.order("dump").map(|_| ()))?;
    Ok(vec![
        Row::new("worst scheduling gap of that target: idle", idle, Unit::Milliseconds, Budget::None),
        Row::new("the same during a snapshot", observed, Unit::Milliseconds, Budget::None),
        Row::new("a snapshot's by the idle one's beside it", ratios, Unit::Times, Budget::AtMost(1.5)),
        Row::new(
            "the same during its own dump (pprof debug=2)",
            vec![dump],
            Unit::Milliseconds,
            Budget::None,
        ),
    ])
}

fn attached(observer: &Path, pid: u32) -> Result<Vec<Row>> {
    let mut command = Command::new(observer);
    command.args(["attach", &pid.to_string(), "--duration", "60s"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut attached = Background::start("observer attach", &mut command)?;
    let observer = attached.child().id();
    thread::sleep(SETTLE);
    attached.still_runs()?;
    let mut percents = Vec::new();
    for _ in 0..4 {
        let before = measure::cpu_seconds(observer)?;
        thread::sleep(WATCH / 4);
        let used = measure::cpu_seconds(observer)? - before;
        percents.push(100.0 * used / (WATCH / 4).as_secs_f64());
    }
    let peak = measure::peak_bytes(observer).context("observer ended by itself")? / MIB;
    Ok(vec![
        Row::new(
            "observer attached to 10,000 goroutines: CPU of one core",
            percents,
            Unit::Percent,
            Budget::AtMost(1.0),
        ),
        Row::new("the same: peak memory", vec![peak], Unit::MiB, Budget::AtMost(64.0)),
    ])
}

/// The target program.
struct Many {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    program: Background,
}

impl Many {
    fn start(path: &Path, goroutines: u32, different: bool) -> Result<Self> {
        let mut command = Command::new(path);
        command.arg(goroutines.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        if different {
            command.arg("different");
        }
        let mut program = Background::start("the target many", &mut command)?;
        let input = program.child().stdin.take().context("the target has no input")?;
        let output = BufReader::new(program.child().stdout.take().context("the target has no output")?);
        let mut started = Self { input, output, program };
        let line = started.line()?;
        anyhow::ensure!(line.starts_with("ready"), "the target said `{line}` instead of ready");
        // What its start left to the garbage collector.
        thread::sleep(Duration::from_secs(1));
        Ok(started)
    }

    fn pid(&mut self) -> u32 {
        self.program.child().id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read from the target")?;
        Ok(line.trim().to_owned())
    }

    /// Gives an order that is answered.
    fn order(&mut self, order: &str) -> Result<String> {
        writeln!(self.input, "{order}").context("the target has ended")?;
        self.line()
    }

    /// In milliseconds, while something is done.
    fn worst_gap(&mut self, done: impl FnOnce(&mut Self) -> Result<()>) -> Result<f64> {
        writeln!(self.input, "begin").context("the target has ended")?;
        done(self)?;
        let answer = self.order("end")?;
        let microseconds: f64 = answer.parse().with_context(|| format!("the target said `{answer}`"))?;
        Ok(microseconds / 1000.0)
    }
}
