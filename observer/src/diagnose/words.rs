//! Findings in words: who a group is, why it is blamed or not, and what memory it holds.
//!
//! Reads values, gives texts; nobody reads them again. Names are as the target gave them: whoever prints escapes them.

use super::attribution::{Evidence, Holding, Measured, Outcome, Source};
use super::cause::{Cluster, Suspect, Tie};
use super::history::GroupSeries;
use super::site;
use super::turnover::{self, Rise, Standing};
use crate::format::{bytes, count, counted, duration, percent, rate};
use crate::language::{self, Wait};
use crate::sample::{Group, Place};

/// Why a group that only grows is not blamed yet.
pub(super) fn watched_because(suspect: &Suspect<'_>) -> String {
    let rise = &suspect.rise;
    let why = language::of(suspect.group().kind).why_patience(&suspect.group().wait_reason);
    format!(
        "{} more and none left yet, but {why}: needs {} of watching",
        rate(rise.per_second),
        duration(300.0)
    )
}

/// Why a quiet group is not to blame.
pub(super) fn quiet_because(series: &GroupSeries, standing: Standing) -> String {
    let moves = match (series.points.first(), series.points.last()) {
        (Some(first), Some(last)) if last.at > first.at => {
            last.moved.saturating_sub(first.moved) as f64 / (last.at - first.at)
        }
        _ => 0.0,
    };
    match standing {
        Standing::Stopped(ago) => format!("grew, but not in the last {}", duration(ago)),
        Standing::LevelsOff => "grows ever more slowly".to_owned(),
        Standing::Drains(share) if share < 0.995 => {
            format!("{} of those that came have left again", percent(share))
        }
        Standing::Drains(_) => "has drained before".to_owned(),
        _ if moves >= 0.5 => format!("steady, {} wakes/s", count(moves.round() as u64)),
        _ if language::of(series.group.kind).is_connection(&series.group.wait_reason) => {
            "steady, idle connections".to_owned()
        }
        _ => "steady".to_owned(),
    }
}

/// `9,214 goroutines blocked in chan send at checkout.(*Quoter).fetch quote.go:41`.
pub(super) fn who(group: &Group, place: Option<&Place>) -> String {
    let at = place.map(|place| format!(" at {}", site::words(place))).unwrap_or_default();
    format!("{} blocked in {}{at}", counted(group.count, language::of(group.kind).noun()), group.reason())
}

/// A group that grows, but not for long enough.
pub(super) fn early_words(group: &Group, rise: &Rise) -> String {
    format!(
        "{} more in {} ({}), none of which has left: too early to judge.",
        who(group, site::place(group).as_ref()),
        duration(rise.seconds()),
        rate(rise.per_second)
    )
}

fn article(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

/// `twice`.
pub(super) fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

/// What speaks against a group, in sentences with their numbers.
pub(super) fn against(cluster: &Cluster<'_>, held: &Holding) -> Vec<String> {
    let Cluster { root, others } = cluster;
    let (group, rise) = (root.group(), &root.rise);
    let mut lines = vec![format!(
        "{} more in {} ({}), in {} of {} samples",
        count(rise.net.max(0.0) as u64),
        duration(rise.seconds()),
        rate(rise.per_second),
        count(rise.steps as u64),
        count(rise.samples as u64),
    )];
    lines.push(if rise.none_left() {
        format!("none of the {} that came has left", count(rise.joined as u64))
    } else {
        format!(
            "of {} that came {} left, {} of those that had settled",
            count(rise.joined as u64),
            count(rise.left as u64),
            percent(rise.drain)
        )
    });
    if let Some(oldest) = group.oldest_wait_seconds.filter(|oldest| oldest.is_finite() && *oldest > 0.0) {
        lines.push(format!("the oldest has waited {}", duration(oldest)));
    }
    if let Some(on) = &group.waits_on
        && on.objects == group.count
        && group.count > 1
    {
        lines.push(format!(
            "each waits on {} of its own: {} different ones",
            article(&on.kind),
            count(on.objects)
        ));
    }
    let noun = language::of(group.kind).noun();
    lines.extend(held.evidence.iter().map(|one| evidence(one, noun)));
    if let Some(touched) = group.touched_bytes.filter(|bytes| *bytes > 0) {
        lines.push(format!(
            "{} that is still there was first touched by these threads themselves, stacks included: {} for each that \
             came (sampled); what they hold beyond that, others touched",
            bytes(touched as f64),
            bytes(touched as f64 / rise.joined.max(1.0)),
        ));
    }
    for (other, tie) in others {
        let place = site::place(other.group()).map(|place| site::words(&place)).unwrap_or_default();
        let why = match tie {
            Tie::WaitsForIt => "waits for it",
            Tie::StartedByIt => "was started by it",
            Tie::SameOrigin => "comes from the same function",
            Tie::SameCode => "is the same code in another place or state",
            Tie::SameObject => "waits on the same object",
        };
        lines.push(format!(
            "in step with it: {} in {} at {place}, {} more, which {why}",
            counted(other.group().count, language::of(other.group().kind).noun()),
            other.group().reason(),
            rate(other.rise.per_second),
        ));
    }
    if turnover::wait(group) == Wait::Peer {
        lines.push(format!("what it waits for may still come: watched for {}", duration(rise.seconds())));
    }
    lines
}

/// What memory the members of a group hold, in a sentence.
pub(super) fn evidence(evidence: &Evidence, noun: &str) -> String {
    match evidence {
        Evidence::Held { each, stack, heap, error, sampled, companions } => format!(
            "holds {} each{}: {} stack, {} heap that nothing else reaches (± {}, followed from {sampled} of them)",
            bytes(*each),
            if *companions { ", with the groups in step" } else { "" },
            bytes(*stack),
            bytes(*heap),
            bytes(*error),
        ),
        Evidence::Truncated { truncated, sampled } => format!(
            "{truncated} of {sampled} followed {noun}s reach more than was followed: the true figure is larger"
        ),
        Evidence::Compared { measured, outcome } => format!("{}{}", measure(*measured), compared(*outcome)),
        Evidence::Differences { each, error, stack, collected } => format!(
            "{} more memory per {noun} more, between samples{} (± {}); {} of it stack: all that grows alongside is \
             included",
            bytes(*each),
            if *collected { " after collections" } else { "" },
            bytes(*error),
            bytes(*stack)
        ),
        Evidence::StacksOnly { stack, at_most } => format!(
            "holds at least {} of stack each; no collection of garbage ran in the window, so what of the heap is theirs \
             is unknown{}",
            bytes(*stack),
            at_most.map_or_else(String::new, |each| format!(" (at most {})", bytes(each))),
        ),
        Evidence::Share { per_second, each, gain, share, grows, basis } => format!(
            "{} x {} = {}/s, {} of the {}/s by which {basis} grows",
            rate(*per_second),
            bytes(*each),
            bytes(*gain),
            percent(*share),
            bytes(*grows),
        ),
    }
}

fn measure(measured: Measured) -> String {
    let (each, when) = match measured {
        Measured::BetweenCollections { each, error } => {
            (each, format!("between collections (± {})", bytes(error)))
        }
        Measured::BetweenSamples { each, error } => (each, format!("between samples (± {})", bytes(error))),
        Measured::WithGarbage { each } => {
            return format!("memory in use grows by {} per member more, garbage included", bytes(each));
        }
    };
    format!("memory in use grows by {} per member more {when}", bytes(each))
}

fn compared(outcome: Outcome) -> String {
    match outcome {
        Outcome::Agrees => ", which agrees".to_owned(),
        Outcome::Less => ", less than they hold: something else shrank meanwhile".to_owned(),
        Outcome::HeldTogether => {
            ": the groups in step hold the rest together, so none holds it alone".to_owned()
        }
        Outcome::More => {
            ", more than they alone hold: the rest is shared with others, or grows beside them".to_owned()
        }
        Outcome::Global { also } => format!(
            ": of what they hold, {} each is also reached from a global (a registry they are never taken out of?)",
            bytes(also)
        ),
    }
}

/// The evidence that bytes rest on.
pub(super) fn source(source: Source) -> String {
    match source {
        Source::Direct { sampled } => format!("stack and heap reached only from {sampled} of them"),
        Source::WithGlobal => "stack, heap reached only from them, and heap a global reaches too".to_owned(),
        Source::Differences => "differences between samples".to_owned(),
        Source::SharedDifferences => {
            "differences between samples, shared among the leaks by their counts".to_owned()
        }
        Source::StacksOnly => "stacks only".to_owned(),
    }
}
