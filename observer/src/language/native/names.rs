//! What compilers and linkers put around a name.

/// Without leading underscores, and up to the `.` that says which part or variant of the function it is.
pub(super) fn plain(function: &str) -> &str {
    function.trim_start_matches('_').split('.').next().unwrap_or_default()
}
