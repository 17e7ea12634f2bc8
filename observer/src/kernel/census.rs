//! Census: every thread of a target at one moment, from the sleepable task iterator.
//!
//! Costs the observer about 3 µs a thread and the target nothing; threads that slept before observer came
//! are seen like all others. Needs CAP_BPF and CAP_PERFMON.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::maps::{Array, MapData};
use observer_common::census::{Request, ThreadRecord as Record};

use super::sys;

/// More threads than this are counted as `left_out`, not returned.
pub(crate) const MAX_THREADS: usize = 1 << 16;

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
    /// Unchanged since the last census: the thread has not moved.
    pub voluntary_switches: u64,
    /// Where the thread entered the kernel: what it does if it sleeps, stale if it runs.
    pub syscall: Option<u64>,
    pub arguments: [u64; 6],
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// The link register; 0 on amd64.
    pub lr: u64,
}

impl ThreadRecord {
    pub fn is_sleeping(&self) -> bool {
        self.state & 3 != 0
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

    /// An iterator over the threads of `pid`.
    pub(super) fn link(&self, pid: u32) -> io::Result<OwnedFd> {
        sys::link_threads(self.program.as_fd(), pid)
    }

    /// The leader of `pid` (in our namespace), if there is one.
    pub(super) fn leader(&mut self, link: BorrowedFd<'_>, pid: u32) -> io::Result<Option<ThreadRecord>> {
        let census = self.run(link, Request { leaders_only: 1, ..Default::default() })?;
        Ok(census.threads.into_iter().find(|leader| leader.tid == pid))
    }

    pub(super) fn take(&mut self, link: BorrowedFd<'_>, global_tgid: u32) -> io::Result<Census> {
        self.run(link, Request { global_tgid, leaders_only: 0 })
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
            let used = parse(&buffer[..filled], &mut census);
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
    }
}

/// Takes whole records from the front; the bytes used.
fn parse(bytes: &[u8], census: &mut Census) -> usize {
    let whole = bytes.chunks_exact(size_of::<Record>());
    let used = bytes.len() - whole.remainder().len();
    for bytes in whole {
        if census.threads.len() == MAX_THREADS {
            census.left_out += 1;
            continue;
        }
        // SAFETY: the slice holds a whole record, which is plain integers; the read needs no alignment.
        census.threads.push(thread(&unsafe { bytes.as_ptr().cast::<Record>().read_unaligned() }));
    }
    used
}

fn thread(record: &Record) -> ThreadRecord {
    let length = record.comm.iter().position(|&byte| byte == 0).unwrap_or(record.comm.len());
    ThreadRecord {
        tid: record.tid,
        namespace_tid: record.namespace_tid,
        global_tid: record.global_tid,
        global_tgid: record.global_tgid,
        state: record.state,
        comm: String::from_utf8_lossy(&record.comm[..length]).into_owned(),
        started: record.started,
        voluntary_switches: record.voluntary_switches,
        syscall: u64::try_from(record.syscall).ok(),
        arguments: record.arguments,
        ip: record.ip,
        sp: record.sp,
        bp: record.bp,
        lr: record.lr,
    }
}
