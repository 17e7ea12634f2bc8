//! `observer attach`: the main job. Watches a process for a while and ends with the diagnosis.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::outcome::{self, FailOn, Format};
use super::record::{self, Recorder};
use super::{Usage, parse_duration, parse_sample_bytes};
use crate::diagnose::{Diagnosis, History, diagnose, locks};
use crate::observe::{DRAIN, Observer, Options};
use crate::process::Exited;
use crate::process::find;
use crate::sample::Sample;
use crate::tell::report::html;
use crate::tell::terminal::{Plain, Progress, Screen};
use crate::timeline::Timeline;

/// Samples after which the report's picture is told who the culprits are.
const PREFER: u64 = 10;
/// How often the verdict so far is worked out while somebody looks.
const DIAGNOSE: Duration = Duration::from_millis(900);

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
    /// Count every byte mapped and unmapped, where the kernel permits no cheaper way; slows each syscall of the whole
    /// machine then
    #[arg(long, conflicts_with = "no_ebpf")]
    exact: bool,
    /// Name what is allocated and not freed (malloc and its like). Touches the process: breakpoints in its
    /// allocator's code, some 1 µs each call of it; the kernel takes them out at the end
    #[arg(long, conflicts_with = "no_ebpf")]
    allocations: bool,
    /// Sample one allocation in so many bytes
    #[arg(long, value_name = "BYTES", default_value = "512KiB", value_parser = parse_sample_bytes)]
    allocation_sample: u64,
    /// Do not load eBPF, also where it works
    #[arg(long)]
    no_ebpf: bool,
    /// Keep every sample in a file, for `observer replay FILE`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write the diagnosis as a page with its pictures: one HTML file to attach to an incident
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Overwrite the files of --record and --report
    #[arg(long)]
    force: bool,
    /// Lines instead of a full-screen view, also on a terminal
    #[arg(long)]
    plain: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    check(arguments)?;
    let pid = find::find(&arguments.target)?;
    let options = Options {
        exact: arguments.exact,
        growth: true,
        retained: true,
        allocations: arguments.allocations.then_some(arguments.allocation_sample),
    };
    let mut observer = Observer::attach(pid, &options, super::kernel_source(arguments.no_ebpf))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    let began_at = unix_now() - observer.at_seconds();
    let recorder = match &arguments.record {
        Some(path) => Some(Recorder::begin(path, arguments.force, observer.info(), began_at)?),
        None => None,
    };
    let mut watched = Watched {
        history: History::new(),
        timeline: arguments.report.is_some().then(Timeline::default),
        recorder,
        began_at,
        last: Arc::default(),
    };
    let diagnosis = runtime.block_on(watch(&mut observer, &mut watched, arguments))?;

    outcome::write(&diagnosis, arguments.format)?;
    // The diagnosis is out: what could not be written elsewhere is said after it, and decides the exit code.
    let recorded = watched.recorder.map_or(Ok(()), |recorder| recorder.end(diagnosis.exited));
    let reported = match (&arguments.report, &watched.timeline) {
        (Some(path), Some(timeline)) => report(path, arguments.force, &diagnosis, timeline, &watched.last),
        _ => Ok(()),
    };
    match (recorded, reported) {
        (Err(first), Err(second)) => {
            let _ = writeln!(io::stderr(), "observer: {}", crate::error_line::error_line(&first));
            return Err(second);
        }
        (recorded, reported) => recorded.and(reported)?,
    }
    Ok(outcome::code(&diagnosis, arguments.fail_on))
}

/// Writes the page that goes with a diagnosis.
pub(super) fn report(
    path: &Path,
    force: bool,
    diagnosis: &Diagnosis,
    timeline: &Timeline,
    last: &Sample,
) -> Result<()> {
    let page = html::diagnosis(diagnosis, timeline, last, unix_now());
    record::create(path, force)
        .and_then(|mut file| file.write_all(page.as_bytes()))
        .with_context(|| format!("writing the report {}", path.display()))
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
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
    for (flag, path) in [("--record", &arguments.record), ("--report", &arguments.report)] {
        path.as_ref().map_or(Ok(()), |path| record::refuse_existing(flag, path, arguments.force))?;
    }
    if arguments.record.is_some() && arguments.record == arguments.report {
        return Err(Usage("--record and --report name the same file".to_owned()));
    }
    Ok(())
}

/// What is kept of the samples.
struct Watched {
    history: History,
    /// For the report.
    timeline: Option<Timeline>,
    recorder: Option<Recorder>,
    /// Unix seconds of the samples' second 0.
    began_at: f64,
    last: Arc<Sample>,
}

impl Watched {
    fn keep(&mut self, observer: &Observer, mut sample: Sample) {
        locks::tell(&mut sample);
        let sample = Arc::new(sample);
        if let Some(recorder) = &mut self.recorder {
            recorder.sample(observer.info(), &sample);
        }
        self.history.push((*sample).clone());
        if let Some(timeline) = &mut self.timeline {
            if self.history.samples().is_multiple_of(PREFER) {
                // A culprit that is small yet is in the picture from now on.
                let diagnosis = diagnose(&self.history, observer.info());
                timeline.prefer(diagnosis.culprits.iter().map(|culprit| culprit.group.id));
            }
            timeline.push(self.began_at + sample.at_seconds, &sample);
        }
        self.last = sample;
    }
}

/// Samples until the time is over, the process exits or the user has seen enough.
async fn watch(observer: &mut Observer, watched: &mut Watched, arguments: &Arguments) -> Result<Diagnosis> {
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut samples = interval(arguments.interval);
    samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut drains = interval(DRAIN);
    drains.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = Instant::now() + arguments.duration;

    let enough = Arc::new(Notify::new());
    let mut progress = progress(arguments, &enough);
    let mut diagnosed = Instant::now();
    let mut exited = false;
    progress.begin(observer.info(), arguments.duration);
    loop {
        let taken = tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = enough.notified() => break,
            () = sleep_until(end) => break,
            _ = samples.tick() => observer.sample(),
            _ = drains.tick() => { observer.drain(); continue; }
        };
        match taken {
            Ok(sample) => watched.keep(observer, sample),
            Err(Exited) => {
                exited = true;
                break;
            }
        }
        progress.sample(observer.info(), &watched.last);
        if progress.wants_diagnosis() && diagnosed.elapsed() >= DIAGNOSE {
            let diagnosis = diagnose(&watched.history, observer.info());
            progress.diagnosis(diagnosis);
            diagnosed = Instant::now();
        }
    }
    // Also after Ctrl-C: what members keep is measured last, when most is there to measure.
    if !exited {
        match observer.last_sample() {
            Ok(sample) => watched.keep(observer, sample),
            Err(Exited) => exited = true,
        }
    }
    progress.end();
    if exited {
        watched.history.mark_exited();
    }
    Ok(diagnose(&watched.history, observer.info()))
}

/// A view of the whole terminal, where there is one to see and to press keys on; a line now and then elsewhere, never
/// on the output that a program reads.
fn progress(arguments: &Arguments, enough: &Arc<Notify>) -> Box<dyn Progress> {
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    // A serial console, or a terminal that nobody told its size.
    let shapeless =
        terminal_size::terminal_size().is_none_or(|(width, height)| width.0 == 0 || height.0 == 0);
    if terminal && !dumb && !shapeless && !arguments.plain && arguments.format == Format::Text {
        match Screen::open(arguments.interval, Arc::clone(enough)) {
            Ok(screen) => return Box::new(screen),
            Err(error) => tracing::warn!(%error, "no full-screen view: lines instead"),
        }
    }
    Box::new(Plain::new(io::stderr()))
}
