//! Is this process a target? A test of one bit for every process of the machine, a lookup for the few that pass.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use observer_common::target::{MAX_TARGETS, Target, TargetFilter};

#[map]
static TARGET_FILTER: Array<TargetFilter> = Array::with_max_entries(1, 0);
#[map]
static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(MAX_TARGETS, 0);

#[inline(always)]
pub fn find(global_tgid: u32) -> Option<Target> {
    let filter = TARGET_FILTER.get(0)?;
    let (word, bit) = TargetFilter::place(global_tgid);
    if filter.words[word] & bit == 0 {
        return None;
    }
    // SAFETY: values are written whole by user space and copied out at once.
    unsafe { TARGETS.get(global_tgid) }.copied()
}
