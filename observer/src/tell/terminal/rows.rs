//! The table's rows: one for each group of a sample, in the order and with the filter that were asked for.

use std::cmp::Ordering;

use super::rates::Rates;
use crate::diagnose::site;
use crate::escape::escape;
use crate::sample::{Group, GroupId, GroupKind, Sample};
use crate::tell::report::text::reason;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Growth,
    Count,
    Oldest,
    Bytes,
    Reason,
    Site,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Growth => Self::Count,
            Self::Count => Self::Oldest,
            Self::Oldest => Self::Bytes,
            Self::Bytes => Self::Reason,
            Self::Reason => Self::Site,
            Self::Site => Self::Growth,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub id: GroupId,
    pub kind: GroupKind,
    pub count: u64,
    pub growth: f64,
    pub oldest: Option<f64>,
    /// Stacks, and what they retain where it was measured.
    pub bytes: u64,
    /// Harmless, as is `site`.
    pub reason: String,
    pub site: String,
}

/// What grows less than this in a second is steady.
pub(super) const STEADY: f64 = 0.05;

pub(super) fn rows(sample: &Sample, rates: &Rates, sort: Sort, reversed: bool, filter: &str) -> Vec<Row> {
    let filter = filter.to_lowercase();
    let mut rows: Vec<Row> = sample
        .groups
        .iter()
        .filter(|group| filter.is_empty() || matches(group, &filter))
        .map(|group| Row {
            id: group.id,
            kind: group.kind,
            count: group.count,
            growth: rates.per_second(group.id, group.count, sample.at_seconds),
            oldest: group.oldest_wait_seconds.filter(|seconds| seconds.is_finite()),
            bytes: group.stack_bytes.saturating_add(group.retained_bytes.unwrap_or(0)),
            reason: reason(group),
            site: place(group),
        })
        .collect();
    rows.sort_by(|one, other| {
        let order = compare(one, other, sort);
        let order = if reversed { order.reverse() } else { order };
        // Rows that are alike do not change places from one sample to the next.
        order.then(other.count.cmp(&one.count)).then(one.id.cmp(&other.id))
    });
    rows
}

/// The largest first, names from A to Z.
fn compare(one: &Row, other: &Row, sort: Sort) -> Ordering {
    match sort {
        // Noise around nothing is no order.
        Sort::Growth => {
            let steady = |row: &Row| if row.growth.abs() < STEADY { 0.0 } else { row.growth };
            steady(other).total_cmp(&steady(one))
        }
        Sort::Count => other.count.cmp(&one.count),
        Sort::Oldest => other.oldest.unwrap_or(-1.0).total_cmp(&one.oldest.unwrap_or(-1.0)),
        Sort::Bytes => other.bytes.cmp(&one.bytes),
        Sort::Reason => one.reason.cmp(&other.reason),
        Sort::Site => one.site.cmp(&other.site),
    }
}

/// Any function, file or reason has it in it.
fn matches(group: &Group, filter: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(filter);
    has(&group.wait_reason)
        || has(&group.state)
        || group.frames.iter().any(|frame| {
            has(&frame.function)
                || frame.file.as_deref().is_some_and(has)
                || frame.module.as_deref().is_some_and(has)
        })
        || group.created_by.as_ref().is_some_and(|place| has(&place.function))
}

/// The line first: it is what is looked for, and what lies behind may be cut off.
fn place(group: &Group) -> String {
    let Some(place) = site::place(group) else { return "(no stack)".to_owned() };
    let position = site::file_line(place.file.as_deref(), place.line);
    escape(format!("{position}  {}", place.function).trim_start()).into_owned()
}
