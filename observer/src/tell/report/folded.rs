//! Stacks folded to a line each, as flame graph tools read them: `outermost;…;innermost;[reason] count`.
//!
//! Takes groups, gives text. Nothing from the target can end a line or a frame early.

use crate::diagnose::site;
use crate::sample::{Group, GrowthSite};

/// Whoever draws them adds them up in 64 bits: no sample has so many lines that the sum of these does not fit.
const HEAVIEST: u64 = 1 << 48;

/// A frame's name without what the format gives a meaning: separators, line ends, controls.
fn clean(name: &str) -> String {
    name.chars()
        .take(500)
        .map(|c| match c {
            ';' => ':',
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => '?',
            c => c,
        })
        .collect()
}

/// The frames of one line, outermost first, the wait reason as the innermost.
pub fn stack(group: &Group) -> String {
    let mut frames: Vec<String> = group.frames.iter().rev().map(|frame| clean(&site::name(frame))).collect();
    let reason = group.reason();
    if !reason.is_empty() {
        frames.push(format!("[{}]", clean(reason)));
    }
    if frames.is_empty() { "[unknown]".to_owned() } else { frames.join(";") }
}

/// All groups, weighted by their members.
pub fn folded(groups: &[Group]) -> String {
    groups
        .iter()
        .filter(|group| group.count > 0)
        .map(|group| format!("{} {}\n", stack(group), group.count.min(HEAVIEST)))
        .collect()
}

/// Growth sites, weighted by their bytes; how the memory came (`mmap`, `brk`, ...) as the innermost.
pub fn growth(sites: &[GrowthSite]) -> String {
    sites
        .iter()
        .filter(|grown| grown.bytes > 0)
        .map(|grown| {
            let mut frames: Vec<String> =
                grown.frames.iter().rev().map(|frame| clean(&site::name(frame))).collect();
            frames.push(format!("[{}]", clean(&grown.via)));
            format!("{} {}\n", frames.join(";"), grown.bytes.min(HEAVIEST))
        })
        .collect()
}
