//! How many bytes each member of a leaking group keeps, and of the growth how much that explains.
//!
//! Reads a cluster, the memory floor and counts; gives a [`Holding`] with its evidence as values. Two kinds of evidence:
//! *direct* (stacks, and heap reached from the members alone) and *differences* (bytes more per member more, between
//! collections). Direct evidence misses what something else holds as well; differences include all that grows
//! alongside. Where both exist the one that cannot be wrong in that situation is taken, and both are said.

use super::cause::Cluster;
use super::memory::Reading;
use super::trend::{self, Point};
use crate::sample::Group;

/// What one member of the culprit keeps, its companions' share included.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Holding {
    pub per_member: f64,
    pub stack: f64,
    pub heap: f64,
    /// One standard error of `per_member`, where it can be told.
    pub error: Option<f64>,
    pub source: Source,
    pub evidence: Vec<Evidence>,
    /// Share of the growth of memory in use, 0 to 1.
    pub share: f64,
    /// `share` rests on more than that both rise.
    pub share_is_direct: bool,
}

/// What `per_member` rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Source {
    #[default]
    StacksOnly,
    /// Stacks, and the heap that only the members reach.
    Direct {
        sampled: u64,
    },
    /// That, and what a global reaches too.
    WithGlobal,
    Differences,
    /// Of several leaks at a time.
    SharedDifferences,
}

/// A finding about what members hold; bytes of one member, where nothing else is said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Evidence {
    Held {
        each: f64,
        stack: f64,
        heap: f64,
        error: f64,
        sampled: u64,
        companions: bool,
    },
    /// So many of those that were followed reach more than was followed.
    Truncated {
        truncated: u64,
        sampled: u64,
    },
    /// Direct evidence beside differences.
    Compared {
        measured: Measured,
        outcome: Outcome,
    },
    Differences {
        each: f64,
        error: f64,
        stack: f64,
        collected: bool,
    },
    StacksOnly {
        stack: f64,
        at_most: Option<f64>,
    },
    /// All members' gain a second, of what memory in use gains.
    Share {
        per_second: f64,
        each: f64,
        gain: f64,
        share: f64,
        grows: f64,
        basis: String,
    },
}

/// Bytes by which memory in use grows for each member more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measured {
    BetweenCollections { each: f64, error: f64 },
    BetweenSamples { each: f64, error: f64 },
    WithGarbage { each: f64 },
}

/// How that stands beside what they hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Agrees,
    Less,
    /// The groups in step hold the rest together.
    HeldTogether,
    More,
    /// So much of it a global reaches as well.
    Global {
        also: f64,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Direct {
    stack: f64,
    heap: f64,
    also_global: f64,
    error: f64,
    sampled: u64,
    truncated: u64,
    heap_known: bool,
}

fn direct(group: &Group) -> Direct {
    let count = group.count.max(1) as f64;
    let stack = group.stack_bytes as f64 / count;
    match &group.retained {
        Some(retained) if retained.sampled_members > 0 => Direct {
            stack,
            heap: positive(retained.exclusive_bytes_per_member),
            also_global: positive(retained.also_global_bytes_per_member),
            error: positive(retained.standard_error_bytes),
            sampled: retained.sampled_members,
            truncated: retained.truncated_members,
            heap_known: true,
        },
        _ => Direct {
            stack,
            heap: group.retained_bytes.map_or(0.0, |all| all as f64 / count),
            heap_known: group.retained_bytes.is_some(),
            ..Direct::default()
        },
    }
}

fn positive(value: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value } else { 0.0 }
}

/// Bytes more per member more, over the floor of memory in use; with its error.
fn differences(cluster: &Cluster<'_>, reading: &Reading) -> Option<(f64, f64)> {
    let counts: Vec<Point> =
        cluster.root.series.points.iter().map(|p| Point { at: p.at, value: p.count as f64 }).collect();
    let pairs: Vec<Point> = reading
        .troughs
        .iter()
        .filter(|p| p.at >= cluster.root.rise.from)
        .map(|p| Point { at: trend::value_at(&counts, p.at), value: p.value })
        .collect();
    let mut ordered = pairs;
    ordered.sort_unstable_by(|a, b| a.at.total_cmp(&b.at));
    let (first, last) = (ordered.first()?, ordered.last()?);
    let span = last.at - first.at;
    if ordered.len() < 2 || span < 5.0_f64.max(0.2 * cluster.root.rise.net) {
        return None;
    }
    let per_member = if ordered.len() >= 6 { trend::low_slope(&ordered) } else { trend::slope(&ordered) };
    // Samples that keep step with the collections miss them all by the same time: that does not average out.
    let missed = 1.4 * reading.noise / span;
    let error = match ordered.len() {
        2 => (0.25 * per_member.abs()).max(missed),
        n => (3.0 * trend::scatter(&ordered, per_member) / span / (n as f64).sqrt()).max(missed),
    };
    (per_member.is_finite() && error.is_finite()).then_some((per_member, error))
}

/// `alone`: no other leak runs at the same time. Differences of memory cannot tell two straight lines apart.
pub(super) fn holding(cluster: &Cluster<'_>, reading: &Reading, all_per_second: f64) -> Holding {
    let root = direct(cluster.root.group());
    let rate = cluster.root.rise.per_second.max(1e-9);
    let alone = all_per_second <= rate * 1.001;
    let mut sum = root;
    for (other, _) in &cluster.others {
        let ratio = positive(other.rise.per_second) / rate;
        let companion = direct(other.group());
        sum.stack += companion.stack * ratio;
        sum.heap += companion.heap * ratio;
        sum.also_global += companion.also_global * ratio;
        sum.error = (sum.error.powi(2) + (companion.error * ratio).powi(2)).sqrt();
    }
    let known = sum.stack + sum.heap;
    let measured = differences(cluster, reading)
        .map(|(each, error)| if alone { (each, error) } else { (each * rate / all_per_second, error) });
    let certain = reading.trend.live_is_certain;
    let collected = reading.trend.collections > 0 || !certain;
    let mut held = Holding { stack: sum.stack, ..Holding::default() };
    if sum.heap_known {
        held.per_member = known;
        held.heap = sum.heap;
        held.error = Some(sum.error);
        held.share_is_direct = true;
        held.source = Source::Direct { sampled: root.sampled.max(1) };
        held.evidence.push(Evidence::Held {
            each: known,
            stack: sum.stack,
            heap: sum.heap,
            error: sum.error,
            sampled: root.sampled.max(1),
            companions: !cluster.others.is_empty(),
        });
        if root.truncated > 0 {
            held.evidence.push(Evidence::Truncated { truncated: root.truncated, sampled: root.sampled });
        }
        if let Some((each, error)) = measured.filter(|_| alone) {
            if certain {
                weigh(&mut held, &sum, each, error, cluster, collected);
            } else {
                weigh_with_garbage(&mut held, &sum, each);
            }
        }
    } else if let Some((each, error)) = measured.filter(|_| certain) {
        held.per_member = each.max(sum.stack);
        held.heap = (held.per_member - sum.stack).max(0.0);
        held.error = Some(error);
        held.source = if alone { Source::Differences } else { Source::SharedDifferences };
        held.evidence.push(Evidence::Differences {
            each: held.per_member,
            error,
            stack: sum.stack,
            collected,
        });
    } else {
        // No collection in the window: what the heap gained may be garbage. Only the stacks are sure.
        held.per_member = sum.stack;
        held.source = Source::StacksOnly;
        let at_most = measured.map(|(each, _)| each.max(0.0));
        held.evidence.push(Evidence::StacksOnly { stack: sum.stack, at_most });
    }
    let grows = reading.trend.live_slope_bytes_per_second;
    let gain = held.per_member * rate;
    held.share = if grows > 0.0 && gain > 0.0 { (gain / grows).clamp(0.0, 1.0) } else { 0.0 };
    if held.share > 0.0 {
        held.evidence.push(Evidence::Share {
            per_second: rate,
            each: held.per_member,
            gain,
            share: held.share,
            grows,
            basis: reading.trend.live_basis.clone(),
        });
    }
    held
}

/// Without a collection in the window differences are only an upper bound, garbage included. It bears out what the
/// members hold through a global of theirs when it leaves room for all of that.
fn weigh_with_garbage(held: &mut Holding, sum: &Direct, each: f64) {
    let known = sum.stack + sum.heap;
    let with_global = known + sum.also_global;
    if sum.also_global >= 0.1 * known && each >= 0.75 * with_global {
        count_global(held, sum, Measured::WithGarbage { each });
    }
}

/// What a global reaches too is the members' as well: a registry that they are never taken out of.
fn count_global(held: &mut Holding, sum: &Direct, measured: Measured) {
    let known = sum.stack + sum.heap;
    held.per_member = known + sum.also_global;
    held.heap = held.per_member - sum.stack;
    held.source = Source::WithGlobal;
    held.evidence.push(Evidence::Compared { measured, outcome: Outcome::Global { also: sum.also_global } });
}

/// Direct evidence and differences, side by side.
fn weigh(held: &mut Holding, sum: &Direct, each: f64, error: f64, cluster: &Cluster<'_>, collected: bool) {
    let known = sum.stack + sum.heap;
    let measured = if collected {
        Measured::BetweenCollections { each, error }
    } else {
        Measured::BetweenSamples { each, error }
    };
    let with_global = known + sum.also_global;
    if sum.also_global >= 0.1 * known && (each - with_global).abs() < (each - known).abs() {
        return count_global(held, sum, measured);
    }
    let outcome = if (each - known).abs() <= (0.25 * known).max(2.5 * error) {
        Outcome::Agrees
    } else if each < known {
        Outcome::Less
    } else if sum.truncated * 2 > sum.sampled
        || (!cluster.others.is_empty() && each - 2.0 * error > 1.5 * known)
    {
        held.per_member = each;
        held.heap = each - sum.stack;
        held.error = Some(error);
        held.source = Source::Differences;
        Outcome::HeldTogether
    } else {
        Outcome::More
    };
    held.evidence.push(Evidence::Compared { measured, outcome });
}
