//! What does not work here, in words: the reason and the remedy.

use std::io;

use crate::kernel::KernelError;
use crate::sample::Degraded;
use crate::threads::ThreadError;

pub(crate) fn threads(error: &ThreadError) -> Degraded {
    Degraded {
        feature: "threads".to_owned(),
        reason: error.to_string(),
        remedy: "run observer as root or with CAP_SYS_PTRACE".to_owned(),
    }
}

pub(crate) fn kernel(error: &KernelError) -> Degraded {
    let reason = error.reason();
    let remedy = error.remedy().unwrap_or("`observer doctor` says what is missing");
    Degraded {
        feature: "ebpf".to_owned(),
        reason: format!(
            "{reason}; without eBPF no growth sites, no futex wait times, thread stacks one frame long"
        ),
        remedy: remedy.to_owned(),
    }
}

const READ_PAGES: &str =
    "run observer as the user of the process, or with CAP_DAC_READ_SEARCH beside CAP_SYS_PTRACE";

/// Its owner may read it, and whoever passes over file permissions: to read processes is not enough.
pub(crate) fn growth(pid: u32, error: &io::Error) -> Degraded {
    Degraded {
        feature: "growth".to_owned(),
        reason: format!("/proc/{pid}/pagemap: {error}: what grew cannot be told from what was freed"),
        remedy: READ_PAGES.to_owned(),
    }
}

/// Growth sites there are, but what was given back within a mapping is taken from all of its sites alike.
pub(crate) fn coarse_growth(pid: u32, error: &io::Error) -> Degraded {
    Degraded {
        feature: "growth by page".to_owned(),
        reason: format!(
            "/proc/{pid}/pagemap: {error}: what was freed is known by mapping, not by page, and huge pages count as small \
             ones"
        ),
        remedy: READ_PAGES.to_owned(),
    }
}

pub(crate) fn retained() -> Degraded {
    Degraded {
        feature: "retained".to_owned(),
        reason: "what groups keep on the heap was not followed: it would cost more than the snapshot"
            .to_owned(),
        remedy: "add --retained, or use attach".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::kernel;
    use crate::kernel::KernelError;

    #[test]
    fn a_binary_without_ebpf_says_what_it_costs_and_what_to_do() {
        let degraded = kernel(&KernelError::NotBuilt { reason: "bpf-linker is not installed" });
        assert!(degraded.reason.contains("bpf-linker is not installed; without eBPF no growth sites"));
        assert_eq!(degraded.remedy, "build it again after `cargo xtask setup`");
        let degraded = kernel(&KernelError::NoSuchProcess { pid: 5 });
        assert!(degraded.reason.starts_with("no process 5; ") && degraded.remedy.contains("doctor"));
        // What the kernel says in brackets is no remedy.
        let error = std::io::Error::from_raw_os_error(libc::ENOMEM);
        let degraded = kernel(&KernelError::Census { pid: 5, error });
        assert!(degraded.reason.contains("(os error 12); without eBPF"), "{degraded:?}");
        assert!(degraded.remedy.contains("doctor"), "{degraded:?}");
    }
}
