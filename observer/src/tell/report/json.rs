//! The JSON documents, `observer.snapshot/1` and `observer.diagnosis/1`.
//!
//! Takes what is to be told, gives one document with a newline. Numbers that are none (a recording may hold anything)
//! become null.

use super::Snapshot;
use crate::diagnose::Diagnosis;

pub fn diagnosis(diagnosis: &Diagnosis) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(diagnosis)? + "\n")
}

pub fn snapshot(snapshot: &Snapshot) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(snapshot)? + "\n")
}
