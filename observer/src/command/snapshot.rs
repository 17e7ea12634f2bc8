//! `observer snapshot`: one moment; with `--growth` also what grew while it was watched for some time.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use jiff::{Timestamp, Unit};

use super::{parse_duration, style};
use crate::diagnose::locks;
use crate::observe::{DRAIN, Observer, Options};
use crate::process::find;
use crate::tell::report::{Snapshot, folded, json, pprof, svg, text};

#[derive(clap::Args)]
pub struct Arguments {
    /// The process: its pid, or its name where only one process has it
    #[arg(value_name = "PID|NAME", allow_negative_numbers = true)]
    target: String,
    /// How to write it: text and json hold everything; folded, pprof and svg hold the stacks
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Say what each group keeps on the Go heap, however long following it takes (at most some seconds)
    #[arg(long)]
    retained: bool,
    /// Watch for so long, and say what memory grew meanwhile, by the stack that first touched it; folded, pprof and
    /// svg then hold those stacks, weighted by bytes
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "no_ebpf")]
    growth: Option<Duration>,
    /// Do not load eBPF, also where it works
    #[arg(long)]
    no_ebpf: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A page to read
    Text,
    /// One document, schema observer.snapshot/1
    Json,
    /// A line a stack, as flame graph tools take them
    Folded,
    /// A gzipped profile for `go tool pprof`
    Pprof,
    /// A flame graph
    Svg,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let pid = find::find(&arguments.target)?;
    let options = Options {
        exact: false,
        growth: arguments.growth.is_some(),
        retained: arguments.retained,
        allocations: None,
    };
    let mut observer = Observer::attach(pid, &options, super::kernel_source(arguments.no_ebpf))?;
    if let Some(time) = arguments.growth {
        watch(&mut observer, time);
    }
    let mut sample = observer.snapshot()?;
    locks::tell(&mut sample);
    let now = Timestamp::now();
    let taken_at = now.round(Unit::Second).unwrap_or(now).to_string();
    let snapshot = Snapshot::new(observer.info().clone(), sample, taken_at);
    let mut out = io::stdout().lock();
    let nanos = i64::try_from(now.as_nanosecond()).unwrap_or(0);
    let binary = matches!(arguments.format, Format::Pprof) && out.is_terminal();
    anyhow::ensure!(
        !binary,
        "a pprof profile is binary: write it to a file (observer snapshot {pid} --format pprof > {}.pb.gz)",
        if arguments.growth.is_some() { "growth" } else { "blocked" }
    );
    // What was asked for is not replaced by something else.
    let only_stacks = !matches!(arguments.format, Format::Text | Format::Json);
    if arguments.growth.is_some() && only_stacks && snapshot.growth.is_none() {
        return Err(svg::SvgError::NoGrowth.into());
    }
    let title = text::target(&snapshot.target);
    match (arguments.format, &snapshot.growth) {
        (Format::Text, _) => out.write_all(text::snapshot(&snapshot, style::of_stdout()).as_bytes())?,
        (Format::Json, _) => out.write_all(json::snapshot(&snapshot)?.as_bytes())?,
        (Format::Folded, Some(growth)) => out.write_all(folded::growth(&growth.sites).as_bytes())?,
        (Format::Folded, None) => out.write_all(folded::folded(&snapshot.groups).as_bytes())?,
        (Format::Pprof, Some(growth)) => {
            let watched = arguments.growth.unwrap_or_default();
            out.write_all(&pprof::grown(&growth.sites, &snapshot.target, watched, nanos))?;
        }
        (Format::Pprof, None) => out.write_all(&pprof::blocked(&snapshot, nanos))?,
        (Format::Svg, Some(growth)) => out.write_all(&svg::growth(&growth.sites, &title)?)?,
        (Format::Svg, None) => out.write_all(&svg::svg(&snapshot.groups, &title)?)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Takes what the kernel tells of page faults, for so long or as long as the process lives.
fn watch(observer: &mut Observer, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until && observer.is_alive() {
        observer.drain();
        std::thread::sleep(DRAIN.min(until.saturating_duration_since(Instant::now())));
    }
    observer.drain();
}
