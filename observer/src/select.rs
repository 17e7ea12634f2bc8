//! Which processes of this machine are observed, and under which names.
//!
//! Reads `/proc` and, where a rule asks for it, what Kubernetes knows of this node's pods; gives matches. A scan of
//! some hundred processes costs milliseconds.

pub(crate) mod name;
pub mod pods;
pub mod rules;
pub(crate) mod scan;
