//! Who is observed: found, identified, and read from with bounds.

pub mod container;
pub mod find;
pub mod identity;
pub mod maps;
pub mod memory;
pub mod runtime;
pub mod stat;
pub mod status;

pub use identity::Target;
