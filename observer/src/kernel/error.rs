//! Why the kernel half cannot be used, or a part of it: what was refused, and what helps.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;

use super::layout;

const PERMIT: &str = "run as root or grant it; seccomp must let bpf(2) through";
const BUILD_AGAIN: &str = "build it again after `cargo xtask setup`";

const RAISE: &str = "raise its limit: resources.limits.memory, MemoryMax";

const NEEDS_BTF: &str = "needs a kernel with CONFIG_DEBUG_INFO_BTF";

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("this binary was built without its eBPF object: {reason} ({BUILD_AGAIN})")]
    NotBuilt { reason: &'static str },
    #[error("bpf(2) is not permitted: {missing} missing ({PERMIT})")]
    NotPermitted { missing: String },
    #[error(
        "no memory for the eBPF {what}, which count against the memory limit of observer's own cgroup ({RAISE})"
    )]
    NoMemory { what: &'static str },
    #[error("{0} ({NEEDS_BTF})")]
    Layout(#[from] layout::LayoutError),
    #[error("loading the eBPF object: {0}")]
    Load(#[from] EbpfError),
    #[error("loading the eBPF program {program}: {reason} ({remedy})")]
    Program { program: &'static str, reason: String, remedy: String },
    #[error("eBPF map {map}: {error}")]
    Map { map: &'static str, error: MapError },
    #[error("no process {pid}")]
    NoSuchProcess { pid: u32 },
    #[error("process {pid} is a target already")]
    AlreadyTarget { pid: u32 },
    #[error("the eBPF object already serves {} targets", observer_common::target::MAX_TARGETS)]
    TooManyTargets,
    #[error("census of process {pid}: {error}")]
    Census { pid: u32, error: io::Error },
    #[error("this kernel offers no way to sample allocations")]
    NoAllocations,
    #[error("breakpoints in the allocator of process {pid}: {error}")]
    Breakpoints { pid: u32, error: io::Error },
}

impl KernelError {
    /// What helps against it, where that is known; the error's text has it in brackets at its end.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::NotBuilt { .. } => Some(BUILD_AGAIN),
            Self::NotPermitted { .. } => Some(PERMIT),
            Self::NoMemory { .. } => Some(RAISE),
            Self::Layout(_) => Some(NEEDS_BTF),
            Self::Program { remedy, .. } => Some(remedy),
            _ => None,
        }
    }

    /// What is the matter, without the remedy.
    pub fn reason(&self) -> String {
        let text = self.to_string();
        match self.remedy() {
            Some(remedy) => text.strip_suffix(&format!(" ({remedy})")).map(str::to_owned).unwrap_or(text),
            None => text,
        }
    }
}
