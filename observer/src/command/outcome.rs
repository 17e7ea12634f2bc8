//! How `attach` and `replay` end: the diagnosis written as asked for, and the exit code that goes with it.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::style;
use crate::diagnose::{Diagnosis, Verdict};
use crate::tell::report::{json, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A page to read
    Text,
    /// One document at the end, schema observer.diagnosis/1
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    /// A group of goroutines or threads that grows, does not drain and holds what grew
    Leak,
    /// A leak, or memory that grows without a group that accounts for it
    Growing,
}

pub(super) fn write(diagnosis: &Diagnosis, format: Format) -> Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Text => out.write_all(text::diagnosis(diagnosis, style::of_stdout()).as_bytes())?,
        Format::Json => out.write_all(json::diagnosis(diagnosis)?.as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

pub(super) fn code(diagnosis: &Diagnosis, fail_on: Option<FailOn>) -> ExitCode {
    if met(fail_on, diagnosis.verdict) { ExitCode::from(3) } else { ExitCode::SUCCESS }
}

fn met(fail_on: Option<FailOn>, verdict: Verdict) -> bool {
    match fail_on {
        None => false,
        Some(FailOn::Leak) => verdict == Verdict::Leak,
        Some(FailOn::Growing) => matches!(verdict, Verdict::Leak | Verdict::Growing),
    }
}
