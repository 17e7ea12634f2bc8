//! Who is observed: found, identified, and read from with bounds.

pub mod code;
pub mod container;
pub mod files;
pub mod find;
pub mod identity;
pub mod maps;
pub mod memory;
pub mod stat;
pub mod status;

pub use identity::Target;

use thiserror::Error;

/// The target has exited: what was seen until then stands.
#[derive(Clone, Copy, Debug, Error)]
#[error("the process has exited")]
pub struct Exited;
