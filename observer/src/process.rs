//! Who is observed: found, identified, and read from with bounds.

pub mod code;
pub(crate) mod container;
pub(crate) mod files;
pub(crate) mod find;
pub(crate) mod identity;
pub mod maps;
pub mod memory;
pub(crate) mod stat;
pub(crate) mod status;

pub use identity::Target;

use thiserror::Error;

/// The target has exited: what was seen until then stands.
#[derive(Clone, Copy, Debug, Error)]
#[error("the process has exited")]
pub struct Exited;
