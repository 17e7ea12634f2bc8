//! What this kernel, these capabilities and these mounts permit: per source the hook that was chosen, what
//! was refused on the way there, and the remedy. `doctor` prints it; the report's `degraded` is made of it.

use std::fs;
use std::io;
use std::path::Path;

use aya::programs::ProgramError;

use crate::process::status;
use crate::sample::Degraded;

/// A source of kernel data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// `census`, `waits`, `growth`, `lifecycle`, `mapped`, `exact_waits`, `allocations`.
    pub name: &'static str,
    /// The option that asks for it, where it is off by default for what it does to the target: nothing is missing
    /// where it cannot be had.
    pub only_with: Option<&'static str>,
    pub state: State,
    /// Hooks that would have been preferred, and why they were not taken.
    pub refused: Vec<Refusal>,
}

impl Feature {
    pub fn of(name: &'static str, state: State, refused: Vec<Refusal>) -> Self {
        Self { name, only_with: None, state, refused }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Attached.
    On { hook: &'static str, cost: &'static str },
    /// Not asked for.
    Off { how: &'static str },
    /// Asked for, and no hook could be had; what is done without it.
    Unavailable { instead: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub hook: &'static str,
    pub reason: String,
    pub remedy: String,
}

/// All sources of a loaded object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    pub list: Vec<Feature>,
}

impl Features {
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.list.iter().find(|feature| feature.name == name)
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|feature| matches!(feature.state, State::On { .. }))
    }

    /// What was asked for and cannot be had.
    pub fn degraded(&self) -> Vec<Degraded> {
        let unavailable = self.list.iter().filter_map(|feature| match feature.state {
            State::Unavailable { instead } => Some((feature, instead)),
            _ => None,
        });
        unavailable
            .map(|(feature, instead)| {
                let last = feature.refused.last();
                let reason = last
                    .map_or_else(String::new, |refusal| format!("{}: {}; ", refusal.hook, refusal.reason));
                Degraded {
                    feature: feature.name.to_owned(),
                    reason: format!("{reason}{instead}"),
                    remedy: last.map_or_else(String::new, |refusal| refusal.remedy.clone()),
                }
            })
            .collect()
    }
}

/// A capability that observer can use, with its number in `CapEff`.
const CAPABILITIES: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_PERFMON", 38), ("CAP_SYS_PTRACE", 19)];
const CAP_SYS_ADMIN: u32 = 21;

/// Those of the capabilities that this process does not have.
pub fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing_in(set(&status, "CapEff:"))
}

/// Whether this process could have had it, had it been root's or its file's: a container that grants a capability
/// grants it to root alone. Where nothing was withheld, as on a machine of one's own, nothing was granted either.
pub fn is_granted_to_others(capability: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    !nix::unistd::geteuid().is_root() && is_granted_within(set(&status, "CapBnd:"), capability)
}

fn is_granted_within(bounds: u64, capability: &str) -> bool {
    let withheld = bounds >> CAP_SYS_ADMIN & 1 == 0;
    withheld && !missing_in(bounds).contains(&capability)
}

fn set(status: &str, name: &str) -> u64 {
    let value = status::field(status.as_bytes(), name);
    value.and_then(|value| u64::from_str_radix(value, 16).ok()).unwrap_or(0)
}

fn missing_in(capabilities: u64) -> Vec<&'static str> {
    let has = |number: u32| capabilities >> number & 1 != 0;
    // CAP_SYS_ADMIN stands for the two that were split off from it.
    let stands_in = |name: &str| name != "CAP_SYS_PTRACE" && has(CAP_SYS_ADMIN);
    CAPABILITIES
        .iter()
        .filter(|&&(name, number)| !(has(number) || stands_in(name)))
        .map(|&(name, _)| name)
        .collect()
}

/// The kernel's lockdown mode (`integrity` permits what observer does), if securityfs says.
pub fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, chosen) = modes.split_once('[')?;
    Some(chosen.split_once(']')?.0.to_owned())
}

/// Where tracefs is mounted and readable.
pub fn tracefs() -> io::Result<&'static Path> {
    let mut last = io::ErrorKind::NotFound.into();
    for root in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(Path::new) {
        match fs::metadata(root.join("events/syscalls")) {
            Ok(_) => return Ok(root),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the kernel had no memory left for it within the limit of our cgroup.
pub fn is_out_of_memory(error: &ProgramError) -> bool {
    let number = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::IOError(error) => error.raw_os_error(),
        _ => None,
    };
    number == Some(libc::ENOMEM)
}

/// Why a hook was refused, in one line, and what would help.
pub fn refusal(hook: &'static str, error: &ProgramError) -> Refusal {
    let (reason, number) = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            // The verifier's last words say what it did not like.
            log::debug!("{hook}: {verifier_log}");
            (format!("the kernel does not load it: {io_error}"), io_error.raw_os_error())
        }
        ProgramError::SyscallError(error) => {
            (format!("{}: {}", error.call, error.io_error), error.io_error.raw_os_error())
        }
        ProgramError::IOError(error) => (error.to_string(), error.raw_os_error()),
        error => (error.to_string(), None),
    };
    refused(hook, reason, number)
}

/// As [`refusal`], from an error number.
pub fn refused(hook: &'static str, reason: String, number: Option<i32>) -> Refusal {
    let denied = matches!(number, Some(libc::EPERM | libc::EACCES));
    let missing = missing_capabilities();
    let confidential = lockdown().is_some_and(|mode| mode == "confidentiality");
    // Lockdown takes helpers away: the verifier then finds calls of functions it does not know.
    let remedy = if confidential && (denied || number == Some(libc::EINVAL)) {
        "kernel lockdown is at confidentiality, which forbids reading kernel memory: boot with lockdown=integrity".into()
    } else if denied && !missing.is_empty() {
        format!("grant {}", missing.join(", "))
    } else if number == Some(libc::EACCES) {
        "this kernel's verifier refuses it: report what RUST_LOG=debug shows".into()
    } else if number == Some(libc::ENOMEM) {
        "raise the memory limit of observer's own cgroup (resources.limits.memory, MemoryMax)".into()
    } else if denied {
        "this kernel forbids it to everybody; nothing to grant".into()
    } else {
        "needs a newer or differently configured kernel".into()
    };
    Refusal { hook, reason, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_capabilities_that_are_missing() {
        let only = |bits: &[u32]| missing_in(bits.iter().map(|bit| 1 << bit).sum());
        assert_eq!(only(&[]), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
        assert_eq!(only(&[39, 38]), ["CAP_SYS_PTRACE"]);
        assert_eq!(only(&[CAP_SYS_ADMIN, 19]), [""; 0]);
        assert_eq!(set("Name:\tx\nCapEff:\t000001c000000000\n", "CapEff:"), 0x1c0 << 32);
        assert_eq!(set("garbage", "CapEff:"), 0);
    }

    #[test]
    fn what_is_granted_is_less_than_all() {
        let three = 1 << 39 | 1 << 38 | 1 << 19;
        assert!(is_granted_within(three, "CAP_BPF"));
        assert!(!is_granted_within(three & !(1 << 39), "CAP_BPF"));
        // A user of a machine may become root; nobody has granted anything.
        assert!(!is_granted_within(0x1ff_ffff_ffff, "CAP_BPF"));
    }

    #[test]
    fn degraded_says_what_is_done_instead() {
        let refusal = refused("sched_switch", "EPERM".into(), None);
        let feature = |name, state| Feature::of(name, state, vec![refusal.clone()]);
        let features = Features {
            list: vec![
                feature("waits", State::Unavailable { instead: "no wait times" }),
                feature("exact_waits", State::Off { how: "--exact" }),
            ],
        };
        let degraded = features.degraded();
        assert_eq!(degraded.len(), 1);
        assert_eq!(degraded[0].reason, "sched_switch: EPERM; no wait times");
    }
}
