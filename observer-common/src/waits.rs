//! Futex waits that ended, as log2 histograms; a wait that a signal interrupts and that goes on is one wait.
//!
//! Not every wait is timed: which ones are is decided when they begin, by chance, and each that is timed stands for
//! so many ([`Timing`]). So what is counted does not depend on how long a wait turns out to be.

/// Buckets of the histogram; the last also takes everything longer (2^39 µs is six days).
pub const BUCKETS: usize = 40;

/// Threads whose waits can be timed at a time, all targets together. A power of two: the place of a thread is its tid
/// by this, which keeps threads apart that were started one after another.
pub const MAX_SLEEPERS: u32 = 32_768;

/// Waits of one target on one CPU, since it became a target.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WaitCounters {
    /// `[i]` counts waits of 2^i to 2^(i+1) microseconds; `[0]` also shorter ones.
    pub log2_microseconds: [u64; BUCKETS],
}

impl WaitCounters {
    pub const ZERO: Self = Self { log2_microseconds: [0; BUCKETS] };
}

/// Which of the waits that begin now are timed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// One of so many, less one: a power of two less one. 0: every one.
    pub mask: u32,
    /// Waits that each of them stands for.
    pub weight: u32,
    /// Of those that begin from then on and before `until`, in monotonic nanoseconds.
    pub from: u64,
    pub until: u64,
}

/// The wait that a thread is in. Kept between waits with `since` 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sleep {
    /// The thread and its target's registration ([`crate::target::Target::owner`]).
    pub owner: u64,
    /// When it went to sleep, monotonic nanoseconds; 0: it does not wait, or is not timed.
    pub since: u64,
    /// Context switches of the thread by then: it is the same wait as long as there are no more.
    pub switches: u64,
    /// User stack pointer when a signal woke it: a wait that goes on afterwards has the same one. 0: none did.
    pub interrupted_at: u64,
    /// Waits that this one stands for.
    pub weight: u32,
    pub padding: u32,
}

const _: () = assert!(MAX_SLEEPERS.is_power_of_two());
const _: () = assert!(size_of::<WaitCounters>() == 320);
const _: () = assert!(size_of::<Timing>() == 24);
const _: () = assert!(size_of::<Sleep>() == 40);

crate::plain_data!(WaitCounters, Timing, Sleep);
