//! The verdict in two sentences.
//!
//! Takes what was decided, gives words; decides nothing.

use super::diagnosis::{Diagnosis, Verdict};
use super::findings::Findings;
use super::turnover;
use super::words::{early_words, quiet_because, who};
use super::{allocated, growth, site};
use crate::format::{bytes, bytes_per_second, counted, duration, percent, rate};
use crate::language;

/// The verdict in one sentence, and what follows from it. `short`: too little was seen. `none_left`: of the members of
/// the first culprit that came, none has left.
pub(super) fn sentences(
    diagnosis: &Diagnosis,
    findings: &Findings<'_>,
    leader: Option<&growth::Leader>,
    unknown_heap: bool,
    short: bool,
    none_left: bool,
) -> (String, String) {
    let memory = &diagnosis.memory;
    let limit = match (memory.seconds_to_limit, memory.limit_bytes) {
        (Some(seconds), Some(limit)) => {
            format!(" At this rate the limit of {} is reached in {}.", bytes(limit as f64), duration(seconds))
        }
        _ => String::new(),
    };
    let grown = memory.last_bytes.saturating_sub(memory.first_bytes) as f64;
    match diagnosis.verdict {
        Verdict::Leak => {
            let Some(first) = diagnosis.culprits.first() else { return Default::default() };
            let group = &first.group;
            let holds = if first.share_of_growth >= 0.02 {
                format!("hold {} of the memory that grew", percent(first.share_of_growth))
            } else if first.bytes_per_member > 0.0 {
                format!("hold {}", bytes(first.bytes_per_member * group.count as f64))
            } else {
                "never leave".to_owned()
            };
            let others = match diagnosis.culprits.len() {
                1 => String::new(),
                2 => " One group unrelated to it leaks too.".to_owned(),
                n => format!(" {} unrelated to it leak too.", counted(n as u64 - 1, "group")),
            };
            let never = if none_left {
                format!(
                    "none has left in {}",
                    duration(group.oldest_wait_seconds.unwrap_or(0.0).max(diagnosis.window_seconds))
                )
            } else {
                "they stay".to_owned()
            };
            (
                format!("{} {holds}.", who(group, first.site.as_ref())),
                format!("{} more; {never}.{others}{limit}", rate(first.growth_per_second)),
            )
        }
        Verdict::Growing => {
            let what = match findings.watched.first() {
                Some(watch) => format!(
                    "{}, {} more, of which none has left, grow with it: too early to call them a leak.",
                    who(watch.group(), site::place(watch.group()).as_ref()),
                    rate(watch.rise.per_second)
                ),
                None if let Some((series, standing)) =
                    findings.risen(memory.live_slope_bytes_per_second * diagnosis.window_seconds) =>
                {
                    format!(
                        "{} rose with it, but {}.",
                        who(&series.group, site::place(&series.group).as_ref()),
                        quiet_because(series, standing)
                    )
                }
                None if let Some(words) = allocated::sentence(diagnosis) => words,
                None => match leader {
                    Some(leader) => format!(
                        "No group of blocked {} explains it; {} of it was first touched by {} ({}).",
                        language::members("or"),
                        percent(leader.share),
                        leader.function,
                        leader.via
                    ),
                    None => format!("No group of blocked {} grows with it.", language::members("or")),
                },
            };
            (
                format!(
                    "memory grows {} ({}), and still does at the end of the window.",
                    bytes_per_second(memory.live_slope_bytes_per_second),
                    memory.live_basis
                ),
                format!("{what}{limit}"),
            )
        }
        Verdict::Stable => {
            let flat = if grown > 0.05 * memory.first_bytes as f64 && grown > 4.0 * 1048576.0 {
                format!(
                    "memory went from {} to {} and is not rising steadily",
                    bytes(memory.first_bytes as f64),
                    bytes(memory.last_bytes as f64)
                )
            } else {
                format!("memory is flat at {}", bytes(memory.last_bytes as f64))
            };
            let groups = match findings.watched.first() {
                Some(watch) => format!(
                    "{} come in at {}, but may end at any time.",
                    who(watch.group(), site::place(watch.group()).as_ref()),
                    rate(watch.rise.per_second)
                ),
                None => format!("No group of blocked {} grows without draining.", language::members("or")),
            };
            (format!("{flat} over {}.", duration(diagnosis.window_seconds)), groups)
        }
        Verdict::InsufficientData => {
            let why = if short {
                format!(
                    "{} over {} are too few to judge; it takes {} and {}.",
                    counted(diagnosis.samples, "sample"),
                    duration(diagnosis.window_seconds),
                    counted(turnover::LEAST_SAMPLES, "sample"),
                    duration(turnover::LEAST_SECONDS)
                )
            } else if let Some(early) = findings.too_early.first() {
                early_words(early.group(), &early.rise)
            } else if unknown_heap {
                format!(
                    "the heap grew by {}, but no collection of garbage ran in the window: it may be garbage.",
                    bytes(memory.live_slope_bytes_per_second * diagnosis.window_seconds)
                )
            } else {
                "what was seen does not decide it.".to_owned()
            };
            let ended = if diagnosis.exited {
                format!("The process exited after {}.", duration(diagnosis.window_seconds))
            } else {
                "Watch it longer.".to_owned()
            };
            (why, ended)
        }
    }
}
