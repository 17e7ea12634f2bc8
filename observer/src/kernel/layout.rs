//! The kernel struct offsets that the eBPF programs need, from the running kernel's BTF.

use std::fs;
use std::io;

use aya::util::KernelVersion;
use observer_common::layout::Layout;

use super::btf::Btf;

/// Where the kernel publishes its BTF.
pub(crate) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

const STRUCTS: [&str; 5] = ["task_struct", "pid", "upid", "signal_struct", "pt_regs"];

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("cannot read {BTF_PATH}: {0}")]
    Unreadable(#[from] io::Error),
    #[error("{BTF_PATH} is not BTF as observer knows it")]
    Malformed,
    #[error("this kernel's {BTF_PATH} has no field {0}")]
    Missing(&'static str),
}

/// Reads the running kernel's BTF.
pub(crate) fn running() -> Result<Layout, LayoutError> {
    resolve(&fs::read(BTF_PATH)?)
}

fn resolve(bytes: &[u8]) -> Result<Layout, LayoutError> {
    let btf = Btf::parse(bytes, &STRUCTS).ok_or(LayoutError::Malformed)?;
    let field = |structure: &'static str, path: &'static str| {
        btf.offset_of(structure, path).ok_or(LayoutError::Missing(path))
    };
    let size = |structure: &'static str| btf.size_of(structure).ok_or(LayoutError::Missing(structure));
    Ok(Layout {
        task_pid: field("task_struct", "pid")?,
        task_tgid: field("task_struct", "tgid")?,
        task_state: field("task_struct", "__state").or_else(|_| field("task_struct", "state"))?,
        task_thread_pid: field("task_struct", "thread_pid")?,
        task_nvcsw: field("task_struct", "nvcsw")?,
        task_nivcsw: field("task_struct", "nivcsw")?,
        task_start_boottime: field("task_struct", "start_boottime")
            .or_else(|_| field("task_struct", "real_start_time"))?,
        task_comm: field("task_struct", "comm")?,
        task_pending: field("task_struct", "pending.signal.sig")?,
        task_blocked: field("task_struct", "blocked.sig")?,
        task_jobctl: field("task_struct", "jobctl")?,
        signal_pending: field("signal_struct", "shared_pending.signal.sig")?,
        task_signal: field("task_struct", "signal")?,
        signal_live: field("signal_struct", "live")?,
        task_exit_code: field("task_struct", "exit_code")?,
        pid_level: field("pid", "level")?,
        pid_numbers: field("pid", "numbers")?,
        upid_size: size("upid")?,
        regs_syscall: field("pt_regs", "orig_ax").or_else(|_| field("pt_regs", "syscallno"))?,
        switch_has_state: KernelVersion::current()
            .map_or(1, |version| u32::from(version >= KernelVersion::new(5, 18, 0))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        match running() {
            Ok(layout) => {
                assert!(layout.task_tgid == layout.task_pid + 4, "{layout:?}");
                assert!(layout.pid_numbers > layout.pid_level, "{layout:?}");
                assert_eq!(layout.upid_size, 16);
                #[cfg(target_arch = "x86_64")]
                assert_eq!(layout.regs_syscall, 120);
            }
            // A machine without BTF says so and nothing else.
            Err(error) => assert!(matches!(error, LayoutError::Unreadable(_)), "{error}"),
        }
    }
}
