//! The ABI between observer's eBPF programs and its user space: one module a source, named as everywhere else.
//!
//! Plain data only: `repr(C)`, explicit padding, sizes asserted, no `bool`, no `Option`, no pointers.
#![no_std]

pub mod census;
