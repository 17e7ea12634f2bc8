//! `observer attach`: the main job. Watches a process for a while and ends with the diagnosis.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Usage, parse_duration, style};
use crate::diagnose::{Diagnosis, History, Verdict, diagnose};
use crate::observe::{Exited, Observer, Options};
use crate::target::find;
use crate::tell::report::{json, text};
use crate::tell::terminal::{LiveView, Plain, Progress};

/// How often what the kernel has put by is taken: its buffer holds some seconds of the worst.
const DRAIN: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Arguments {
    /// The process: its pid, or its name where only one process has it
    #[arg(value_name = "PID|NAME", allow_negative_numbers = true)]
    target: String,
    /// How long to watch before the verdict; Ctrl-C ends it early, with the verdict
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    duration: Duration,
    /// How often to look
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    interval: Duration,
    /// How to write the diagnosis
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Exit with 3 when the verdict is this
    #[arg(long, value_enum, value_name = "VERDICT")]
    fail_on: Option<FailOn>,
    /// Count every futex wait and every byte mapped; slows each syscall of the whole machine
    #[arg(long, conflicts_with = "no_ebpf")]
    exact: bool,
    /// Do not load eBPF, also where it works
    #[arg(long)]
    no_ebpf: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A page to read
    Text,
    /// One document at the end, schema observer.diagnosis/1
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Leak,
    /// A leak, or memory that grows without a group that accounts for it
    Growing,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    check(arguments)?;
    let pid = find::find(&arguments.target)?;
    let options = Options { exact: arguments.exact, growth: true, retained: true };
    let mut observer = Observer::attach(pid, &options, super::kernel_source(arguments.no_ebpf))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    let diagnosis = runtime.block_on(watch(&mut observer, arguments))?;

    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Text => out.write_all(text::diagnosis(&diagnosis, style::of_stdout()).as_bytes())?,
        Format::Json => out.write_all(json::diagnosis(&diagnosis)?.as_bytes())?,
    }
    out.flush()?;
    Ok(if met(arguments.fail_on, diagnosis.verdict) { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn check(arguments: &Arguments) -> Result<(), Usage> {
    let least = Duration::from_millis(100);
    if arguments.interval < least {
        return Err(Usage(format!("--interval {:?} is too short: at least 100ms", arguments.interval)));
    }
    if arguments.duration < arguments.interval {
        return Err(Usage(format!(
            "--duration {:?} is shorter than --interval {:?}: nothing could be compared; watch for at least 10s",
            arguments.duration, arguments.interval
        )));
    }
    Ok(())
}

fn met(fail_on: Option<FailOn>, verdict: Verdict) -> bool {
    match fail_on {
        None => false,
        Some(FailOn::Leak) => verdict == Verdict::Leak,
        Some(FailOn::Growing) => matches!(verdict, Verdict::Leak | Verdict::Growing),
    }
}

/// Samples until the time is over, the process exits or the user has seen enough.
async fn watch(observer: &mut Observer, arguments: &Arguments) -> Result<Diagnosis> {
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut samples = interval(arguments.interval);
    samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut drains = interval(DRAIN);
    drains.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = Instant::now() + arguments.duration;

    let mut progress = progress(arguments);
    let mut history = History::new();
    let mut exited = false;
    progress.begin(observer.info(), arguments.duration);
    loop {
        let taken = tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = sleep_until(end) => break,
            _ = samples.tick() => observer.sample(),
            _ = drains.tick() => { observer.drain(); continue; }
        };
        match taken {
            Ok(sample) => {
                progress.sample(observer.info(), &sample);
                history.push(sample);
            }
            Err(Exited) => {
                exited = true;
                break;
            }
        }
    }
    // Also after Ctrl-C: what members keep is measured last, when most is there to measure.
    if !exited {
        match observer.last_sample() {
            Ok(sample) => history.push(sample),
            Err(Exited) => exited = true,
        }
    }
    progress.end();
    if exited {
        history.mark_exited();
    }
    Ok(diagnose(&history, observer.info()))
}

/// Something to watch on a terminal, a line now and then elsewhere; never on the output that a program reads.
fn progress(arguments: &Arguments) -> Box<dyn Progress> {
    let both = io::stdout().is_terminal() && io::stderr().is_terminal();
    match arguments.format {
        Format::Text if both => Box::new(LiveView::new(io::stderr())),
        Format::Text | Format::Json => Box::new(Plain::new(io::stderr())),
    }
}
