//! The target's `nanotime`: the monotonic clock, which all processes of a machine share.

/// Nanoseconds; 0 where the clock cannot be read.
pub(super) fn monotonic_nanos() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .ok()
        .and_then(|now| {
            Some(u64::try_from(now.tv_sec()).ok()? * 1_000_000_000 + u64::try_from(now.tv_nsec()).ok()?)
        })
        .unwrap_or(0)
}
