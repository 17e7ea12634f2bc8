//! Sampled page faults of targets: a software perf event on each CPU runs the program at one fault of so many.
//!
//! The period is a prime, so that a loop of faults does not always show the same one of its places. It follows the
//! rate: short for a target that seldom faults, so that a few KiB/s have a stack within seconds, and long for one that
//! faults all the time, or a neighbour that does, so that a sample costs nobody much. Each sample says what it stands
//! for.
//!
//! Where the whole machine faults often, the events are there in windows only (windows.rs), and a sample stands for so
//! much more.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::{PerfEvent, ProgramError};
use observer_common::growth::{FaultHeader, MAX_FRAMES, MAX_STACK_BYTES, MOVED};

use super::error::KernelError;
use super::events::{Fault, Moved};
use super::features::{self, Feature, Refusal, State};
use super::maps::take_map;
use super::options::KernelOptions;
use super::source::{Drained, Object, Source};
use super::sys;
use super::targets::Targets;
use super::windows::{Hooks, Rate, Schedule, Step, Windows};

const PAGE_FAULTS: &str = "perf event page-faults";

/// Faults to a sample.
const PERIODS: [u64; 9] = [5, 13, 29, 61, 127, 251, 509, 1021, 2039];
/// Where it starts.
const FIRST: usize = 3;
/// Samples a second, of all targets together, above which a longer period is taken.
const MANY: f64 = 1000.0;
/// And below which the next shorter one is.
const FEW: f64 = 100.0;
/// The same of all processes of the machine: most of these cost their process a test and no more.
const MANY_SEEN: f64 = 4000.0;
/// In a window, so many times as many are borne: it is short, and a sample stands for less.
const IN_WINDOW: f64 = 8.0;
/// Seconds between two looks at the rates; and between two where a burst may fill the ring.
const ADAPT: f64 = 0.2;
const BURST: f64 = 0.02;

/// From when until when samples count outside of windows.
const ALWAYS: [u64; 2] = [0, u64::MAX];

/// Samples taken from the ring in one go; the rest waits for the next.
const MAX_FAULTS: usize = 1 << 15;

pub(super) struct Growth {
    program: OwnedFd,
    ring: RingBuf<MapData>,
    /// One a CPU; none outside of windows.
    events: Vec<OwnedFd>,
    windows: Option<(Schedule, Rate)>,
    /// A sample stands for so many times the faults of its period: 1 but for windows.
    factor: u64,
    /// Samples from then on and until then count, in monotonic nanoseconds; others are outside of the window.
    counted: [u64; 2],
    /// Samples of all processes, and how many there were at the last look.
    seen: PerCpuArray<MapData, u64>,
    seen_before: u64,
    /// Index into `PERIODS`.
    period: usize,
    looked: Instant,
    /// Samples since then.
    samples: usize,
}

impl Growth {
    /// Opens the event on every CPU that is online.
    fn attach(&mut self) -> io::Result<()> {
        let cpus =
            aya::util::online_cpus().map_err(|(path, error)| io::Error::other(format!("{path}: {error}")))?;
        let mut events = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            events.push(sys::sample_page_faults(cpu, PERIODS[self.period], self.program.as_fd())?);
        }
        self.events = events;
        self.seen_before = self.seen();
        (self.looked, self.samples) = (Instant::now(), 0);
        Ok(())
    }

    fn seen(&self) -> u64 {
        self.seen.get(&0, 0).map_or(0, |seen| seen.iter().sum())
    }

    /// To be called when the ring has just been emptied: what is in it is of one window.
    fn step(&mut self, now: Instant) -> io::Result<()> {
        let Some((schedule, faults)) = &mut self.windows else { return Ok(()) };
        match schedule.step(now, || faults.is_busy(now)) {
            Step::Nothing | Step::Look => Ok(()),
            Step::Stay => {
                (self.factor, self.counted) = (1, ALWAYS);
                self.attach()
            }
            Step::Open { weight } => {
                self.factor = u64::from(weight);
                self.attach()?;
                if let Some((schedule, _)) = &mut self.windows {
                    self.counted = schedule.begin(Instant::now()).map(sys::monotonic_at);
                }
                Ok(())
            }
            Step::Close => {
                self.events.clear();
                Ok(())
            }
        }
    }

    pub(super) fn period(&self) -> u64 {
        PERIODS[self.period] * self.factor
    }

    fn adapt(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let seconds = self.looked.elapsed().as_secs_f64();
        let burst = seconds >= BURST && self.samples as f64 > MANY * ADAPT;
        if seconds < ADAPT && !burst {
            return;
        }
        let seen = self.seen();
        let borne = if self.factor == 1 { 1.0 } else { IN_WINDOW };
        let seen_rate = seen.saturating_sub(self.seen_before) as f64 / seconds / borne;
        let rate = self.samples as f64 / seconds;
        (self.seen_before, self.looked, self.samples) = (seen, Instant::now(), 0);
        let period = next(self.period, rate, seen_rate);
        if period == self.period {
            return;
        }
        // Each sample says what it stands for, so that events of different periods may mix.
        if self.events.iter().all(|event| sys::set_period(event.as_fd(), PERIODS[period]).is_ok()) {
            self.period = period;
        }
    }
}

impl Source for Growth {
    fn load(from: &mut Object<'_>, options: &KernelOptions) -> Result<(Option<Self>, Feature), KernelError> {
        if !options.growth {
            return Ok((None, Feature::of("growth", State::Off { how: "not asked for" }, Vec::new())));
        }
        let (source, state, refused) = match page_faults(from, options) {
            Ok(growth) => {
                let cost = "page faults a few percent dearer, of every process";
                (Some(growth), State::On { hook: PAGE_FAULTS, cost }, Vec::new())
            }
            Err(refusal) => {
                (None, State::Unavailable { instead: "memory that grows has no stacks" }, vec![refusal])
            }
        };
        Ok((source, Feature::of("growth", state, refused)))
    }

    /// To be called several times a second: a burst fills the ring. Adapts the period to the number of samples.
    fn drain(&mut self, targets: &Targets, into: &mut Drained) {
        let faults = &mut into.faults;
        let [from, until] = self.counted;
        // Bounded: a target may fault as fast as we read.
        while faults.len() < MAX_FAULTS
            && let Some(item) = self.ring.next()
        {
            let fault = parse(&item, |slot, tgid| targets.pid_of(slot, tgid));
            // A mapping that moves is followed at any time.
            let in_time = fault.filter(|fault| fault.moved.is_some() || (from..until).contains(&fault.time));
            faults.extend(in_time.map(|fault| Fault { weight: fault.weight * self.factor, ..fault }));
        }
        self.samples += faults.len();
        self.adapt();
        if faults.len() < MAX_FAULTS
            && let Err(error) = self.step(Instant::now())
        {
            tracing::debug!(%error, "the window of page faults");
        }
    }
}

fn page_faults(from: &mut Object<'_>, options: &KernelOptions) -> Result<Growth, Refusal> {
    let refusal = |error: ProgramError| features::refusal(PAGE_FAULTS, &error);
    let loaded: &mut PerfEvent = from.program("growth").map_err(refusal)?;
    loaded.load().map_err(refusal)?;
    let program = loaded.fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?)).map_err(refusal)?;
    let no_map = |error: KernelError| features::refused(PAGE_FAULTS, error.to_string(), None);
    let ring = take_map(from.ebpf, "FAULTS", RingBuf::try_from).map_err(no_map)?;
    let seen = take_map(from.ebpf, "FAULTS_SEEN", PerCpuArray::try_from).map_err(no_map)?;
    // Without it, memory that `mremap` moved counts as gone: all else is as right as with it.
    if let Err(error) = from.tracepoint("growth_moves", "vm_unmapped_area") {
        tracing::debug!(%error, "mappings that move are not followed");
    }
    let windows = match options.hooks {
        Hooks::Always => None,
        Hooks::Windows(windows) => {
            // A fault has no end that were to be looked for.
            let all = Windows { timed: windows.timed + windows.watched, watched: Duration::ZERO, ..windows };
            Some((Schedule::new(&all, Instant::now()), Rate::of_faults(windows.busy_faults)))
        }
    };
    let mut growth = Growth {
        program,
        ring,
        events: Vec::new(),
        windows,
        factor: 1,
        counted: ALWAYS,
        seen,
        seen_before: 0,
        period: FIRST,
        looked: Instant::now(),
        samples: 0,
    };
    growth.attach().map_err(|error| {
        let number = error.raw_os_error();
        features::refused(PAGE_FAULTS, format!("perf_event_open: {error}"), number)
    })?;
    Ok(growth)
}

/// The period after one that gave so many samples a second, of targets and of all.
fn next(period: usize, rate: f64, seen_rate: f64) -> usize {
    // How far beyond what is bearable, and how far it would be with the next shorter period.
    let load = (rate / MANY).max(seen_rate / MANY_SEEN);
    let faults = load * PERIODS[period] as f64;
    if load > 1.0 {
        // At once as long as it takes: a ring that is full loses more than a long period does.
        let enough = PERIODS.iter().position(|&longer| longer as f64 >= faults).unwrap_or(PERIODS.len() - 1);
        enough.max(period)
    } else if period > 0 && rate < FEW && faults < PERIODS[period - 1] as f64 {
        period - 1
    } else {
        period
    }
}

/// A record, if it is one and of a process that still is a target.
fn parse(bytes: &[u8], pid_of: impl Fn(u32, u32) -> Option<u32>) -> Option<Fault> {
    let tail = bytes.get(size_of::<FaultHeader>()..)?;
    // SAFETY: the slice holds a whole header, which is plain integers; the read needs no alignment.
    let header = unsafe { bytes.as_ptr().cast::<FaultHeader>().read_unaligned() };
    let pid = pid_of(header.slot, header.global_tgid)?;
    if header.kind == MOVED {
        let moved = Some(Moved { from: header.ip, bytes: header.sp, room: header.bp });
        return Some(Fault { pid, time: header.time, address: header.address, moved, ..Fault::default() });
    }
    let frames = tail.get(..8 * header.frames as usize)?;
    let stack = match header.stack_bytes as usize {
        0 => &[],
        // The stack lies behind the room for all frames.
        length => tail.get(8 * MAX_FRAMES..)?.get(..length.min(MAX_STACK_BYTES))?,
    };
    Some(Fault {
        pid,
        global_tid: header.global_tid,
        time: header.time,
        address: header.address,
        ip: header.ip,
        sp: header.sp,
        bp: header.bp,
        weight: header.weight,
        frames: frames.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word)).collect(),
        stack: stack.to_vec(),
        moved: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it comes to rest for targets and a machine that fault so often a second, and in how many steps.
    fn settles(target: f64, all: f64) -> (u64, usize) {
        let mut period = FIRST;
        for step in 0.. {
            let faults = PERIODS[period] as f64;
            let then = next(period, target / faults, all / faults);
            if then == period {
                return (PERIODS[period], step);
            }
            assert!(step < 50, "no rest at {target} of {all}");
            period = then;
        }
        unreachable!()
    }

    #[test]
    fn the_period_follows_the_rate() {
        // 200 KB/s of growth are 50 faults a second: ten samples.
        assert_eq!(settles(50.0, 100.0).0, 5);
        assert_eq!(settles(50_000.0, 50_000.0).0, 61);
        // A neighbour that faults all the time is spared, but a quiet target is still seen.
        assert_eq!(settles(50.0, 600_000.0), (251, 1));
        let (period, steps) = settles(1_000_000.0, 1_000_000.0);
        assert!(period >= 1021 && steps == 1, "{period} in {steps}");
        for odd in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            next(0, odd, odd);
            next(PERIODS.len() - 1, odd, odd);
        }
    }

    #[test]
    fn records_of_both_kinds_are_told_apart() {
        let mut header = [0u8; size_of::<FaultHeader>()];
        header[8..16].copy_from_slice(&0x7000u64.to_ne_bytes());
        header[16..24].copy_from_slice(&0x5000u64.to_ne_bytes());
        header[24..32].copy_from_slice(&0x2000u64.to_ne_bytes());
        assert_eq!(parse(&header, |_, _| Some(1)).unwrap().moved, None);
        header[68..72].copy_from_slice(&MOVED.to_ne_bytes());
        let moved = parse(&header, |_, _| Some(1)).unwrap();
        assert_eq!(
            (moved.address, moved.moved),
            (0x7000, Some(Moved { from: 0x5000, bytes: 0x2000, room: 0 }))
        );
        assert_eq!(parse(&header, |_, _| None), None, "no target any more");
        assert_eq!(parse(&header[..71], |_, _| Some(1)), None);
    }
}
