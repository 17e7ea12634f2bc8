//! What a process pays for being watched by observer, and by what people use otherwise: the same loop beside each, by
//! the same loop alone just before and after. By the clock, as a tracer that stops its target costs it no CPU.
//!
//! The peers answer other questions, and none of them all of ours: the rows say what to expect of such hooks.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::measure::{Budget, Row, Unit};
use crate::interrupt::interrupted;
use crate::place;
use crate::run::{Background, Clock};

/// Until a tool has attached; what takes longest is bpftrace.
const SETTLE: Duration = Duration::from_secs(4);
/// One run of a loop ends within this, whatever watches it.
const LONGEST: Duration = Duration::from_secs(120);

/// A loop, its order, and who watches it: the words, with `PID` for the pid and `LIBC` for the libc it has mapped.
struct Scene {
    what: &'static str,
    program: &'static str,
    order: &'static str,
    watched: &'static [(&'static str, &'static [&'static str])],
}

const SCENES: [Scene; 3] = [
    Scene {
        what: "futex ping-pong",
        program: "pingpong",
        order: "30000",
        watched: &[
            ("observer attach", &["observer", "attach", "PID", "--duration", "1h"]),
            (
                "bpftrace, futex by stack",
                &["bpftrace", "-e", "tracepoint:syscalls:sys_enter_futex /pid == PID/ {@[ustack]=count()}"],
            ),
            (
                "perf record, sched_switch by stack",
                &["perf", "record", "-q", "-e", "sched:sched_switch", "-g", "-p", "PID", "-o", "/dev/null"],
            ),
            ("perf trace, summary", &["perf", "trace", "-s", "-e", "futex", "-p", "PID", "-o", "/dev/null"]),
            ("strace, summary", &["strace", "-f", "-c", "-e", "trace=futex", "-p", "PID", "-o", "/dev/null"]),
        ],
    },
    Scene {
        what: "map, touch, unmap 16 KiB",
        program: "loops",
        order: "fault 30000",
        watched: &[
            ("observer attach", &["observer", "attach", "PID", "--duration", "1h"]),
            (
                "bpftrace, mmap by stack",
                &[
                    "bpftrace",
                    "-e",
                    "tracepoint:syscalls:sys_enter_mmap /pid == PID/ {@[ustack]=sum(args->len)}",
                ],
            ),
            (
                "perf record, page faults by stack",
                &[
                    "perf",
                    "record",
                    "-q",
                    "-e",
                    "page-faults",
                    "-c",
                    "1",
                    "-g",
                    "-p",
                    "PID",
                    "-o",
                    "/dev/null",
                ],
            ),
            (
                "strace, summary",
                &["strace", "-f", "-c", "-e", "trace=memory", "-p", "PID", "-o", "/dev/null"],
            ),
        ],
    },
    Scene {
        what: "malloc and free of 64 bytes",
        program: "loops",
        order: "malloc 3000000",
        watched: &[
            ("observer attach", &["observer", "attach", "PID", "--duration", "1h"]),
            (
                "observer attach --allocations",
                &["observer", "attach", "PID", "--duration", "1h", "--allocations"],
            ),
            (
                "bpftrace, malloc by stack",
                &["bpftrace", "-p", "PID", "-e", "uprobe:LIBC:malloc /pid == PID/ {@[ustack]=sum(arg0)}"],
            ),
        ],
    },
];

pub fn rows(clock: Clock, observer: &Path, quick: bool) -> Result<Vec<Row>> {
    let rounds = if quick { 2 } else { 5 };
    let tracefs = Tracefs::mount();
    let mut rows = Vec::new();
    for scene in &SCENES {
        for (name, command) in scene.watched {
            clock.say("measure", &format!("{} beside {name}", scene.what));
            let what = format!("{}: time beside {name}", scene.what);
            let needs_tracefs = ["bpftrace", "perf"].contains(&command[0]);
            let tracefs = if needs_tracefs { tracefs.as_ref().err() } else { None };
            rows.push(match beside(scene, command, observer, rounds) {
                Ok(ratios) => Row::new(what, ratios, Unit::Times, Budget::None),
                Err(_) if interrupted() => bail!("interrupted"),
                // One that does not run here takes nothing from the others.
                Err(error) => match tracefs {
                    Some(why) => Row::left_out(what, &anyhow::anyhow!("{why:#}; {error:#}")),
                    None => Row::left_out(what, &error),
                },
            });
        }
    }
    Ok(rows)
}

/// By the time alone just before and after.
fn beside(scene: &Scene, command: &[&str], observer: &Path, rounds: u32) -> Result<Vec<f64>> {
    let mut target = Loop::start(scene)?;
    target.run()?;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let before = target.run()?;
        let with = {
            let mut watching = watcher(observer, command, target.child.id())?;
            thread::sleep(SETTLE);
            watching.still_runs().with_context(|| command.join(" "))?;
            target.run()?
        };
        ratios.push(2.0 * with / (before + target.run()?));
        if interrupted() {
            bail!("interrupted");
        }
    }
    Ok(ratios)
}

/// Where peers find tracepoints: mounted for them where it is not, and taken away again.
struct Tracefs {
    mounted: bool,
}

impl Tracefs {
    const PLACE: &str = "/sys/kernel/tracing";

    fn mount() -> Result<Self> {
        let is_there = || Path::new(Self::PLACE).join("events").is_dir();
        if is_there() {
            return Ok(Self { mounted: false });
        }
        let mut mount = Command::new("mount");
        crate::run::check(mount.args(["-t", "tracefs", "tracefs", Self::PLACE])).context("no tracefs")?;
        if !is_there() {
            bail!("no tracefs at {} although it was mounted", Self::PLACE);
        }
        Ok(Self { mounted: true })
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if self.mounted {
            // It is in the way of nobody where that fails.
            let _ = crate::run::check(Command::new("umount").arg(Self::PLACE));
        }
    }
}

fn watcher(observer: &Path, words: &[&str], pid: u32) -> Result<Background> {
    let (program, arguments) = words.split_first().context("a command")?;
    let filled =
        arguments.iter().map(|word| word.replace("PID", &pid.to_string()).replace("LIBC", &libc(pid)));
    let mut command = Command::new(if *program == "observer" { observer } else { Path::new(program) });
    command.args(filled).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Background::start("the tool", &mut command).with_context(|| words.join(" "))
}

/// The libc that a process has mapped.
fn libc(pid: u32) -> String {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    paths.find(|path| path.contains("/libc.so")).unwrap_or("libc").to_owned()
}

struct Loop {
    order: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Loop {
    fn start(scene: &Scene) -> Result<Self> {
        let source = place::root().join("xtask/targets/c").join(scene.program).join("main.c");
        let binary = place::work().join(format!("bench-{}", scene.program));
        let mut compiler = Command::new("gcc");
        crate::run::check(compiler.args(["-O2", "-pthread", "-o"]).arg(&binary).arg(source))?;
        let mut child = Command::new(&binary).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("piped")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        let mut started = Self { order: scene.order, child, input, output };
        started.line()?;
        Ok(started)
    }

    fn line(&mut self) -> Result<()> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the loop ended by itself");
        }
        Ok(())
    }

    /// Seconds for one run of it.
    fn run(&mut self) -> Result<f64> {
        let began = Instant::now();
        writeln!(self.input, "{}", self.order)?;
        self.line()?;
        let took = began.elapsed();
        if took > LONGEST {
            bail!("one run took {took:?}: too slow to go on with");
        }
        Ok(took.as_secs_f64())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Both fail only when it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
