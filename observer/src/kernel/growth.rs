//! Sampled page faults of targets: a software perf event on each CPU runs the program at one fault of so many.
//!
//! The period is a prime, so that a loop of faults does not always show the same one of its places, and
//! grows with the rate, so that a sample costs neither us nor the target much.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use aya::maps::{MapData, RingBuf};
use observer_common::growth::{FaultHeader, MAX_FRAMES, MAX_STACK_BYTES};

use super::sys;

/// Faults to a sample; the first is where it starts.
const PERIODS: [u64; 6] = [61, 127, 251, 509, 1021, 2039];
/// Samples a second, of all targets together, above which the next longer period is taken.
const MANY: f64 = 4000.0;
/// And below which the next shorter one is.
const FEW: f64 = 500.0;

/// Samples taken from the ring in one go; the rest waits for the next.
const MAX_FAULTS: usize = 1 << 15;

/// One page fault of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Of the target, in our PID namespace.
    pub pid: u32,
    /// Thread id in the initial PID namespace.
    pub global_tid: u32,
    /// Monotonic nanoseconds.
    pub time: u64,
    /// What was touched for the first time.
    pub address: u64,
    /// User registers, also where the kernel touched the page on the thread's behalf.
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// Faults that this one stands for.
    pub weight: u64,
    /// By frame pointers, innermost first: the interrupted instruction, then return addresses.
    pub frames: Vec<u64>,
    /// Stack from `sp` up, where the target is set to have it copied.
    pub stack: Vec<u8>,
}

pub(super) struct Growth {
    ring: RingBuf<MapData>,
    events: Vec<OwnedFd>,
    /// Index into `PERIODS`.
    period: usize,
    drained: Instant,
}

impl Growth {
    /// Opens the event on every CPU that is online.
    pub(super) fn attach(program: BorrowedFd<'_>, ring: RingBuf<MapData>) -> io::Result<Self> {
        let cpus =
            aya::util::online_cpus().map_err(|(path, error)| io::Error::other(format!("{path}: {error}")))?;
        let mut events = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            events.push(sys::sample_page_faults(cpu, PERIODS[0], program)?);
        }
        Ok(Self { ring, events, period: 0, drained: Instant::now() })
    }

    pub(super) fn period(&self) -> u64 {
        PERIODS[self.period]
    }

    /// Samples since the last call, and adapts the period to their number.
    pub(super) fn drain(&mut self, pid_of: impl Fn(u32, u32) -> Option<u32>) -> Vec<Fault> {
        let mut faults = Vec::new();
        // Bounded: a target may fault as fast as we read.
        while faults.len() < MAX_FAULTS
            && let Some(item) = self.ring.next()
        {
            faults.extend(parse(&item, &pid_of));
        }
        let seconds = self.drained.elapsed().as_secs_f64();
        if seconds >= 0.2 {
            self.drained = Instant::now();
            self.adapt(faults.len() as f64 / seconds);
        }
        faults
    }

    fn adapt(&mut self, rate: f64) {
        let period = if rate > MANY && self.period + 1 < PERIODS.len() {
            self.period + 1
        } else if rate < FEW && self.period > 0 {
            self.period - 1
        } else {
            return;
        };
        // Each sample says what it stands for, so that events of different periods may mix.
        if self.events.iter().all(|event| sys::set_period(event.as_fd(), PERIODS[period]).is_ok()) {
            self.period = period;
        }
    }
}

/// A record, if it is one and of a process that still is a target.
fn parse(bytes: &[u8], pid_of: impl Fn(u32, u32) -> Option<u32>) -> Option<Fault> {
    let tail = bytes.get(size_of::<FaultHeader>()..)?;
    // SAFETY: the slice holds a whole header, which is plain integers; the read needs no alignment.
    let header = unsafe { bytes.as_ptr().cast::<FaultHeader>().read_unaligned() };
    let frames = tail.get(..8 * header.frames as usize)?;
    let stack = match header.stack_bytes as usize {
        0 => &[],
        // A whole record: the stack lies behind the room for all frames.
        length => tail.get(8 * MAX_FRAMES..)?.get(..length.min(MAX_STACK_BYTES))?,
    };
    Some(Fault {
        pid: pid_of(header.slot, header.global_tgid)?,
        global_tid: header.global_tid,
        time: header.time,
        address: header.address,
        ip: header.ip,
        sp: header.sp,
        bp: header.bp,
        weight: header.weight,
        frames: frames.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word)).collect(),
        stack: stack.to_vec(),
    })
}
