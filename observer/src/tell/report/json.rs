//! The JSON documents, `observer.snapshot/1` and `observer.diagnosis/1`.
//!
//! Takes what is to be told, gives one document with a newline. Numbers that are none (a recording may hold anything)
//! become null.

use serde::Serialize;

use super::Snapshot;
use crate::diagnose::Diagnosis;
use crate::escape::harmful;

pub fn diagnosis(diagnosis: &Diagnosis) -> Result<String, serde_json::Error> {
    document(diagnosis)
}

pub fn snapshot(snapshot: &Snapshot) -> Result<String, serde_json::Error> {
    document(snapshot)
}

fn document(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    if !text.chars().any(|c| c != '\n' && harmful(c)) {
        return Ok(text);
    }
    // JSON lets some controls stand as they are. They can only be inside strings, where an escape means the same.
    let mut harmless = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if c != '\n' && harmful(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                harmless += &format!("\\u{unit:04x}");
            }
        } else {
            harmless.push(c);
        }
    }
    Ok(harmless)
}
