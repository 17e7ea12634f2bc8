//! The daemon with many targets: what it costs in all, and what a scrape of it costs.
//!
//! Fifty Go services without load, 360 goroutines each, so that what is measured is observing and not what they do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::measure::{self, Budget, Row, Unit};
use crate::checkout;
use crate::interrupt::interrupted;
use crate::run::{Background, Clock};

const TARGETS: usize = 50;
const LISTEN: &str = "127.0.0.1:19713";
/// Until every target has its verdict.
const SETTLE: Duration = Duration::from_secs(60);
/// Windows in which CPU time is taken.
const WINDOW: Duration = Duration::from_secs(10);
const SCRAPES: usize = 9;

pub fn rows(clock: Clock, observer: &Path, quick: bool) -> Result<Vec<Row>> {
    let program = checkout::build(clock)?;
    clock.say("measure", &format!("observer run with {TARGETS} targets: settles for a minute"));
    let mut services = Vec::with_capacity(TARGETS);
    for _ in 0..TARGETS {
        let mut command = Command::new(&program);
        command
            .args(["serve", "--fixed", "--tied", "--for", "300s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        services.push(Background::start("a service", &mut command)?);
    }
    let mut command = Command::new(observer);
    command
        .args(["run", "--listen", LISTEN, "--exe"])
        .arg(&program)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.stderr(Stdio::null());
    let mut daemon = Background::start("observer run", &mut command)?;
    let pid = daemon.child().id();
    rest(SETTLE)?;

    let mut cpu = Vec::new();
    for _ in 0..if quick { 3 } else { 6 } {
        let (before, began) = (measure::cpu_seconds(pid)?, Instant::now());
        rest(WINDOW)?;
        cpu.push(100.0 * (measure::cpu_seconds(pid)? - before) / began.elapsed().as_secs_f64());
    }
    let resident = measure::resident_bytes(pid).context("observer run has ended")?;
    let (mut scrapes, mut series) = (Vec::new(), 0.0);
    for _ in 0..SCRAPES {
        let began = Instant::now();
        let answer = scrape()?;
        scrapes.push(began.elapsed().as_secs_f64() * 1e3);
        series = answer.lines().filter(|line| line.starts_with("observer_")).count() as f64;
        let up = answer.lines().filter(|line| line.starts_with("observer_target_up") && line.ends_with(" 1"));
        let up = up.count();
        if up < TARGETS {
            bail!("only {up} of {TARGETS} targets are observed");
        }
    }
    daemon.still_runs()?;
    Ok(vec![
        Row::new("observer run, 50 Go services: CPU of one core", cpu, Unit::Percent, Budget::AtMost(5.0)),
        Row::new("the same: resident memory", vec![resident / 1048576.0], Unit::MiB, Budget::AtMost(128.0)),
        Row::new("the same: a scrape", scrapes, Unit::Milliseconds, Budget::None),
        Row::new(
            "the same: series a target",
            vec![series / TARGETS as f64],
            Unit::Count,
            Budget::AtMost(100.0),
        ),
    ])
}

fn rest(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if interrupted() {
            bail!("interrupted");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn scrape() -> Result<String> {
    let mut stream = TcpStream::connect(LISTEN).context("observer run does not listen")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(
        format!("GET /metrics HTTP/1.1\r\nHost: {LISTEN}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
