//! Census: every thread of a target at one moment, from the sleepable task iterator.
//!
//! Costs the observer about 3 µs a thread and the target nothing; threads that slept before observer came
//! are seen like all others. Needs CAP_BPF and CAP_PERFMON.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::maps::{Array, MapData};
use observer_common::census::{
    FLAG_STACK_TRUNCATED, FLAG_STACK_UNREADABLE, MAX_FRAMES, MAX_STACK_BYTES, Request, ThreadHeader,
};

use super::sys;

/// More threads than this are counted as `left_out`, not returned.
pub const MAX_THREADS: usize = 1 << 16;

/// The kernel hands out at most 32 KiB a read.
const READ_BYTES: usize = 64 << 10;
/// A pass that the kernel interrupts so often (`EAGAIN`, a million tasks each) is given up.
const MAX_RETRIES: u32 = 64;

/// One thread of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadRecord {
    /// Thread id in observer's PID namespace.
    pub tid: u32,
    /// Thread id in the target's innermost PID namespace (what its own memory calls it).
    pub namespace_tid: u32,
    pub global_tid: u32,
    pub global_tgid: u32,
    /// `task_struct.__state`: 0 runs or could, bit 0 sleeps, bit 1 sleeps uninterruptibly.
    pub state: u32,
    pub comm: String,
    /// Nanoseconds since boot.
    pub started: u64,
    /// Nanoseconds.
    pub cpu_time: u64,
    /// Unchanged since the last census: the thread has not moved.
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
    /// Where the thread entered the kernel: what it does if it sleeps, stale if it runs.
    pub syscall: Option<u64>,
    pub arguments: [u64; 6],
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// The link register; 0 on amd64.
    pub lr: u64,
    /// Return addresses by frame pointers, innermost first; `ip` is not among them. Empty if it runs.
    pub frames: Vec<u64>,
    /// The walk did not end at a root: more frames than asked for, or memory that cannot be read.
    pub truncated: bool,
    pub unreadable: bool,
    /// Stack from `sp` up, at most to the end of its page, if asked for.
    pub stack: Vec<u8>,
}

impl ThreadRecord {
    pub fn is_sleeping(&self) -> bool {
        self.state & 3 != 0
    }
}

/// What to bring along for each thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CensusOptions {
    /// Frames to walk by frame pointers, at most 64.
    pub frames: u32,
    /// Bytes of the stack top, at most 4096.
    pub stack_bytes: u32,
}

impl Default for CensusOptions {
    fn default() -> Self {
        Self { frames: MAX_FRAMES as u32, stack_bytes: 0 }
    }
}

/// The threads of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub threads: Vec<ThreadRecord>,
    /// Threads beyond `MAX_THREADS`.
    pub left_out: u64,
}

/// The loaded iterator.
pub(super) struct CensusProgram {
    request: Array<MapData, Request>,
    program: aya::programs::ProgramFd,
}

impl CensusProgram {
    pub(super) fn new(request: Array<MapData, Request>, program: aya::programs::ProgramFd) -> Self {
        Self { request, program }
    }

    /// An iterator over the threads of `pid`; before Linux 6.1 one over all tasks, of which the program skips the rest.
    pub(super) fn link(&self, pid: u32) -> io::Result<OwnedFd> {
        match sys::link_task_iter(self.program.as_fd(), Some(pid)) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                sys::link_task_iter(self.program.as_fd(), None)
            }
            linked => linked,
        }
    }

    /// The leader of `pid` (in our namespace), if there is one.
    pub(super) fn leader(&mut self, link: BorrowedFd<'_>, pid: u32) -> io::Result<Option<ThreadRecord>> {
        let census = self.run(link, Request { leaders_only: 1, ..Default::default() })?;
        Ok(census.threads.into_iter().find(|leader| leader.tid == pid))
    }

    pub(super) fn take(
        &mut self,
        link: BorrowedFd<'_>,
        global_tgid: u32,
        options: CensusOptions,
    ) -> io::Result<Census> {
        self.run(
            link,
            Request {
                global_tgid,
                frames: options.frames.min(MAX_FRAMES as u32),
                stack_bytes: options.stack_bytes.min(MAX_STACK_BYTES as u32),
                leaders_only: 0,
            },
        )
    }

    fn run(&mut self, link: BorrowedFd<'_>, request: Request) -> io::Result<Census> {
        self.request.set(0, request, 0).map_err(io::Error::other)?;
        let mut file = File::from(sys::iterate(link)?);
        let mut census = Census::default();
        let mut buffer = vec![0; READ_BYTES];
        let mut filled = 0;
        let mut retries = 0;
        loop {
            let read = match file.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(census),
                Ok(read) => read,
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
                        && retries < MAX_RETRIES =>
                {
                    retries += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            filled += read;
            let used = parse(&buffer[..filled], &mut census)
                .ok_or_else(|| io::Error::other("census record out of step"))?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
    }
}

/// Takes whole records from the front; the bytes used, or `None` when they cannot be records.
fn parse(bytes: &[u8], census: &mut Census) -> Option<usize> {
    const HEADER: usize = size_of::<ThreadHeader>();
    let mut used = 0;
    while let Some(bytes) = bytes.get(used..).filter(|rest| rest.len() >= HEADER) {
        // SAFETY: the slice holds a whole header, which is plain integers; the read needs no alignment.
        let header = unsafe { bytes.as_ptr().cast::<ThreadHeader>().read_unaligned() };
        let frames = header.frames as usize;
        let stack = header.stack_bytes as usize;
        if frames > MAX_FRAMES
            || stack > MAX_STACK_BYTES
            || header.size as usize != HEADER + 8 * frames + stack
        {
            return None;
        }
        let Some(tail) = bytes.get(HEADER..header.size as usize) else { break };
        used += header.size as usize;
        if census.threads.len() == MAX_THREADS {
            census.left_out += 1;
            continue;
        }
        let (frames, stack) = tail.split_at(8 * frames);
        census.threads.push(record(&header, frames, stack));
    }
    Some(used)
}

fn record(header: &ThreadHeader, frames: &[u8], stack: &[u8]) -> ThreadRecord {
    let length = header.comm.iter().position(|&byte| byte == 0).unwrap_or(header.comm.len());
    ThreadRecord {
        tid: header.tid,
        namespace_tid: header.namespace_tid,
        global_tid: header.global_tid,
        global_tgid: header.global_tgid,
        state: header.state,
        comm: String::from_utf8_lossy(&header.comm[..length]).into_owned(),
        started: header.started,
        cpu_time: header.cpu_time,
        voluntary_switches: header.voluntary_switches,
        involuntary_switches: header.involuntary_switches,
        syscall: u64::try_from(header.syscall).ok(),
        arguments: header.arguments,
        ip: header.ip,
        sp: header.sp,
        bp: header.bp,
        lr: header.lr,
        frames: frames.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word)).collect(),
        truncated: header.flags & FLAG_STACK_TRUNCATED != 0,
        unreadable: header.flags & FLAG_STACK_UNREADABLE != 0,
        stack: stack.to_vec(),
    }
}
