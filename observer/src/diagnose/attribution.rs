//! How many bytes each member of a leaking group keeps, and of the growth how much that explains.
//!
//! Reads a cluster, the memory floor and counts; gives a [`Holding`] with its evidence in words. Two kinds of evidence:
//! *direct* (stacks, and heap reached from the members alone) and *differences* (bytes more per member more, between
//! collections). Direct evidence misses what something else holds as well; differences include all that grows
//! alongside. Where both exist the one that cannot be wrong in that situation is taken, and both are said.

use super::cause::Cluster;
use super::memory::Reading;
use super::trend::{self, Point};
use crate::format::{bytes, percent};
use crate::language;
use crate::sample::Group;

/// What one member of the culprit keeps, its companions' share included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holding {
    pub per_member: f64,
    pub stack: f64,
    pub heap: f64,
    /// One standard error of `per_member`, where it can be told.
    pub error: Option<f64>,
    pub source: String,
    pub evidence: Vec<String>,
    /// Share of the growth of memory in use, 0 to 1.
    pub share: f64,
    /// `share` rests on more than that both rise.
    pub share_is_direct: bool,
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
pub fn holding(cluster: &Cluster<'_>, reading: &Reading, all_per_second: f64) -> Holding {
    let root = direct(cluster.root.group());
    let rate = cluster.root.rise.per_second.max(1e-9);
    let alone = all_per_second <= rate * 1.001;
    let noun = language::of(cluster.root.group().kind).noun();
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
    let with = if cluster.others.is_empty() { "" } else { ", with the groups in step" };

    if sum.heap_known {
        let seen = format!("stack and heap reached only from {} of them", root.sampled.max(1));
        held.per_member = known;
        held.heap = sum.heap;
        held.error = Some(sum.error);
        held.share_is_direct = true;
        held.source = seen;
        held.evidence.push(format!(
            "holds {} each{with}: {} stack, {} heap that nothing else reaches (± {}, followed from {} of them)",
            bytes(known),
            bytes(sum.stack),
            bytes(sum.heap),
            bytes(sum.error),
            root.sampled.max(1),
        ));
        if root.truncated > 0 {
            held.evidence.push(format!(
                "{} of {} followed {noun}s reach more than was followed: the true figure is larger",
                root.truncated, root.sampled
            ));
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
        held.source = if alone {
            "differences between samples".to_owned()
        } else {
            "differences between samples, shared among the leaks by their counts".to_owned()
        };
        let when = if collected { " after collections" } else { "" };
        held.evidence.push(format!(
            "{} more memory per {noun} more, between samples{when} (± {}); {} of it stack: all that grows alongside is included",
            bytes(held.per_member), bytes(error), bytes(sum.stack)
        ));
    } else {
        // No collection in the window: what the heap gained may be garbage. Only the stacks are sure.
        held.per_member = sum.stack;
        held.source = "stacks only".to_owned();
        held.evidence.push(format!(
            "holds at least {} of stack each; no collection of garbage ran in the window, so what of the heap is theirs is unknown{}",
            bytes(sum.stack),
            measured.map_or_else(String::new, |(each, _)| format!(" (at most {})", bytes(each.max(0.0)))),
        ));
    }
    let grows = reading.trend.live_slope_bytes_per_second;
    let gain = held.per_member * rate;
    held.share = if grows > 0.0 && gain > 0.0 { (gain / grows).clamp(0.0, 1.0) } else { 0.0 };
    if held.share > 0.0 {
        held.evidence.push(format!(
            "{} x {} = {}/s, {} of the {}/s by which {} grows",
            crate::format::rate(rate),
            bytes(held.per_member),
            bytes(gain),
            percent(held.share),
            bytes(grows),
            reading.trend.live_basis,
        ));
    }
    held
}

/// Without a collection in the window differences are only an upper bound, garbage included. It bears out what the
/// members hold through a global of theirs when it leaves room for all of that.
fn weigh_with_garbage(held: &mut Holding, sum: &Direct, each: f64) {
    let known = sum.stack + sum.heap;
    let with_global = known + sum.also_global;
    if sum.also_global >= 0.1 * known && each >= 0.75 * with_global {
        count_global(
            held,
            sum,
            &format!("memory in use grows by {} per member more, garbage included", bytes(each)),
        );
    }
}

/// What a global reaches too is the members' as well: a registry that they are never taken out of.
fn count_global(held: &mut Holding, sum: &Direct, said: &str) {
    let known = sum.stack + sum.heap;
    held.per_member = known + sum.also_global;
    held.heap = held.per_member - sum.stack;
    held.source = "stack, heap reached only from them, and heap a global reaches too".to_owned();
    held.evidence.push(format!(
        "{said}: of what they hold, {} each is also reached from a global (a registry they are never taken out of?)",
        bytes(sum.also_global)
    ));
}

/// Direct evidence and differences, side by side.
fn weigh(held: &mut Holding, sum: &Direct, each: f64, error: f64, cluster: &Cluster<'_>, collected: bool) {
    let known = sum.stack + sum.heap;
    let when = if collected { "between collections" } else { "between samples" };
    let said = format!("memory in use grows by {} per member more {when} (± {})", bytes(each), bytes(error));
    let with_global = known + sum.also_global;
    if sum.also_global >= 0.1 * known && (each - with_global).abs() < (each - known).abs() {
        count_global(held, sum, &said);
    } else if (each - known).abs() <= (0.25 * known).max(2.5 * error) {
        held.evidence.push(format!("{said}, which agrees"));
    } else if each < known {
        held.evidence.push(format!("{said}, less than they hold: something else shrank meanwhile"));
    } else if sum.truncated * 2 > sum.sampled
        || (!cluster.others.is_empty() && each - 2.0 * error > 1.5 * known)
    {
        held.per_member = each;
        held.heap = each - sum.stack;
        held.error = Some(error);
        held.source = "differences between samples".to_owned();
        held.evidence
            .push(format!("{said}: the groups in step hold the rest together, so none holds it alone"));
    } else {
        held.evidence.push(format!(
            "{said}, more than they alone hold: the rest is shared with others, or grows beside them"
        ));
    }
}
