//! What a library makes of a file that is the target's, and that it was not written for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::process::memory::truncated;

/// Why what was read is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoilt {
    /// The file was cut short meanwhile: what was read of it may be zeros.
    CutShort,
    Panicked,
}

pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, Spoilt> {
    let before = truncated::pages();
    let found = catch_unwind(AssertUnwindSafe(read));
    if truncated::pages() > before {
        return Err(Spoilt::CutShort);
    }
    found.map_err(|_| Spoilt::Panicked)
}
