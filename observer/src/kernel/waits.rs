//! Futex waits that ended, in total and by time, from the `sched_switch` program.
//!
//! Every wait is timed as long as there are few of them. Where there are many, one of so many is, and stands for
//! them: what it costs the target is bounded so, and what is counted is an estimate that no length of wait biases.
//! Where the whole machine switches often, the program is there in windows only (windows.rs): waits that begin in
//! the first part of one are followed to their end, by looks at all threads while it is not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use aya::maps::{Array, MapData, MapError, PerCpuArray};
use aya::programs::{BtfTracePoint, Iter, ProgramError};
use observer_common::waits::{BUCKETS, Timing, WaitCounters};

use super::error::KernelError;
use super::features::{self, Feature, State};
use super::maps::{clear, take_map};
use super::options::KernelOptions;
use super::source::{Drained, Object, Source};
use super::sys;
use super::targets::{TargetHandle, Targets};
use super::windows::{Hooks, Rate, Schedule, Step};
use crate::sample::Waits;

const SWITCH: &str = "tp_btf/sched_switch";

/// Waits timed a second, of all targets together, above which fewer are.
const MANY: f64 = 10_000.0;
/// And below which more are.
const FEW: f64 = 2_500.0;
/// At most one of 2^this.
const MAX_SHIFT: u32 = 10;
/// Seconds between two looks at the rate; and between two while there are many.
const ADAPT: f64 = 0.5;
const BURST: f64 = 0.02;
/// From when until when waits are timed outside of windows.
const ALWAYS: [u64; 2] = [0, u64::MAX];
const NEVER: [u64; 2] = [u64::MAX, u64::MAX];
/// A look that the kernel interrupts so often (`EAGAIN`, a million tasks each) is given up.
const MAX_RETRIES: u32 = 64;

pub(super) struct FutexWaits {
    counters: PerCpuArray<MapData, WaitCounters>,
    timing: Array<MapData, Timing>,
    /// Waits timed since load, of all targets.
    timed: PerCpuArray<MapData, u64>,
    timed_before: u64,
    rate_since: Instant,
    /// One of 2^this is timed.
    shift: u32,
    /// And stands for so many times as many: 1 but for windows.
    factor: u32,
    looked: Array<MapData, u64>,
    program: OwnedFd,
    /// While it is attached.
    link: Option<OwnedFd>,
    windows: Option<(Schedule, Rate, Looks)>,
}

/// The program that looks at all threads of targets while the other is not attached.
struct Looks {
    program: OwnedFd,
    /// Iterators over the threads, by the target's slot.
    links: BTreeMap<u32, OwnedFd>,
}

impl FutexWaits {
    /// Since the target was added.
    pub(super) fn read(&self, slot: u32) -> Result<Waits, MapError> {
        let mut sums = [0u64; BUCKETS];
        for counters in self.counters.get(&slot, 0)?.iter() {
            for (sum, count) in sums.iter_mut().zip(counters.log2_microseconds) {
                *sum += count;
            }
        }
        let used = sums.iter().rposition(|&count| count != 0).map_or(0, |last| last + 1);
        Ok(Waits { ended: sums.iter().sum(), log2_microseconds: sums[..used].to_vec() })
    }

    /// Waits that one which is timed now stands for.
    pub(super) fn period(&self) -> u64 {
        u64::from(share(self.shift)) * u64::from(self.factor)
    }

    fn adapt(&mut self) {
        let seconds = self.rate_since.elapsed().as_secs_f64();
        // In a window the share stays as it is.
        if self.link.is_none() || self.factor != 1 || seconds < BURST {
            return;
        }
        let new = self.newly_timed();
        if seconds < ADAPT && (new as f64) < MANY * BURST {
            return;
        }
        self.timed_before += new;
        self.rate_since = Instant::now();
        let shift = next(self.shift, new as f64 / seconds);
        // Each wait says what it stands for, so that waits of different rates may mix.
        if shift != self.shift && self.set_timing(shift, 1, ALWAYS).is_ok() {
            self.shift = shift;
        }
    }

    fn newly_timed(&self) -> u64 {
        let timed: u64 = self.timed.get(&0, 0).map_or(0, |timed| timed.iter().sum());
        timed.saturating_sub(self.timed_before)
    }

    fn set_timing(&mut self, shift: u32, factor: u32, [from, until]: [u64; 2]) -> io::Result<()> {
        let weight = share(shift).saturating_mul(factor);
        let timing = Timing { mask: share(shift) - 1, weight, from, until };
        self.timing.set(0, timing, 0).map_err(io::Error::other)
    }

    fn step(&mut self, now: Instant) -> io::Result<()> {
        let Some((schedule, switches, _)) = &mut self.windows else { return Ok(()) };
        let timed = schedule.timed();
        match schedule.step(now, || switches.is_busy(now)) {
            Step::Nothing => Ok(()),
            Step::Stay => {
                self.set_timing(self.shift, 1, ALWAYS)?;
                self.factor = 1;
                self.attach()?;
                self.look()
            }
            Step::Open { weight } => {
                self.factor = weight;
                // However long attaching takes, the window is as long as it should be.
                self.set_timing(self.shift, weight, NEVER)?;
                self.attach()?;
                if let Some((schedule, ..)) = &mut self.windows {
                    let counted = schedule.begin(Instant::now()).map(sys::monotonic_at);
                    self.set_timing(self.shift, weight, counted)?;
                }
                self.look()
            }
            Step::Close => {
                // How many were timed in this window says how many are to be in the next.
                if self.factor != 1 {
                    let rate = self.newly_timed() as f64 / timed.as_secs_f64();
                    self.shift = next(self.shift, rate);
                }
                // What was still waiting then, the program has seen.
                let seen = sys::monotonic();
                self.link = None;
                self.looked.set(0, seen, 0).map_err(io::Error::other)
            }
            Step::Look => self.look(),
        }
    }

    /// Attaches the program. What ended while it was not, is to be found out next.
    fn attach(&mut self) -> io::Result<()> {
        self.link = Some(sys::attach_tracepoint(self.program.as_fd())?);
        self.timed_before += self.newly_timed();
        self.rate_since = Instant::now();
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        let Some((_, _, looks)) = &self.windows else { return Ok(()) };
        let begun = sys::monotonic();
        for link in looks.links.values() {
            run(link)?;
        }
        // Whoever was seen to wait did so now at the earliest.
        self.looked.set(0, begun, 0).map_err(io::Error::other)
    }
}

/// Runs a linked iterator that writes nothing to its end.
fn run(link: &OwnedFd) -> io::Result<()> {
    let mut file = File::from(sys::iterate(link.as_fd())?);
    for _ in 0..MAX_RETRIES {
        match file.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Source for FutexWaits {
    fn load(from: &mut Object<'_>, options: &KernelOptions) -> Result<(Option<Self>, Feature), KernelError> {
        if !options.waits {
            return Ok((None, Feature::of("waits", State::Off { how: "not asked for" }, Vec::new())));
        }
        let (program, link) = match attach(from) {
            Ok(attached) => attached,
            Err(error) => {
                let state = State::Unavailable { instead: "the time of futex waits is not measured" };
                return Ok((None, Feature::of("waits", state, vec![features::refusal(SWITCH, &error)])));
            }
        };
        let mut refused = Vec::new();
        let windows = match &options.hooks {
            Hooks::Always => None,
            Hooks::Windows(windows) => match load_looks(from) {
                Ok(program) => {
                    let looks = Looks { program, links: BTreeMap::new() };
                    let switches = Rate::of_switches(windows.busy_switches);
                    Some((Schedule::new(windows, Instant::now()), switches, looks))
                }
                Err(error) => {
                    // Without it, it is there all the time.
                    refused.push(features::refusal("iter/task", &error));
                    None
                }
            },
        };
        let mut source = Self {
            counters: take_map(from.ebpf, "WAITS", PerCpuArray::try_from)?,
            timing: take_map(from.ebpf, "WAITS_TIMING", Array::try_from)?,
            timed: take_map(from.ebpf, "WAITS_TIMED", PerCpuArray::try_from)?,
            timed_before: 0,
            rate_since: Instant::now(),
            shift: 0,
            factor: 1,
            looked: take_map(from.ebpf, "WAITS_LOOKED", Array::try_from)?,
            program,
            link: Some(link),
            windows,
        };
        source
            .set_timing(0, 1, ALWAYS)
            .map_err(|error| KernelError::Map { map: "WAITS_TIMING", error: MapError::IoError(error) })?;
        let cost = if source.windows.is_some() {
            "context switches a few percent dearer, of every process; on a machine that switches often a tenth of the time"
        } else {
            "context switches a few percent dearer, of every process"
        };
        Ok((Some(source), Feature::of("waits", State::On { hook: SWITCH, cost }, refused)))
    }

    fn clear(&mut self, target: &TargetHandle) -> Result<(), KernelError> {
        if let Some((_, _, looks)) = &mut self.windows {
            let link = sys::link_threads(looks.program.as_fd(), target.pid())
                .map_err(|error| KernelError::Census { pid: target.pid(), error })?;
            looks.links.insert(target.slot(), link);
        }
        clear(&mut self.counters, target.slot(), WaitCounters::ZERO)
    }

    fn drain(&mut self, _: &Targets, _: &mut Drained) {
        self.adapt();
        if let Err(error) = self.step(Instant::now()) {
            tracing::debug!(%error, "the window of waits");
        }
    }

    fn remove(&mut self, target: &TargetHandle) {
        if let Some((_, _, looks)) = &mut self.windows {
            looks.links.remove(&target.slot());
        }
    }
}

fn attach(from: &mut Object<'_>) -> Result<(OwnedFd, OwnedFd), ProgramError> {
    let btf = from.btf;
    let loaded: &mut BtfTracePoint = from.program("waits")?;
    loaded.load("sched_switch", btf)?;
    let program = loaded.fd()?.as_fd().try_clone_to_owned()?;
    let link = sys::attach_tracepoint(program.as_fd())?;
    Ok((program, link))
}

fn load_looks(from: &mut Object<'_>) -> Result<OwnedFd, ProgramError> {
    let btf = from.btf;
    let loaded: &mut Iter = from.program("waits_look")?;
    loaded.load("task", btf)?;
    Ok(loaded.fd()?.as_fd().try_clone_to_owned()?)
}

/// One of so many is timed.
fn share(shift: u32) -> u32 {
    1 << shift.min(MAX_SHIFT)
}

/// The shift after one that gave so many waits a second.
fn next(shift: u32, rate: f64) -> u32 {
    if rate > MANY {
        // At once as far as it takes.
        let doublings = (rate / MANY).log2().ceil().clamp(0.0, 32.0) as u32;
        (shift + doublings).min(MAX_SHIFT)
    } else if rate < FEW {
        shift.saturating_sub(1)
    } else {
        shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_waits_are_timed_all_and_many_in_part() {
        let settles = |waits: f64| (0..50).fold(0, |shift, _| next(shift, waits / f64::from(share(shift))));
        assert_eq!(settles(0.0), 0);
        assert_eq!(settles(MANY), 0);
        for waits in [20_000.0, 400_000.0, 5e6] {
            let shift = settles(waits);
            let timed = waits / f64::from(share(shift));
            assert!((FEW..=MANY).contains(&timed), "{timed} of {waits}");
        }
        assert_eq!(settles(1e12), MAX_SHIFT);
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(next(3, odd) <= MAX_SHIFT);
        }
        assert_eq!((share(0), share(4), share(99)), (1, 16, 1 << MAX_SHIFT));
    }
}
