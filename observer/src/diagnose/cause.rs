//! Which of the groups that leak is the cause, and which only leak because it does.
//!
//! Takes the leaking groups, gives [`Cluster`]s: one root each, with the groups that grow in step with it. A leaked
//! request often shows as three groups: the one that blocks, the parent that waits for it, a helper beside it.
//! Growing at the same rate joins nothing (two unrelated leaks may); a shared origin does.

use super::history::GroupSeries;
use super::site;
use super::turnover::{self, Rise};
use crate::language::{self, Language, Origin, Scope};
use crate::sample::Group;

/// A group that grows and does not drain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect<'a> {
    pub series: &'a GroupSeries,
    pub rise: Rise,
}

impl Suspect<'_> {
    pub(super) fn group(&self) -> &Group {
        &self.series.group
    }

    /// Bytes a second that the group is known to gain directly.
    fn known_gain(&self) -> f64 {
        let group = self.group();
        let count = group.count.max(1) as f64;
        let heap = group.retained.as_ref().map_or(0.0, |r| r.exclusive_bytes_per_member.max(0.0));
        (group.stack_bytes as f64 / count + heap) * self.rise.per_second
    }
}

/// One leak: the group to name, and those that grow because of it.
#[derive(Clone, Debug)]
pub(super) struct Cluster<'a> {
    pub root: Suspect<'a>,
    pub others: Vec<(Suspect<'a>, Tie)>,
}

/// What ties a group to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// It runs the function that started the root's members, and waits.
    WaitsForIt,
    /// The root's members started it.
    StartedByIt,
    /// Started by the same function.
    SameOrigin,
    /// The same code at another line or in another state.
    SameCode,
    /// Waits on the same object.
    SameObject,
}

/// Joins suspects that leak for the same reason and names a root for each; most bytes a second first.
pub(super) fn clusters<'a>(suspects: &[Suspect<'a>]) -> Vec<Cluster<'a>> {
    let mut parent: Vec<usize> = (0..suspects.len()).collect();
    for one in 0..suspects.len() {
        for other in one + 1..suspects.len() {
            if related(&suspects[one], &suspects[other]) {
                let (a, b) = (find(&mut parent, one), find(&mut parent, other));
                parent[a.max(b)] = a.min(b);
            }
        }
    }
    let mut clusters = Vec::new();
    for start in 0..suspects.len() {
        if find(&mut parent, start) != start {
            continue;
        }
        let members: Vec<Suspect<'a>> =
            (0..suspects.len()).filter(|at| find(&mut parent, *at) == start).map(|at| suspects[at]).collect();
        clusters.extend(with_root(&members));
    }
    clusters.sort_by(|a: &Cluster<'_>, b| {
        gain(b).total_cmp(&gain(a)).then(b.root.rise.per_second.total_cmp(&a.root.rise.per_second))
    });
    clusters
}

fn gain(cluster: &Cluster<'_>) -> f64 {
    cluster.root.known_gain() + cluster.others.iter().map(|(other, _)| other.known_gain()).sum::<f64>()
}

fn find(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

fn with_root<'a>(members: &[Suspect<'a>]) -> Option<Cluster<'a>> {
    let root = members.iter().copied().min_by(|a, b| {
        let waits =
            |s: &Suspect<'_>| members.iter().any(|m| m.series.group.id != s.group().id && waits_for(s, m));
        (waits(a), severity(a.group()))
            .cmp(&(waits(b), severity(b.group())))
            .then(b.known_gain().total_cmp(&a.known_gain()))
            .then(b.rise.per_second.total_cmp(&a.rise.per_second))
            .then(a.group().id.cmp(&b.group().id))
    })?;
    let others = members
        .iter()
        .filter(|member| member.group().id != root.group().id)
        .map(|member| (*member, tie(&root, member).unwrap_or(Tie::SameOrigin)))
        .collect();
    Some(Cluster { root, others })
}

fn language_of(group: &Group) -> &'static dyn Language {
    language::of(group.kind)
}

fn scope<'f>(group: &Group, function: &'f str) -> Scope<'f> {
    language_of(group).scope(function)
}

/// How directly what a group waits for says that somebody is missing: less is more.
fn severity(group: &Group) -> u8 {
    language_of(group).severity(turnover::wait(group), &group.wait_reason)
}

fn related(a: &Suspect<'_>, b: &Suspect<'_>) -> bool {
    a.group().kind == b.group().kind && (tie(a, b).is_some() || tie(b, a).is_some())
}

fn tie(root: &Suspect<'_>, other: &Suspect<'_>) -> Option<Tie> {
    let (a, b) = (root.group(), other.group());
    if same_object(a, b) {
        return Some(Tie::SameObject);
    }
    if same_code(a, b) {
        return Some(Tie::SameCode);
    }
    if waits_for(other, root) {
        return Some(Tie::WaitsForIt);
    }
    if started_by(a, b) && in_ratio(root, other) {
        return Some(Tie::StartedByIt);
    }
    if started_by(b, a) && in_ratio(root, other) {
        return Some(Tie::WaitsForIt);
    }
    let same_origin = origins(a).any(|one| origins(b).any(|other| one == other));
    (same_origin && in_ratio(root, other)).then_some(Tie::SameOrigin)
}

/// `parent` has the function that started `child` on its stack, and rests in a wait that a child can end.
fn waits_for(parent: &Suspect<'_>, child: &Suspect<'_>) -> bool {
    language_of(parent.group()).waits_for_started(&parent.group().wait_reason)
        && started_by(parent.group(), child.group())
        && child.rise.per_second > 0.5 * parent.rise.per_second
}

/// `parent` runs the function that started `child`, or waits in the object that did (`errgroup.(*Group)`).
fn started_by(parent: &Group, child: &Group) -> bool {
    let language = language_of(child);
    let on_stack = |function: &str| parent.frames.iter().any(|f| f.function == function);
    let starter = child.created_by.as_ref().map(|place| place.function.as_str()).filter(|f| !f.is_empty());
    let by_starter = starter.is_some_and(|function| {
        on_stack(function)
            || (on_stack(scope(child, function).enclosing) && !language.dispatches(function))
            || scope(child, function).receiver.is_some_and(|of| {
                parent.frames.iter().any(|f| scope(child, &f.function).receiver == Some(of))
                    && language.starts_for_others(function)
            })
    });
    let same_creator = parent.created_by == child.created_by;
    !same_creator
        && (by_starter
            || entry(child).is_some_and(|function| {
                let outer = scope(child, function).enclosing;
                outer != function && on_stack(outer)
            }))
}

fn entry(group: &Group) -> Option<&str> {
    group.frames.last().map(|frame| frame.function.as_str()).filter(|function| !function.is_empty())
}

/// The functions a group's members come from: where they were started, and where their closure was written.
fn origins(group: &Group) -> impl Iterator<Item = &str> {
    let language = language_of(group);
    let enclosing = |function| language.scope(function).enclosing;
    let starter = group.created_by.as_ref().map(|place| enclosing(&place.function));
    let closure = entry(group).filter(|function| enclosing(function) != *function).map(enclosing);
    starter
        .into_iter()
        .filter(|function| {
            !function.is_empty() && !language.starts_for_others(function) && !language.dispatches(function)
        })
        .chain(closure)
}

fn same_object(a: &Group, b: &Group) -> bool {
    match (&a.waits_on, &b.waits_on) {
        (Some(a), Some(b)) => a.address.is_some_and(|at| at != 0) && a.address == b.address,
        _ => false,
    }
}

/// The same code at another line or in another state: same creator, same entry, same innermost own function;
/// or blocked on locks of the same type.
fn same_code(a: &Group, b: &Group) -> bool {
    let (Some(one), Some(other)) = (site::own_frame(a), site::own_frame(b)) else { return false };
    if one.function.is_empty() || other.function.is_empty() {
        return false;
    }
    let (mine, its) = (scope(a, &one.function), scope(b, &other.function));
    let locks = |group: &Group| language_of(group).is_lock(&group.wait_reason);
    if locks(a) && locks(b) && mine.receiver.is_some() {
        return mine.receiver == its.receiver;
    }
    let entries = entry(a).is_some() && entry(a) == entry(b);
    let creators = a.created_by == b.created_by;
    if !entries || !creators {
        return false;
    }
    // A router starts every handler at the same place: only what the program itself entered counts as one.
    let own_entry = a.frames.last().is_some_and(|frame| {
        language_of(a).origin(frame) == Origin::Own && scope(a, &frame.function).package == mine.package
    });
    one.function == other.function || (mine.package.is_some() && own_entry && mine.package == its.package)
}

/// One grows a whole number of times as fast as the other, as far as the counts can tell.
fn in_ratio(a: &Suspect<'_>, b: &Suspect<'_>) -> bool {
    let (fast, slow) = if a.rise.net >= b.rise.net { (a.rise, b.rise) } else { (b.rise, a.rise) };
    let ratio = fast.net / slow.net.max(1.0);
    let times = ratio.round().max(1.0);
    if times > 8.0 {
        return false;
    }
    let noise = 0.06 * times + 2.0 / slow.net.max(1.0);
    (ratio - times).abs() <= noise
}

/// `resting` and `peer` serve the same connection: one started the other, or the same function started both, and they
/// grow one for one.
pub(super) fn same_connection(resting: &Suspect<'_>, peer: &Suspect<'_>) -> bool {
    let ratio = resting.rise.net / peer.rise.net.max(1.0);
    let (a, b) = (resting.group(), peer.group());
    let tied =
        started_by(a, b) || started_by(b, a) || origins(a).any(|one| origins(b).any(|other| one == other));
    tied && (ratio - 1.0).abs() <= 0.05 + 2.0 / peer.rise.net.max(1.0)
}
