//! Counters of what the programs could not keep.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use observer_common::loss::{LOSSES, Loss};

#[map]
static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSSES, 0);

#[inline(always)]
pub fn count(loss: Loss) {
    if let Some(counter) = LOSS.get_ptr_mut(loss as u32) {
        // SAFETY: this CPU's counter, in a map value that lives as long as the program.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
