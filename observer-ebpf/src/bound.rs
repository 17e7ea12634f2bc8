//! Bounds that the verifier of every kernel can follow.
//!
//! The compiler drops a test whose outcome it can deduce, and deduces more than older verifiers do: Linux 6.1
//! and 6.12 refuse what 6.18 takes.

/// The same value, of which the compiler knows nothing: a test or a mask after this stays in the program.
#[inline(always)]
pub fn unknown(value: u64) -> u64 {
    // SAFETY: a variable of our own.
    unsafe { core::ptr::read_volatile(&raw const value) }
}
