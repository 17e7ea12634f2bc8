//! Futex waits that ended, in total and by time, from the `sched_switch` program.
//!
//! Every wait is timed as long as there are few of them. Where there are many, one of so many is, and stands for
//! them: what it costs the target is bounded so, and what is counted is an estimate that no length of wait biases.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use aya::maps::{Array, MapData, MapError, PerCpuArray};
use aya::programs::{BtfTracePoint, ProgramError};
use observer_common::waits::{BUCKETS, Timing, WaitCounters};

use super::features::{self, Feature, State};
use super::source::{Drained, Object, Source};
use super::sys;
use super::targets::{TargetHandle, Targets};
use super::{KernelError, KernelOptions, clear, take_map};
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

pub(super) struct FutexWaits {
    counters: PerCpuArray<MapData, WaitCounters>,
    timing: Array<MapData, Timing>,
    /// Waits timed since load, of all targets.
    timed: PerCpuArray<MapData, u64>,
    timed_before: u64,
    looked: Instant,
    /// One of 2^this is timed.
    shift: u32,
    _program: OwnedFd,
    _link: OwnedFd,
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
        u64::from(every(self.shift).weight)
    }

    fn adapt(&mut self) {
        let seconds = self.looked.elapsed().as_secs_f64();
        if seconds < BURST {
            return;
        }
        let timed: u64 = self.timed.get(&0, 0).map_or(0, |timed| timed.iter().sum());
        let new = timed.saturating_sub(self.timed_before);
        if seconds < ADAPT && (new as f64) < MANY * BURST {
            return;
        }
        (self.timed_before, self.looked) = (timed, Instant::now());
        let shift = next(self.shift, new as f64 / seconds);
        // Each wait says what it stands for, so that waits of different rates may mix.
        if shift != self.shift && self.timing.set(0, every(shift), 0).is_ok() {
            self.shift = shift;
        }
    }
}

impl Source for FutexWaits {
    fn load(from: &mut Object<'_>, options: &KernelOptions) -> Result<(Option<Self>, Feature), KernelError> {
        if !options.waits {
            return Ok((None, Feature::of("waits", State::Off { how: "not asked for" }, Vec::new())));
        }
        let attached = attach(from);
        let (program, link) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                let state = State::Unavailable { instead: "the time of futex waits is not measured" };
                return Ok((None, Feature::of("waits", state, vec![features::refusal(SWITCH, &error)])));
            }
        };
        let mut timing: Array<MapData, Timing> = take_map(from.ebpf, "WAITS_TIMING", Array::try_from)?;
        timing.set(0, every(0), 0).map_err(|error| KernelError::Map { map: "WAITS_TIMING", error })?;
        let source = Self {
            counters: take_map(from.ebpf, "WAITS", PerCpuArray::try_from)?,
            timing,
            timed: take_map(from.ebpf, "WAITS_TIMED", PerCpuArray::try_from)?,
            timed_before: 0,
            looked: Instant::now(),
            shift: 0,
            _program: program,
            _link: link,
        };
        let state =
            State::On { hook: SWITCH, cost: "context switches a few percent dearer, of every process" };
        Ok((Some(source), Feature::of("waits", state, Vec::new())))
    }

    fn clear(&mut self, target: &TargetHandle) -> Result<(), KernelError> {
        clear(&mut self.counters, target.slot(), WaitCounters::ZERO)
    }

    fn drain(&mut self, _: &Targets, _: &mut Drained) {
        self.adapt();
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

/// Times one of 2^shift waits.
fn every(shift: u32) -> Timing {
    let weight = 1 << shift.min(MAX_SHIFT);
    Timing { mask: weight - 1, weight }
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
        let settles =
            |waits: f64| (0..50).fold(0, |shift, _| next(shift, waits / f64::from(every(shift).weight)));
        assert_eq!(settles(0.0), 0);
        assert_eq!(settles(MANY), 0);
        for waits in [20_000.0, 400_000.0, 5e6] {
            let shift = settles(waits);
            let timed = waits / f64::from(every(shift).weight);
            assert!((FEW..=MANY).contains(&timed), "{timed} of {waits}");
        }
        assert_eq!(settles(1e12), MAX_SHIFT);
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(next(3, odd) <= MAX_SHIFT);
        }
        assert_eq!((every(0).mask, every(0).weight, every(4).mask, every(4).weight), (0, 1, 15, 16));
    }
}
