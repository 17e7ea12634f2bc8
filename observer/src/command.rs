//! A file a verb of the command line.

pub mod attach;
pub mod completions;
pub mod doctor;
pub mod man;
mod outcome;
mod record;
pub mod replay;
pub mod run;
pub mod snapshot;
mod style;

use thiserror::Error;

use crate::config::units::{duration as parse_duration, sample_bytes as parse_sample_bytes};
use crate::observe::KernelSource;

/// What `--version` prints behind the name.
#[cfg(observer_ebpf)]
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (with eBPF)");
#[cfg(not(observer_ebpf))]
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (built without eBPF: ", env!("OBSERVER_EBPF_MISSING"), ")");

/// What somebody types first, for help and manual.
pub const EXAMPLES: [(&str, &str); 4] = [
    ("observer attach checkout", "Watch it for a minute, then say who keeps its memory."),
    ("observer snapshot 4242", "This moment of the process with that pid."),
    ("observer run --exe checkout", "Watch all that run it: page and metrics on http://127.0.0.1:9713"),
    ("observer doctor 4242", "What works here and with this process, and what to do about the rest."),
];

/// As the end of `--help`.
pub fn examples() -> String {
    let width = EXAMPLES.iter().map(|(line, _)| line.len()).max().unwrap_or_default();
    let lines = EXAMPLES.iter().map(|(line, what)| format!("\n  {line:width$}  {what}"));
    format!(
        "Examples (as root, or with the capabilities that `observer doctor` names):{}",
        lines.collect::<String>()
    )
}

/// The kernel's half for one target, unless it is not wanted.
fn kernel_source(no_ebpf: bool) -> KernelSource {
    if no_ebpf { KernelSource::Off } else { KernelSource::Load }
}

/// Arguments that are each well-formed and do not go together: exit code 2, as for every other wrong argument.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Usage(String);
