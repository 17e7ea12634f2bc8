//! Who is observed: found, identified, and read from with bounds.

pub mod maps;
pub mod memory;
