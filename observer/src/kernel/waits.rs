//! Futex waits that ended, in total and by time, from the `sched_switch` program and, with `--exact`, by
//! result from every futex call.

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use observer_common::waits::{BUCKETS, ExactWaits, MAX_SLEEPERS, Sleep, WaitCounters};

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

/// The waits that threads are in now.
pub(super) struct SleepsMap(pub(super) HashMap<MapData, u32, Sleep>);

impl SleepsMap {
    /// Forgets the threads of who is no target any more: another target will have its slot.
    pub(super) fn forget(&mut self, global_tgid: u32) {
        let entries = self.0.iter().take(MAX_SLEEPERS as usize).filter_map(Result::ok);
        let of_target = entries.filter(|(_, sleep)| sleep.global_tgid == global_tgid);
        for tid in of_target.map(|(tid, _)| tid).collect::<Vec<_>>() {
            // One that is gone by itself is as good.
            let _ = self.0.remove(&tid);
        }
    }
}
