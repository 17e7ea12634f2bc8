//! What one page shows of one target, gathered once: from a board, or from a diagnosis that is to be kept as a file.
//!
//! Plain data and a picture; the rooms beside it write it down and decide nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::board::TargetState;
use crate::diagnose::{Diagnosis, Verdict};
use crate::sample::{Group, GroupId, Sample};
use crate::tell::web::chart::{self, Kind, Picture};
use crate::timeline::{Point, Timeline};

/// Moments of a picture; more cannot be told apart.
pub const MOMENTS: usize = 360;
/// Of the small one beside others.
pub(super) const FEW_MOMENTS: usize = 90;
/// Groups listed.
const ROWS: usize = 60;

/// How far back the picture reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    Quarter,
    #[default]
    Hour,
    SixHours,
    All,
}

impl Range {
    pub const EACH: [Self; 4] = [Self::Quarter, Self::Hour, Self::SixHours, Self::All];

    /// Of a query such as `range=6h`; what it does not say is the default.
    pub fn of_query(query: &str) -> Self {
        let wanted = query.split('&').find_map(|pair| pair.strip_prefix("range="));
        Self::EACH.into_iter().find(|range| Some(range.word()) == wanted).unwrap_or_default()
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Quarter => "15m",
            Self::Hour => "1h",
            Self::SixHours => "6h",
            Self::All => "all",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Quarter => "15 min",
            Self::Hour => "1 h",
            Self::SixHours => "6 h",
            Self::All => "all",
        }
    }

    fn from(self, last: f64) -> f64 {
        match self {
            Self::Quarter => last - 900.0,
            Self::Hour => last - 3_600.0,
            Self::SixHours => last - 21_600.0,
            Self::All => f64::NEG_INFINITY,
        }
    }
}

/// Where a page's links lead.
#[derive(Clone, Debug)]
pub enum Place {
    /// Served: the path from this page to the root of the server.
    Server { root: &'static str, range: Range },
    /// A file of its own, with its flame graphs within.
    File { blocked: Option<String>, growth: Option<String> },
}

/// A group in the list.
#[derive(Clone, Debug)]
pub struct Row {
    pub group: Group,
    /// Over the picture, in the present life.
    pub growth_per_second: Option<f64>,
    pub bytes: f64,
    /// Why it is not to blame, or what else is known of it.
    pub why: String,
    /// Of its area in the picture.
    pub class: Option<String>,
}

pub struct View {
    pub name: String,
    pub up: bool,
    /// Unix seconds of the last sample.
    pub last_sampled: f64,
    pub restarts: u32,
    pub interval_seconds: f64,
    pub sample: Arc<Sample>,
    pub diagnosis: Arc<Diagnosis>,
    pub picture: Picture,
    pub rows: Vec<Row>,
    /// Groups beyond those listed.
    pub more_groups: u64,
    pub place: Place,
}

impl View {
    pub fn of_target(state: &TargetState, root: &'static str, range: Range, moments: usize) -> Self {
        // The sampler waits for this lock: what takes time is done with a copy.
        let (points, timeline) = {
            let timeline = state.timeline();
            let points = timeline.points(range.from(state.last_sampled), moments);
            let named = named(&points, &timeline);
            (points, named)
        };
        let mut view = Self::new(&state.name, &points, &timeline, &state.sample, &state.diagnosis);
        view.up = state.up;
        view.last_sampled = state.last_sampled;
        view.restarts = state.restarts;
        view.interval_seconds = state.interval_seconds;
        view.place = Place::Server { root, range };
        view
    }

    /// `groups` knows those that the points name.
    pub fn new(
        name: &str,
        points: &[Point],
        groups: &BTreeMap<GroupId, Group>,
        sample: &Arc<Sample>,
        diagnosis: &Arc<Diagnosis>,
    ) -> Self {
        let picture = Picture::new(points, groups, diagnosis);
        let (rows, more_groups) = rows(points, groups, sample, diagnosis, &picture);
        Self {
            name: name.to_owned(),
            up: !diagnosis.exited,
            last_sampled: points.last().map_or(0.0, |point| point.at),
            restarts: diagnosis.restarts,
            interval_seconds: 0.0,
            sample: Arc::clone(sample),
            diagnosis: Arc::clone(diagnosis),
            picture,
            rows,
            more_groups,
            place: Place::File { blocked: None, growth: None },
        }
    }
}

/// The groups that some point names, as they were last seen.
pub fn named(points: &[Point], timeline: &Timeline) -> BTreeMap<GroupId, Group> {
    let ids: BTreeSet<GroupId> =
        points.iter().flat_map(|point| point.groups.iter().map(|group| group.id)).collect();
    ids.into_iter().filter_map(|id| Some((id, timeline.group(id)?.clone()))).collect()
}

/// How a target is doing, worst first.
pub(super) fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Leak => 0,
        Verdict::Growing => 1,
        Verdict::InsufficientData => 2,
        Verdict::Stable => 3,
    }
}

fn rows(
    points: &[Point],
    groups: &BTreeMap<GroupId, Group>,
    sample: &Sample,
    diagnosis: &Diagnosis,
    picture: &Picture,
) -> (Vec<Row>, u64) {
    let culprits: BTreeSet<GroupId> = diagnosis.culprits.iter().map(|culprit| culprit.group.id).collect();
    let present: BTreeSet<GroupId> = sample.groups.iter().map(|group| group.id).collect();
    // An area whose members are all gone leads to its stack all the same.
    let gone = picture
        .layers
        .iter()
        .filter_map(|layer| layer.id)
        .filter(|id| !present.contains(id))
        .filter_map(|id| groups.get(&id))
        .map(|group| Group {
            count: 0,
            stack_bytes: 0,
            retained_bytes: None,
            retained: None,
            ..group.clone()
        });
    let mut seen = BTreeSet::new();
    let mut rows: Vec<Row> = sample
        .groups
        .iter()
        .cloned()
        .chain(gone)
        .filter(|group| !culprits.contains(&group.id) && seen.insert(group.id))
        .map(|group| Row {
            growth_per_second: growth(points, group.id),
            bytes: chart::bytes_per_member(&group) * group.count as f64,
            why: why(diagnosis, group.id),
            class: picture
                .layers
                .iter()
                .find(|layer| layer.id == Some(group.id) && layer.kind != Kind::Rest)
                .map(|layer| chart::class(layer.kind)),
            group,
        })
        .collect();
    rows.sort_by(|a, b| {
        let drawn = b.class.is_some().cmp(&a.class.is_some());
        drawn.then(b.bytes.total_cmp(&a.bytes)).then(b.group.count.cmp(&a.group.count))
    });
    let more = rows.len().saturating_sub(ROWS) as u64;
    rows.truncate(ROWS);
    let left_out = sample.totals.groups.saturating_sub(sample.groups.len() as u64);
    (rows, more.saturating_add(left_out))
}

fn why(diagnosis: &Diagnosis, id: GroupId) -> String {
    let bystander = diagnosis.not_the_cause.iter().find(|bystander| bystander.group.id == id);
    if let Some(bystander) = bystander {
        return bystander.why.clone();
    }
    let leader = diagnosis.culprits.iter().find(|culprit| culprit.in_step.iter().any(|group| group.id == id));
    match leader {
        Some(leader) => format!("grows because of {}; counted there", chart::name(&leader.group)),
        None => String::new(),
    }
}

/// Members more a second between the first and the last moment of the present life in which it is listed.
fn growth(points: &[Point], id: GroupId) -> Option<f64> {
    let life = points.last()?.generation;
    let count = |point: &Point| point.groups.iter().find(|group| group.id == id).map(|group| group.count);
    let mut own = points.iter().filter(|point| point.generation == life);
    let (first_at, first) = own.find_map(|point| Some((point.at, count(point)?)))?;
    let (last_at, last) = points
        .iter()
        .rev()
        .find_map(|point| Some((point.at, count(point)?)))
        .filter(|(at, _)| *at > first_at)?;
    let growth = (last as f64 - first as f64) / (last_at - first_at);
    growth.is_finite().then_some(growth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_anything_else_is_the_default() {
        assert_eq!(Range::of_query("a=b&range=6h"), Range::SixHours);
        assert_eq!(Range::of_query("range=all"), Range::All);
        for query in ["", "range=", "range=%00", "range", "=&&&range=1y"] {
            assert_eq!(Range::of_query(query), Range::Hour, "{query}");
        }
    }
}
