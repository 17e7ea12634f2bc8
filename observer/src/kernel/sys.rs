//! The system calls that aya has no door to: an iterator over one process, a sampled event whose period changes,
//! breakpoints of one process for many functions at once.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use aya_obj::generated::bpf_insn;
use nix::time::{ClockId, clock_gettime};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
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

/// `union bpf_attr` as `BPF_RAW_TRACEPOINT_OPEN` reads it.
#[repr(C)]
#[derive(Default)]
struct RawTracepoint {
    name: u64,
    program: u32,
    padding: u32,
}

/// Puts a program on the tracepoint that it was loaded for, until the descriptor is closed.
pub(super) fn attach_tracepoint(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = RawTracepoint { program: program.as_raw_fd().cast_unsigned(), ..Default::default() };
    bpf(BPF_RAW_TRACEPOINT_OPEN, &attributes)
}

/// The clock of the programs, in nanoseconds.
pub(super) fn monotonic() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| nanoseconds(Duration::from(now)))
}

/// What that clock shows at that time.
pub(super) fn monotonic_at(time: Instant) -> u64 {
    let (now, clock) = (Instant::now(), monotonic());
    match time.checked_duration_since(now) {
        Some(ahead) => clock.saturating_add(nanoseconds(ahead)),
        None => clock.saturating_sub(nanoseconds(now.duration_since(time))),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Links a task iterator to the threads of `pid` (in our PID namespace; Linux 6.1), or to every task.
fn link_task_iter(program: BorrowedFd<'_>, pid: Option<u32>) -> io::Result<OwnedFd> {
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

/// Links a task iterator to the threads of `pid`; before Linux 6.1 to every task, of which the program skips the rest.
pub(super) fn link_threads(program: BorrowedFd<'_>, pid: u32) -> io::Result<OwnedFd> {
    match link_task_iter(program, Some(pid)) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => link_task_iter(program, None),
        linked => linked,
    }
}

/// Starts one pass of a linked iterator; reading the file runs it.
pub(super) fn iterate(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf(BPF_ITER_CREATE, &IterCreate { link: link.as_raw_fd().cast_unsigned(), flags: 0 })
}

const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const BPF_TRACE_UPROBE_SESSION: u32 = 57;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;

/// `union bpf_attr` as `BPF_PROG_LOAD` reads it.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` as `BPF_LINK_CREATE` reads it for probes of many functions of a file.
#[repr(C)]
#[derive(Default)]
struct LinkFunctions {
    program: u32,
    target: u32,
    attach_type: u32,
    link_flags: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    count: u32,
    flags: u32,
    pid: u32,
    padding: u32,
}

/// How a program sits on functions of user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeKind {
    /// At the beginning, and at the return where it says so there (Linux 6.13).
    Session,
    /// At the beginning.
    Entry,
    /// At the return.
    Return,
}

impl ProbeKind {
    fn attach_type(self) -> u32 {
        if self == Self::Session { BPF_TRACE_UPROBE_SESSION } else { BPF_TRACE_UPROBE_MULTI }
    }
}

/// Loads a program for probes of this kind; with the verifier's words where it is refused.
///
/// All that the instructions refer to is resolved.
pub(super) fn load_probe(
    instructions: &[bpf_insn],
    license: &CStr,
    probes: ProbeKind,
    verbose: bool,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut log = vec![0u8; if verbose { 1 << 20 } else { 0 }];
    let mut attributes = ProgramLoad {
        kind: BPF_PROG_TYPE_KPROBE,
        instructions_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name: *b"allocation\0\0\0\0\0\0",
        expected_attach_type: probes.attach_type(),
        ..Default::default()
    };
    if verbose {
        (attributes.log_level, attributes.log_size) = (1, log.len() as u32);
        attributes.log = log.as_mut_ptr() as u64;
    }
    bpf(BPF_PROG_LOAD, &attributes).map_err(|error| {
        let words = log.split(|&byte| byte == 0).next().unwrap_or_default();
        (error, String::from_utf8_lossy(words).into_owned())
    })
}

/// Puts a program on functions of the file at `path`, by their offsets in it, in one process only (by its pid in
/// our PID namespace). The kernel takes the breakpoints out when the link is closed, however that comes about.
pub(super) fn link_functions(
    program: BorrowedFd<'_>,
    probes: ProbeKind,
    path: &CStr,
    functions: &[(u64, u64)],
    pid: u32,
) -> io::Result<OwnedFd> {
    let (offsets, cookies): (Vec<u64>, Vec<u64>) = functions.iter().copied().unzip();
    let attributes = LinkFunctions {
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: probes.attach_type(),
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        count: offsets.len() as u32,
        flags: if probes == ProbeKind::Return { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
        pid,
        ..Default::default()
    };
    bpf(BPF_LINK_CREATE, &attributes)
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_EVENT_IOC_PERIOD: libc::c_ulong = 0x4008_2404;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
/// `perf_event_attr.flags`: starts disabled.
const DISABLED: u64 = 1;

/// `struct perf_event_attr`, its first published form.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
}

/// Runs `program` at one of `period` page faults on a CPU, until the descriptor is closed.
pub(super) fn sample_page_faults(cpu: u32, period: u64, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = PerfEventAttr {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<PerfEventAttr>() as u32,
        config: PERF_COUNT_SW_PAGE_FAULTS,
        sample_period: period,
        flags: DISABLED,
        ..Default::default()
    };
    let (everybody, no_group) = (-1, -1);
    // SAFETY: the kernel reads the attributes, whose size they give; the descriptor it returns is new and ours.
    let event = unsafe {
        let fd = libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(&attributes),
            everybody,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    // SAFETY: both take an integer.
    let failed = unsafe {
        libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) != 0
            || libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(event) }
}

/// Changes how many faults make a sample.
pub(super) fn set_period(event: BorrowedFd<'_>, period: u64) -> io::Result<()> {
    // SAFETY: the kernel reads the integer that is pointed to.
    let failed =
        unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_PERIOD, std::ptr::from_ref(&period)) };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
