//! Sampled allocations of a target's own allocator: one ring record each, and one for each of them that was freed.
//!
//! Which allocations are sampled is drawn by bytes ([`interval`]): so an allocation of `n` bytes is sampled with the
//! probability `1 - exp(-n / period)`, whatever came before it.

/// Bytes of stack that travel with a sample.
pub const MAX_STACK_BYTES: usize = 8192;
/// Sampled allocations, of all targets together, that can be alive at a time.
pub const MAX_LIVE: u32 = 1 << 16;

/// What a function of an allocator takes; the low byte of its probe's cookie, above which its size in bytes stands.
pub mod kind {
    /// `(size)`.
    pub const MALLOC: u32 = 1;
    /// `(count, size)`.
    pub const CALLOC: u32 = 2;
    /// `(block, size)`.
    pub const REALLOC: u32 = 3;
    /// `(block, count, size)`.
    pub const REALLOCARRAY: u32 = 4;
    /// `(alignment, size)`.
    pub const MEMALIGN: u32 = 5;
    /// `(&block, alignment, size)`; says in its result whether it failed.
    pub const POSIX_MEMALIGN: u32 = 6;
    /// `(block)`.
    pub const FREE: u32 = 7;
}

/// A probe's cookie: what the function takes, and where it ends.
pub const fn cookie(kind: u32, function_bytes: u64) -> u64 {
    (kind & 0xff) as u64 | function_bytes << 8
}

/// Identifies a block that is alive.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub address: u64,
    pub global_tgid: u32,
    pub padding: u32,
}

/// Bytes to the next sample of a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter {
    pub left: i64,
    /// 0: nothing has been drawn yet.
    pub drawn: u64,
}

/// An allocation that was sampled.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AllocationHeader {
    /// Monotonic nanoseconds when it returned; with the address the name of the block.
    pub time: u64,
    pub address: u64,
    /// As asked for.
    pub size: u64,
    /// Mean bytes to a sample when it was drawn.
    pub period: u64,
    /// Of the caller, behind its call.
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    pub global_tgid: u32,
    pub global_tid: u32,
    /// Of the target.
    pub slot: u32,
    pub stack_bytes: u32,
}

/// The whole record.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocationRecord {
    pub header: AllocationHeader,
    pub stack: [u8; MAX_STACK_BYTES],
}

/// A sampled allocation that is no more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FreeRecord {
    pub address: u64,
    /// When it was allocated.
    pub born: u64,
    pub global_tgid: u32,
    /// Of the target.
    pub slot: u32,
}

/// Bytes to the next sample: exponentially distributed with the mean `period`, from 32 uniform bits.
///
/// In whole numbers, since the kernel's half has no others; within 0.1 % of the true distribution's mean.
#[inline(always)]
pub const fn interval(random: u32, period: u64) -> i64 {
    // -ln(u / 2^32) = (32 - log2 u) ln 2, with sixteen bits behind the point.
    let u = random as u64 + 1;
    let whole = 63 - u.leading_zeros() as u64;
    let fraction = ((u << 16 >> whole) & 0xffff) as i64;
    // log2(1 + f) = f + f (1 - f) (a + b f + c f²), a fit that is off by 0.00015 at most.
    let curve = 28_710 + ((-15_512 * fraction) >> 16) + ((5_263 * ((fraction * fraction) >> 16)) >> 16);
    let bend = (((fraction * (65_536 - fraction)) >> 16) * curve) >> 16;
    let log2 = ((whole << 16) as i64) + fraction + bend;
    let nats = (((32 << 16) - log2) * 45_426) >> 16;
    let period = if period > 1 << 40 { 1 << 40 } else { period };
    let bytes = (nats as u64 * period) >> 16;
    if bytes == 0 { 1 } else { bytes as i64 }
}

const _: () = assert!(size_of::<Block>() == 16);
const _: () = assert!(size_of::<Counter>() == 16);
const _: () = assert!(size_of::<AllocationHeader>() == 72);
const _: () = assert!(size_of::<AllocationRecord>() == 72 + 8192);
const _: () = assert!(size_of::<FreeRecord>() == 24);

crate::plain_data!(Block, Counter, AllocationHeader, FreeRecord);

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn intervals_are_exponential() {
        const PERIOD: u64 = 1 << 19;
        // The whole distribution, by its quantiles.
        let draws = 1 << 20;
        let (mut sum, mut above_mean, mut above_three) = (0f64, 0u32, 0u32);
        for step in 0..draws {
            let bytes = interval((step << 12) + (1 << 11), PERIOD) as f64 / PERIOD as f64;
            sum += bytes;
            above_mean += u32::from(bytes > 1.0);
            above_three += u32::from(bytes > 3.0);
        }
        let share = |n: u32| f64::from(n) / f64::from(draws);
        assert!((sum / f64::from(draws) - 1.0).abs() < 1e-3, "{}", sum / f64::from(draws));
        assert!((share(above_mean) - 0.367_879).abs() < 1e-3, "{}", share(above_mean));
        assert!((share(above_three) - 0.049_787).abs() < 5e-4, "{}", share(above_three));
    }

    #[test]
    fn no_draw_overflows_or_is_nothing() {
        for random in [0, 1, 2, u32::MAX - 1, u32::MAX] {
            for period in [0, 1, 1 << 40, u64::MAX] {
                assert!(interval(random, period) > 0);
            }
        }
        assert_eq!(interval(u32::MAX, 1 << 19), 1);
    }
}
