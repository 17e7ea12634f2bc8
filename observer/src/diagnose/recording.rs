//! A recorded series of samples: one JSON document a line, the first names the target.
//!
//! `{"schema":"observer.recording/1","target":{..}}`, then a [`Sample`] each. Reading is bounded by the text it is given
//! and stops at the first line that is none.

use serde::{Deserialize, Serialize};

use crate::sample::{Sample, TargetInfo};

const SCHEMA: &str = "observer.recording/1";

#[derive(Serialize, Deserialize)]
struct Header {
    schema: String,
    target: TargetInfo,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("empty recording")]
    Empty,
    #[error("recording has schema {0:?}, this program reads {SCHEMA:?}")]
    Schema(String),
    #[error("recording line {line}: {source}")]
    Line { line: usize, source: serde_json::Error },
}

/// The first line of a recording.
pub fn header(target: &TargetInfo) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Header { schema: SCHEMA.to_owned(), target: target.clone() })
}

/// One further line.
pub fn line(sample: &Sample) -> Result<String, serde_json::Error> {
    serde_json::to_string(sample)
}

/// The target and its samples.
pub fn read(text: &str) -> Result<(TargetInfo, Vec<Sample>), RecordingError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, first) = lines.next().ok_or(RecordingError::Empty)?;
    let header: Header =
        serde_json::from_str(first).map_err(|source| RecordingError::Line { line: 1, source })?;
    if header.schema != SCHEMA {
        return Err(RecordingError::Schema(header.schema));
    }
    let samples = lines
        .map(|(place, line)| {
            serde_json::from_str(line).map_err(|source| RecordingError::Line { line: place + 1, source })
        })
        .collect::<Result<_, _>>()?;
    Ok((header.target, samples))
}
