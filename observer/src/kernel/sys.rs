//! The system calls that aya has no door to: an iterator over one process.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_attr` as `BPF_LINK_CREATE` reads it for an iterator.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_length: u32,
    padding: u32,
}

/// `union bpf_iter_link_info`, its task form.
#[repr(C)]
#[derive(Default)]
struct TaskIterInfo {
    tid: u32,
    pid: u32,
    pidfd: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IterCreate {
    link: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes and what they point to, which outlives the call; the
    // descriptor it returns is new and ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>());
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Links a task iterator to the threads of `pid` (in our PID namespace; Linux 6.1), or to every task.
pub fn link_task_iter(program: BorrowedFd<'_>, pid: Option<u32>) -> io::Result<OwnedFd> {
    let info = TaskIterInfo { pid: pid.unwrap_or(0), ..Default::default() };
    let mut attributes = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_TRACE_ITER,
        ..Default::default()
    };
    if pid.is_some() {
        attributes.iter_info = std::ptr::from_ref(&info) as u64;
        attributes.iter_info_length = size_of::<TaskIterInfo>() as u32;
    }
    bpf(BPF_LINK_CREATE, &attributes)
}

/// Starts one pass of a linked iterator; reading the file runs it.
pub fn iterate(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf(BPF_ITER_CREATE, &IterCreate { link: link.as_raw_fd().cast_unsigned(), flags: 0 })
}

/// Gives memory that was freed back to the kernel; parsing the kernel's BTF leaves 16 MB of it behind.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
