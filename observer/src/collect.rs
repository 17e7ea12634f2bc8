//! Collectors: a module a source, each giving its part of a [`crate::sample::Sample`].

pub mod allocations;
pub mod go;
pub mod growth;
pub mod mapped;
pub mod pagemap;
pub mod process;
pub mod smaps;
pub mod threads;
