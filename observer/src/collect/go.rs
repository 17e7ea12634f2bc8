//! What the Go runtime of a target says about itself, read from its memory.

pub mod layout;
