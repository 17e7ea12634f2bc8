//! A recorded series of samples: one JSON document a line, the first names the target.
//!
//! `{"schema":"observer.recording/1","target":{..},"began_at":..}`, then a [`Sample`] each; another first line where the
//! process became another program; at the end `{"exited":true}` where it was seen to exit. A line is read by itself:
//! who reads a file bounds the length of its lines.

use serde::{Deserialize, Serialize};

use crate::sample::{Sample, TargetInfo};

const SCHEMA: &str = "observer.recording/1";

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    schema: String,
    pub target: TargetInfo,
    /// Unix seconds of `at_seconds` 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    exited: bool,
}

/// What a line after the first says.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    Sample(Box<Sample>),
    /// From here on it is another program.
    Target(Box<TargetInfo>),
    Exited,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("empty recording")]
    Empty,
    #[error("no recording but {0:?}, this program reads {SCHEMA:?}")]
    Schema(String),
    #[error("no recording: its first line does not say {SCHEMA:?}")]
    NoHeader,
    #[error("line {line}: {source}")]
    Line { line: usize, source: serde_json::Error },
}

/// The first line of a recording.
pub fn header(target: &TargetInfo) -> Result<String, serde_json::Error> {
    header_at(target, None)
}

/// The first line of a recording that began at `began_at` (unix seconds).
pub fn header_at(target: &TargetInfo, began_at: Option<f64>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Header { schema: SCHEMA.to_owned(), target: target.clone(), began_at })
}

/// One further line.
pub fn line(sample: &Sample) -> Result<String, serde_json::Error> {
    serde_json::to_string(sample)
}

/// The last line, when the target has exited.
pub fn exited() -> Result<String, serde_json::Error> {
    serde_json::to_string(&End { exited: true })
}

/// Reads the first line.
pub fn read_header(text: &str) -> Result<Header, RecordingError> {
    #[derive(Deserialize)]
    struct Schema {
        schema: String,
    }
    let header: Schema = serde_json::from_str(text).map_err(|_| RecordingError::NoHeader)?;
    if header.schema != SCHEMA {
        return Err(RecordingError::Schema(header.schema.chars().take(60).collect()));
    }
    serde_json::from_str(text).map_err(|source| RecordingError::Line { line: 1, source })
}

/// Reads another line, the `line`th.
pub fn read_line(text: &str, line: usize) -> Result<Line, RecordingError> {
    let failed = |source| RecordingError::Line { line, source };
    let text = text.trim();
    if text.starts_with("{\"schema\"") {
        return read_header(text).map(|header| Line::Target(Box::new(header.target)));
    }
    if text.starts_with("{\"exited\"") {
        let End { exited: _ } = serde_json::from_str(text).map_err(failed)?;
        return Ok(Line::Exited);
    }
    serde_json::from_str(text).map(|sample| Line::Sample(Box::new(sample))).map_err(failed)
}

/// The target and its samples.
pub fn read(text: &str) -> Result<(TargetInfo, Vec<Sample>), RecordingError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, first) = lines.next().ok_or(RecordingError::Empty)?;
    let mut target = read_header(first)?.target;
    let mut samples = Vec::new();
    for (place, line) in lines {
        match read_line(line, place + 1)? {
            Line::Sample(sample) => samples.push(*sample),
            Line::Target(next) => target = *next,
            Line::Exited => {}
        }
    }
    Ok((target, samples))
}
