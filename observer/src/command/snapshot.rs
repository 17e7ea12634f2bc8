//! `observer snapshot`: one moment.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::style;
use crate::observe::{Observer, Options};
use crate::target::find;
use crate::tell::report::{Snapshot, json, text};

#[derive(clap::Args)]
pub struct Arguments {
    /// The process: its pid, or its name where only one process has it
    #[arg(value_name = "PID|NAME")]
    target: String,
    /// How to write it: for a person or for a program
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
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
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let pid = find::find(&arguments.target)?;
    let options = Options { ebpf: !arguments.no_ebpf, exact: false, growth: false };
    let mut observer = Observer::attach(pid, &options)?;
    let sample = observer.snapshot()?;
    let taken_at = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
    let snapshot = Snapshot::new(observer.info().clone(), sample, taken_at);
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Text => out.write_all(text::snapshot(&snapshot, style::of_stdout()).as_bytes())?,
        Format::Json => writeln!(out, "{}", json::snapshot(&snapshot)?)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
