//! A flame graph of the blocked, drawn by inferno: width is how many wait there.

use inferno::flamegraph::{self, Options};

use super::folded;
use crate::sample::Group;

#[derive(Debug, thiserror::Error)]
pub enum SvgError {
    #[error("no stacks to draw: nothing is blocked")]
    Empty,
    #[error("drawing the flame graph: {0}")]
    Draw(String),
}

pub fn svg(groups: &[Group], title: &str) -> Result<Vec<u8>, SvgError> {
    let folded = folded::folded(groups);
    if folded.is_empty() {
        return Err(SvgError::Empty);
    }
    let mut options = Options::default();
    options.title = title.chars().filter(|c| !c.is_control()).take(200).collect();
    options.count_name = "blocked".to_owned();
    let mut drawn = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut drawn)
        .map_err(|e| SvgError::Draw(e.to_string()))?;
    Ok(drawn)
}
