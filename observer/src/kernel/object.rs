//! The eBPF object that this binary carries, or why it carries none.

/// The object that the build script left, or why it could not build one.
#[cfg(observer_ebpf)]
pub(super) const OBJECT: Result<&[u8], &str> =
    Ok(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf")));
#[cfg(not(observer_ebpf))]
pub(super) const OBJECT: Result<&[u8], &str> = Err(env!("OBSERVER_EBPF_MISSING"));

/// Whether this binary has an eBPF object; if not, why.
pub fn built() -> Result<(), &'static str> {
    OBJECT.map(drop)
}
