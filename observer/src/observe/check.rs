//! What `doctor` finds out: a line for each thing that observer needs, with the remedy.

use std::fs;
use std::path::Path;

use crate::format::bytes;
use crate::kernel::features::{Feature, State as HookState, is_granted_to_others, missing_capabilities};
use crate::kernel::{KernelOptions, Probes};
use crate::language;
use crate::process::Target;
use crate::runtime::Runtimes;
use crate::runtime::interface::RuntimeError;
use crate::sample::Degraded;

use super::own_memory;

/// Worse ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Good,
    Degraded,
    Unusable,
}

/// One line of the doctor.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub state: State,
    pub what: String,
    pub found: String,
    /// Empty where nothing is to be done.
    pub remedy: String,
}

impl Finding {
    fn new(state: State, what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state, what: what.to_owned(), found: found.into(), remedy: remedy.into() }
    }

    fn good(what: &str, found: impl Into<String>) -> Self {
        Self::new(State::Good, what, found, "")
    }

    fn degraded(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(State::Degraded, what, found, remedy)
    }

    pub(crate) fn unusable(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(State::Unusable, what, found, remedy)
    }
}

/// What observer does with each capability.
const CAPABILITIES: [(&str, &str); 3] = [
    ("CAP_SYS_PTRACE", "reading processes of other users"),
    ("CAP_BPF", "loading eBPF"),
    ("CAP_PERFMON", "eBPF that reads processes, and page-fault events"),
];

/// The machine, the kernel and our own rights.
pub(crate) fn machine() -> Vec<Finding> {
    let mut findings = vec![kernel_version()];
    findings.extend(capabilities());
    findings.push(memory_limit());
    findings.push(if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Finding::good("kernel types", "/sys/kernel/btf/vmlinux")
    } else {
        Finding::degraded(
            "kernel types",
            "no /sys/kernel/btf/vmlinux: eBPF cannot be used",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y (every distribution's since 2021)",
        )
    });
    findings.extend(ebpf());
    findings
}

/// One process.
pub(crate) fn target(pid: u32) -> Vec<Finding> {
    let target = match Target::open(pid) {
        Ok(target) => target,
        Err(error) => return vec![Finding::unusable("process", error.to_string(), "")],
    };
    let mut info = target.info();
    let mut findings = vec![Finding::good("process", format!("pid {pid}, {}, memory is readable", info.exe))];
    let mut runtimes = Runtimes::open(pid, &mut info);
    if runtimes.readers().is_empty() && runtimes.refused().is_empty() {
        let known = Runtimes::names().join(", ");
        findings.push(Finding::good("tasks", format!("no {known} program: threads only")));
    }
    let mut coarser = Vec::new();
    for reader in runtimes.readers() {
        let runtime = reader.info();
        let symbols = if runtime.stripped { ", stripped" } else { "" };
        let what = format!("{}s", language::of(reader.kind()).noun());
        findings.push(match reader.tasks(0.0) {
            Ok(tasks) => {
                coarser.extend(tasks.degraded);
                let version = runtime.version.unwrap_or_default();
                Finding::good(&what, format!("{version}{symbols}, {} {what} read", tasks.alive))
            }
            Err(RuntimeError::Exited) => Finding::degraded(&what, "the process has exited", ""),
            Err(RuntimeError::Unreadable(degraded)) => {
                Finding::degraded(&what, degraded.reason, degraded.remedy)
            }
        });
    }
    let refused = runtimes.refused().iter().map(|refused| refused.degraded.clone());
    for Degraded { feature, reason, remedy } in coarser.into_iter().chain(refused) {
        findings.push(Finding::degraded(&feature, reason, remedy));
    }
    findings
}

fn kernel_version() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 18) {
        Finding::good("kernel", release)
    } else {
        Finding::degraded(
            "kernel",
            format!("{release}: the census of threads needs 5.18"),
            "use a newer kernel; without it thread stacks come from /proc, one frame long",
        )
    }
}

fn capabilities() -> Vec<Finding> {
    let missing = missing_capabilities();
    CAPABILITIES
        .into_iter()
        .map(|(name, purpose)| {
            if !missing.contains(&name) {
                Finding::good(name, purpose)
            } else {
                Finding::degraded(name, format!("missing: {purpose}"), grant(name))
            }
        })
        .collect()
}

/// The capabilities that are missing, a line each: what could be seen with them looks like nothing without.
pub(crate) fn missing(ebpf: bool) -> Vec<Finding> {
    let wanted = |finding: &Finding| ebpf || finding.what == "CAP_SYS_PTRACE";
    capabilities().into_iter().filter(|finding| finding.state != State::Good && wanted(finding)).collect()
}

fn grant(name: &str) -> String {
    if is_granted_to_others(name) {
        return "it is granted, but not to this user: run as root (runAsUser: 0), or use the image whose tag ends in \
                -nonroot, whose file has it"
            .to_owned();
    }
    format!("run as root (sudo), or `setcap` it to this binary, or add {} to the container", &name[4..])
}

/// The limit that observer itself is under.
fn memory_limit() -> Finding {
    let limit = own_memory::limit();
    match (own_memory::tight(limit), limit) {
        (Some(tight), _) => Finding::degraded("memory limit", tight.reason, tight.remedy),
        (None, Some(limit)) => Finding::good(
            "memory limit",
            format!("{} for observer itself, its eBPF maps included", bytes(limit.bytes as f64)),
        ),
        (None, None) => Finding::good("memory limit", "none for observer itself"),
    }
}

/// Loads the object for real, and says of each source which hook was chosen.
fn ebpf() -> Vec<Finding> {
    let kernel =
        match Probes::load(&KernelOptions { allocations: Some(512 << 10), ..KernelOptions::default() }) {
            Ok(kernel) => kernel,
            Err(error) => {
                let degraded = super::degrade::kernel(&error);
                return vec![Finding::degraded("ebpf", degraded.reason, degraded.remedy)];
            }
        };
    kernel.features().list.iter().map(feature).collect()
}

fn feature(feature: &Feature) -> Finding {
    let what = format!("ebpf {}", feature.name.replace('_', " "));
    match &feature.state {
        HookState::On { hook, cost } => {
            let only = feature.only_with.map_or_else(String::new, |option| format!(", only with {option}"));
            Finding::good(&what, format!("{hook}{only} ({cost}){}", refused(feature)))
        }
        // Nothing is missing of what observer does by itself.
        HookState::Unavailable { instead } if feature.only_with.is_some() => {
            Finding::good(&what, format!("off, {instead}{}", refused(feature)))
        }
        HookState::Off { how } => Finding::good(&what, format!("off ({how}){}", refused(feature))),
        HookState::Unavailable { instead } => {
            let reasons: Vec<String> = feature
                .refused
                .iter()
                .map(|refusal| format!("{}: {}; ", refusal.hook, refusal.reason))
                .collect();
            let remedy = feature.refused.last().map_or("", |refusal| &refusal.remedy);
            Finding::degraded(&what, format!("{}{instead}", reasons.concat()), remedy)
        }
    }
}

/// The hooks that would have been better, and why they were not to be had.
fn refused(feature: &Feature) -> String {
    let refused = feature.refused.iter();
    refused.map(|refusal| format!("; {} refused: {}", refusal.hook, refusal.reason)).collect()
}
