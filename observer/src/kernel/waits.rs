//! Futex waits that ended, in total and by time, from the `sched_switch` program and, with `--exact`, by
//! result from every futex call.

use aya::maps::{MapData, MapError, PerCpuArray};
use observer_common::waits::{BUCKETS, ExactWaits, WaitCounters};

use crate::sample::Waits;

pub(super) struct WaitsMap(pub(super) PerCpuArray<MapData, WaitCounters>);

impl WaitsMap {
    /// Since the target was added.
    pub(super) fn read(&self, slot: u32) -> Result<Waits, MapError> {
        let mut sums = [0u64; BUCKETS];
        for counters in self.0.get(&slot, 0)?.iter() {
            for (sum, count) in sums.iter_mut().zip(counters.log2_microseconds) {
                *sum += count;
            }
        }
        let used = sums.iter().rposition(|&count| count != 0).map_or(0, |last| last + 1);
        Ok(Waits { ended: sums.iter().sum(), log2_microseconds: sums[..used].to_vec() })
    }
}

pub(super) struct ExactWaitsMap(pub(super) PerCpuArray<MapData, ExactWaits>);

impl ExactWaitsMap {
    /// Since the target was added.
    pub(super) fn read(&self, slot: u32) -> Result<ExactWaits, MapError> {
        Ok(self.0.get(&slot, 0)?.iter().fold(ExactWaits::default(), |sum, counters| ExactWaits {
            woken: sum.woken + counters.woken,
            timed_out: sum.timed_out + counters.timed_out,
            refused: sum.refused + counters.refused,
            failed: sum.failed + counters.failed,
        }))
    }
}
