//! Observer's own heap, where the allocator keeps what was freed: after a burst, most of what is resident is that.
//!
//! Only glibc's allocator needs it; with another these do nothing.

/// Gives memory that was freed back to the kernel. Parsing the kernel's BTF leaves 16 MB of it behind, reading the
/// symbols of a target some 4 MB. Takes some milliseconds, in which nobody else allocates.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has threads share two arenas: each has its own otherwise, and keeps the most it ever used.
pub(crate) fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions; what cannot be set stays as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
