//! The ABI between observer's eBPF programs and its user space: one module a source, named as everywhere else.
//!
//! Plain data only: `repr(C)`, explicit padding, sizes asserted, no `bool`, no `Option`, no pointers.
//! "Global" pids and tids are those of the initial PID namespace, which is how eBPF programs see them.
#![no_std]

pub mod allocations;
pub mod census;
pub mod growth;
pub mod layout;
pub mod lifecycle;
pub mod loss;
pub mod mapped;
pub mod syscall;
pub mod target;
pub mod waits;

/// Marks types as plain data for the maps of user space.
#[cfg(feature = "user")]
macro_rules! plain_data {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` integers and arrays of them, without padding: any bytes are a value of it.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

/// Kernel side: nothing to mark.
#[cfg(not(feature = "user"))]
macro_rules! plain_data {
    ($($name:ty),+ $(,)?) => {};
}

pub(crate) use plain_data;
