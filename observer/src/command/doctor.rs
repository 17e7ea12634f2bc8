//! `observer doctor`: what this machine, this kernel, these capabilities and a process allow.
//!
//! A line each, with the remedy. Loads the eBPF object for real, since nothing else proves that it loads.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;

use super::style;
use crate::escape::escape;
use crate::observe::check::{self, Finding, State};
use crate::process::find;

#[derive(clap::Args)]
pub struct Arguments {
    /// A process to look at as well: its pid, or its name where only one process has it
    #[arg(value_name = "PID|NAME", allow_negative_numbers = true)]
    target: Option<String>,
}

/// Exit codes of this command.
const DEGRADED: u8 = 1;
const UNUSABLE: u8 = 2;

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut findings = check::machine();
    if let Some(selector) = &arguments.target {
        match find::find(selector) {
            Ok(pid) => findings.extend(check::target(pid)),
            Err(error) => findings.push(Finding::unusable("process", error.to_string(), String::new())),
        }
    }
    let style = style::of_stdout();
    let mut out = io::stdout().lock();
    for finding in &findings {
        let (word, painted) = match finding.state {
            State::Good => ("ok", style.good("ok      ")),
            State::Degraded => ("degraded", style.warning("degraded")),
            State::Unusable => ("unusable", style.alarm("unusable")),
        };
        debug_assert!(painted.contains(word));
        writeln!(out, "{painted}  {:<18} {}", finding.what, escape(&finding.found))?;
        if !finding.remedy.is_empty() {
            writeln!(out, "{:>10}{:<18} remedy: {}", "", "", escape(&finding.remedy))?;
        }
    }
    let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Good);
    let (verdict, code) = match worst {
        State::Good => ("all good", ExitCode::SUCCESS),
        State::Degraded => ("works, with the limits named above", ExitCode::from(DEGRADED)),
        State::Unusable => ("does not work here", ExitCode::from(UNUSABLE)),
    };
    writeln!(out, "\n{verdict}")?;
    Ok(code)
}
