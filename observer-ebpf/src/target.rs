//! Is this process a target? One look at the table for nearly every process of the machine.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use observer_common::target::{MAX_TARGETS, SEARCHED, TABLE, Target};

#[map]
static TARGETS: Array<Target> = Array::with_max_entries(TABLE, 0);
/// By slot, the owner that threads of the target that has it now would have, were their tid 0; 0: none has it.
#[map]
static REGISTERED: Array<u64> = Array::with_max_entries(MAX_TARGETS, 0);

#[inline(always)]
pub fn find(global_tgid: u32) -> Option<Target> {
    let mut place = Target::place(global_tgid);
    for _ in 0..SEARCHED {
        // SAFETY: an element of the array, which is one aligned word.
        let entry = Target::from_word(unsafe { TARGETS.get_ptr(place)?.cast::<u64>().read_volatile() });
        if entry.global_tgid() == global_tgid {
            // The idle tasks have the number 0, as entries that are free.
            return (global_tgid != 0).then_some(entry);
        }
        if entry == Target::NONE {
            return None;
        }
        place = Target::next(place);
    }
    None
}

/// Whether what a thread of that [`Target::owner`] has noted is of a target that still is one.
#[inline(always)]
pub fn is_registered(owner: u64) -> bool {
    let of_target = owner >> 32 << 32;
    REGISTERED.get((owner >> 40) as u32 & (MAX_TARGETS - 1)).is_some_and(|now| *now == of_target)
}
