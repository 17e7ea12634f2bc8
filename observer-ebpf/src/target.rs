//! Is this process a target? A test of one bit for every process of the machine, a lookup for the few that pass.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use observer_common::target::{MAX_TARGETS, Target, TargetFilter};

#[map]
static TARGET_FILTER: Array<TargetFilter> = Array::with_max_entries(1, 0);
#[map]
static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// Whether it may be a target: a test of one bit.
#[inline(always)]
pub fn passes(global_tgid: u32) -> bool {
    let (word, bit) = TargetFilter::place(global_tgid);
    TARGET_FILTER.get(0).is_some_and(|filter| filter.words[word] & bit != 0)
}

#[inline(always)]
pub fn find(global_tgid: u32) -> Option<Target> {
    if !passes(global_tgid) {
        return None;
    }
    // SAFETY: values are written whole by user space and copied out at once.
    unsafe { TARGETS.get(global_tgid) }.copied()
}
