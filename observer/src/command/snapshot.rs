//! `observer snapshot`: one moment.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use jiff::{Timestamp, Unit};

use super::style;
use crate::observe::{Observer, Options};
use crate::target::find;
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
    let options = Options { exact: false, growth: false, retained: arguments.retained };
    let mut observer = Observer::attach(pid, &options, super::kernel_source(arguments.no_ebpf))?;
    let sample = observer.snapshot()?;
    let now = Timestamp::now();
    let taken_at = now.round(Unit::Second).unwrap_or(now).to_string();
    let snapshot = Snapshot::new(observer.info().clone(), sample, taken_at);
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Text => out.write_all(text::snapshot(&snapshot, style::of_stdout()).as_bytes())?,
        Format::Json => out.write_all(json::snapshot(&snapshot)?.as_bytes())?,
        Format::Folded => out.write_all(folded::folded(&snapshot.groups).as_bytes())?,
        Format::Pprof => {
            anyhow::ensure!(
                !out.is_terminal(),
                "a pprof profile is binary: write it to a file (observer snapshot {pid} --format pprof > blocked.pb.gz)"
            );
            out.write_all(&pprof::blocked(&snapshot, i64::try_from(now.as_nanosecond()).unwrap_or(0)))?;
        }
        Format::Svg => out.write_all(&svg::svg(&snapshot.groups, &text::target(&snapshot.target))?)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
