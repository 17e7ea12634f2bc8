//! Futex waits that ended, as log2 histograms; a wait that a signal interrupts and that goes on is one wait.

/// Buckets of the histogram; the last also takes everything longer (2^39 µs is six days).
pub const BUCKETS: usize = 40;

/// Threads whose waits can be timed at a time, all targets together.
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

/// The wait that a thread is in, by its global tid. Kept between waits with `since` 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sleep {
    /// When it went to sleep, monotonic nanoseconds; 0: it does not wait.
    pub since: u64,
    /// When a signal woke it; 0: none did.
    pub interrupted: u64,
    /// User stack pointer: a wait that goes on after a signal has the same one.
    pub sp: u64,
    /// Guards against a tid that was reused.
    pub global_tgid: u32,
    /// Of the target: saves looking it up at every switch.
    pub slot: u32,
    /// 1: its syscall goes on as `restart_syscall`.
    pub restarts: u32,
    pub padding: u32,
}

/// What became of the futex waits of one target on one CPU (`--exact`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactWaits {
    pub woken: u64,
    pub timed_out: u64,
    /// The word had changed before it could sleep.
    pub refused: u64,
    /// Ended by a signal, or failed.
    pub failed: u64,
}

const _: () = assert!(size_of::<WaitCounters>() == 320);
const _: () = assert!(size_of::<Sleep>() == 40);
const _: () = assert!(size_of::<ExactWaits>() == 32);

crate::plain_data!(WaitCounters, Sleep, ExactWaits);
