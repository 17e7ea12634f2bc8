//! What there is to draw: which groups get an area of their own, in which order, how many bytes at each moment.
//!
//! The steady ones lie at the bottom and the culprit on top of them, so that its upper edge runs in step with the
//! memory line and what lies below it stays visibly flat.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnose::{Culprit, Diagnosis, site};
use crate::format;
use crate::sample::{Group, GroupId};
use crate::timeline::Point;

/// Steady groups with an area of their own; the rest is one area.
const STEADY: usize = 5;
/// An area that is nowhere this share of the picture's height cannot be seen, and joins the rest.
const VISIBLE: f64 = 0.004;
/// A gap this many times as long as the steps around it is not drawn over: what is older is kept at longer steps.
const GAP: f64 = 8.0;
/// Steps looked at on each side.
const AROUND: usize = 4;
/// A shorter gap is a late sample.
const LEAST_GAP_SECONDS: f64 = 30.0;
/// A limit further above the memory than this would press it flat, and is told in words.
const NEAR_LIMIT: f64 = 1.7;

/// Which paint an area gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With its rank: the first is the one in the strong colour.
    Culprit(usize),
    Steady(usize),
    /// All that has no area of its own.
    Rest,
}

/// One area.
#[derive(Clone, Debug)]
pub struct Layer {
    pub kind: Kind,
    /// Absent for the rest.
    pub id: Option<GroupId>,
    /// `chan send at quote.go:41`.
    pub name: String,
    /// At each moment.
    pub counts: Vec<u64>,
    pub bytes: Vec<f64>,
}

impl Layer {
    pub fn last_bytes(&self) -> f64 {
        self.bytes.last().copied().unwrap_or(0.0)
    }

    pub fn last_count(&self) -> u64 {
        self.counts.last().copied().unwrap_or(0)
    }

    /// `9,214 × chan send at quote.go:41`.
    pub fn words(&self) -> String {
        let count = self.last_count();
        match self.id {
            Some(_) => format!("{} × {}", format::count(count), self.name),
            None => format!("{}, {}", self.name, format::counted(count, "member")),
        }
    }

    fn most(&self) -> f64 {
        self.bytes.iter().copied().fold(0.0, f64::max)
    }
}

/// Everything in the picture, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Unix seconds of each moment, rising.
    pub at: Vec<f64>,
    pub resident: Vec<f64>,
    /// From the bottom upward.
    pub layers: Vec<Layer>,
    /// Where the line and the areas are interrupted: each is a range of moments.
    pub stretches: Vec<std::ops::Range<usize>>,
    /// When another life of the target began.
    pub restarts: Vec<f64>,
    /// The limit, where it is near enough to be drawn.
    pub limit: Option<f64>,
    /// The limit where it is not.
    pub far_limit: Option<f64>,
}

impl Picture {
    pub fn new(points: &[Point], groups: &BTreeMap<GroupId, Group>, diagnosis: &Diagnosis) -> Self {
        let mut latest = f64::NEG_INFINITY;
        // A clock that was set back: what does not move on is left out.
        let points: Vec<&Point> = points
            .iter()
            .filter(|point| {
                let moves_on = point.at.is_finite() && point.at.abs() < 1e11 && point.at > latest;
                if moves_on {
                    latest = point.at;
                }
                moves_on
            })
            .collect();
        let at: Vec<f64> = points.iter().map(|point| point.at).collect();
        let resident: Vec<f64> = points.iter().map(|point| point.resident_bytes as f64).collect();
        let mut picture = Self {
            stretches: stretches(&points),
            restarts: points
                .windows(2)
                .filter(|pair| pair[0].generation != pair[1].generation)
                .map(|pair| pair[1].at)
                .collect(),
            at,
            resident,
            ..Self::default()
        };
        picture.layers = layers(&points, groups, diagnosis, picture.highest());
        let highest = picture.highest();
        let limit = points.last().and_then(|point| point.limit_bytes).map(|limit| limit as f64);
        match limit.filter(|limit| *limit > 0.0) {
            Some(limit) if limit <= highest * NEAR_LIMIT => picture.limit = Some(limit),
            far => picture.far_limit = far,
        }
        picture
    }

    pub fn is_empty(&self) -> bool {
        self.at.len() < 2
    }

    pub fn first_at(&self) -> f64 {
        self.at.first().copied().unwrap_or(0.0)
    }

    pub fn last_at(&self) -> f64 {
        self.at.last().copied().unwrap_or(1.0)
    }

    /// The highest of what is drawn, the limit apart.
    pub fn highest(&self) -> f64 {
        let stacked = (0..self.at.len()).map(|moment| {
            self.layers.iter().map(|layer| layer.bytes.get(moment).copied().unwrap_or(0.0)).sum::<f64>()
        });
        self.resident.iter().copied().chain(stacked).filter(|bytes| bytes.is_finite()).fold(0.0, f64::max)
    }
}

/// Ranges of moments of one life without a long gap.
fn stretches(points: &[&Point]) -> Vec<std::ops::Range<usize>> {
    let steps: Vec<f64> = points.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    let longest_around = |place: usize| {
        let before = steps.iter().take(place).rev().take(AROUND);
        let after = steps.iter().skip(place + 1).take(AROUND);
        before.chain(after).copied().fold(0.0, f64::max)
    };
    let mut found = Vec::new();
    let mut from = 0;
    for (place, (pair, step)) in points.windows(2).zip(&steps).enumerate() {
        let gap = *step > LEAST_GAP_SECONDS && *step > GAP * longest_around(place);
        if pair[0].generation != pair[1].generation || gap {
            found.push(from..place + 1);
            from = place + 1;
        }
    }
    if from < points.len() {
        found.push(from..points.len());
    }
    found
}

/// What each member of a group holds.
pub fn bytes_per_member(group: &Group) -> f64 {
    let retained = match (&group.retained_bytes, &group.retained) {
        (Some(bytes), _) => *bytes as f64,
        (None, Some(retained)) => (retained.exclusive_bytes_per_member * group.count as f64).max(0.0),
        (None, None) => 0.0,
    };
    (group.stack_bytes as f64 + retained) / group.count.max(1) as f64
}

fn layers(
    points: &[&Point],
    groups: &BTreeMap<GroupId, Group>,
    diagnosis: &Diagnosis,
    height: f64,
) -> Vec<Layer> {
    let culprits: Vec<&Culprit> = diagnosis.culprits.iter().collect();
    // Companions are part of what the culprit's members hold.
    let companions: BTreeSet<GroupId> =
        culprits.iter().flat_map(|culprit| culprit.in_step.iter().map(|group| group.id)).collect();

    let mut series: BTreeMap<GroupId, Layer> = BTreeMap::new();
    for (moment, point) in points.iter().enumerate() {
        for group in &point.groups {
            let layer = series.entry(group.id).or_insert_with(|| Layer {
                kind: Kind::Rest,
                id: Some(group.id),
                name: String::new(),
                counts: vec![0; points.len()],
                bytes: vec![0.0; points.len()],
            });
            if let Some(count) = layer.counts.get_mut(moment) {
                *count = group.count;
            }
            if let Some(bytes) = layer.bytes.get_mut(moment) {
                *bytes = group.bytes as f64;
            }
        }
    }
    let mut chosen = Vec::new();
    for (rank, culprit) in culprits.iter().enumerate() {
        if let Some(mut layer) = series.remove(&culprit.group.id) {
            layer.kind = Kind::Culprit(rank);
            layer.name = name(&culprit.group);
            weigh(&mut layer, culprit.bytes_per_member);
            chosen.push(layer);
        }
    }
    series.retain(|id, _| !companions.contains(id));
    for layer in series.values_mut() {
        if let Some(group) = layer.id.and_then(|id| groups.get(&id)) {
            // What is retained is measured now and then only: the latest measure holds for all moments.
            weigh(layer, bytes_per_member(group));
            layer.name = name(group);
        }
    }
    let mut others: Vec<Layer> = series.into_values().collect();
    others.sort_by(|a, b| b.most().total_cmp(&a.most()).then(a.id.cmp(&b.id)));
    let visible = others.iter().take(STEADY).filter(|layer| layer.most() >= VISIBLE * height).count();
    // One alone needs no collective name.
    let visible = if others.len() == visible + 1 { others.len() } else { visible };
    let rest = others.split_off(visible);
    let mut all = Vec::new();
    if !rest.is_empty() {
        let mut sum = Layer {
            kind: Kind::Rest,
            id: None,
            name: format::counted(rest.len() as u64, "smaller group"),
            counts: vec![0; points.len()],
            bytes: vec![0.0; points.len()],
        };
        for layer in &rest {
            for (sum, count) in sum.counts.iter_mut().zip(&layer.counts) {
                *sum = sum.saturating_add(*count);
            }
            for (sum, bytes) in sum.bytes.iter_mut().zip(&layer.bytes) {
                *sum += bytes;
            }
        }
        all.push(sum);
    }
    for (rank, mut layer) in others.into_iter().enumerate() {
        layer.kind = Kind::Steady(rank);
        all.push(layer);
    }
    // The first culprit on top of all.
    chosen.reverse();
    all.extend(chosen);
    all
}

fn weigh(layer: &mut Layer, bytes_per_member: f64) {
    if !bytes_per_member.is_finite() || bytes_per_member <= 0.0 {
        return;
    }
    for (bytes, count) in layer.bytes.iter_mut().zip(&layer.counts) {
        *bytes = *count as f64 * bytes_per_member;
    }
}

/// `chan send at quote.go:41`, or with the function where the line is not known.
pub fn name(group: &Group) -> String {
    let reason = group.reason();
    let at = site::place(group).map(|place| {
        let line = site::file_line(place.file.as_deref(), place.line);
        if line.is_empty() { place.function } else { line }
    });
    match at {
        Some(at) => format!("{reason} at {at}"),
        None => reason.to_owned(),
    }
}
