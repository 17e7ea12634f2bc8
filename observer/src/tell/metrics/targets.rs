//! The series of each target, off the board.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::expose::{Exposition, Family};
use super::families as f;
use super::label::{self, OTHER};
use super::sites::Sites;
use super::waits;
use crate::board::{Board, TargetState};
use crate::diagnose::Verdict;
use crate::language::{self, Wait};
use crate::sample::{Container, Group, GroupId, GroupKind};

/// Groups to blame that have a series; there is hardly ever more than one.
const CULPRITS: usize = 10;
/// Different system calls that memory comes by; there are five.
const CALLS: usize = 12;

pub(super) struct Targets {
    board: Arc<Board>,
    places: AtomicUsize,
    /// By target; what has left the board leaves this too.
    sites: Mutex<BTreeMap<String, Sites>>,
    described: Vec<Desc>,
}

/// What the registry holds of it.
pub(super) struct Collected(pub Arc<Targets>);

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        self.0.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}

impl Targets {
    pub(super) fn new(board: Arc<Board>, places: usize) -> Result<Self, prometheus::Error> {
        let described = f::OF_TARGETS.iter().map(Family::describe).collect::<Result<_, _>>()?;
        Ok(Self { board, places: AtomicUsize::new(places), sites: Mutex::default(), described })
    }

    pub(super) fn set_sites(&self, places: usize) {
        self.places.store(places, Ordering::Relaxed);
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let targets = self.board.targets();
        let places = self.places.load(Ordering::Relaxed);
        let mut shown = Exposition::new(&f::OF_TARGETS);
        let mut all = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, _| targets.iter().any(|target| target.name == *name));
        for target in targets {
            who(&mut shown, &target);
            verdict(&mut shown, &target);
            if target.up {
                memory(&mut shown, &target);
                waiting(&mut shown, &target);
                let sites = all.entry(target.name.clone()).or_default();
                blocked(&mut shown, &target, sites, places);
            }
        }
        shown.finish()
    }
}

fn who(shown: &mut Exposition, target: &TargetState) {
    let name = [target.name.as_str()];
    let info = &target.info;
    let of = |part: fn(&Container) -> Option<&String>| {
        label::value(info.container.as_ref().and_then(part).map_or("", String::as_str))
    };
    let labels = [
        &target.name,
        &info.pid.to_string(),
        &label::value(&info.exe),
        &label::value(&info.runtime.name),
        &label::value(info.runtime.version.as_deref().unwrap_or_default()),
        // To Prometheus an empty label is none.
        &of(|container| container.pod.as_ref()),
        &of(|container| container.namespace.as_ref()),
        &of(|container| container.name.as_ref()),
    ];
    shown.set(&f::TARGET_INFO, &labels.map(String::as_str), 1.0);
    shown.set(&f::TARGET_UP, &name, f64::from(u8::from(target.up)));
    shown.set(&f::TARGET_RESTARTS, &name, f64::from(target.restarts));
    shown.set(&f::LAST_SAMPLE, &name, target.last_sampled);
    shown.set(&f::INTERVAL, &name, target.interval_seconds);
    if let Some(limit) = target.sample.memory.limit_bytes {
        shown.set(&f::LIMIT, &name, limit as f64);
    }
}

fn verdict(shown: &mut Exposition, target: &TargetState) {
    let name = [target.name.as_str()];
    let diagnosis = &target.diagnosis;
    let is = |verdict| f64::from(u8::from(diagnosis.verdict == verdict));
    shown.set(&f::LEAK, &name, is(Verdict::Leak));
    shown.set(&f::GROWING, &name, is(Verdict::Growing));
    shown.set(&f::DEADLOCK, &name, diagnosis.deadlocks.len() as f64);
    let mut leaks: BTreeMap<GroupId, (&Group, f64)> = BTreeMap::new();
    for culprit in diagnosis.culprits.iter().take(CULPRITS) {
        let growth = culprit.growth_per_second * culprit.bytes_per_member;
        leaks.entry(culprit.group.id).or_insert((&culprit.group, 0.0)).1 += growth;
    }
    for (id, (group, growth)) in leaks {
        shown.set(&f::LEAK_GROWTH, &[name[0], &label::site(group), &label::stack_id(id)], growth);
    }
}

fn memory(shown: &mut Exposition, target: &TargetState) {
    let name = [target.name.as_str()];
    let memory = &target.sample.memory;
    shown.set(&f::RESIDENT, &name, memory.resident_bytes as f64);
    shown.set(&f::ANONYMOUS, &name, memory.anonymous_bytes as f64);
    if let Some(usage) = memory.limit_usage_bytes {
        shown.set(&f::LIMIT_USAGE, &name, usage as f64);
    }
    if let Some(heap) = &memory.heap {
        shown.set(&f::HEAP, &name, heap.heap_in_use_bytes as f64);
        shown.set(&f::STACKS, &name, heap.stack_in_use_bytes as f64);
    }
    if let Some(growth) = &target.sample.growth {
        shown.set(&f::PAGE_FAULTS, &name, growth.page_faults as f64);
        for (family, calls) in
            [(&f::MAPPED, &growth.mapped.mapped_bytes), (&f::UNMAPPED, &growth.mapped.unmapped_bytes)]
        {
            for (call, bytes) in calls.iter().take(CALLS) {
                shown.set(family, &[name[0], &label::value(call)], *bytes as f64);
            }
        }
    }
    // Of too short a window, the slope is noise.
    if target.diagnosis.verdict != Verdict::InsufficientData {
        shown.set(&f::GROWTH, &name, target.diagnosis.memory.live_slope_bytes_per_second);
    }
}

fn waiting(shown: &mut Exposition, target: &TargetState) {
    let name = [target.name.as_str()];
    if let Some(waits) = &target.sample.waits {
        shown.set(&f::FUTEX_WAITS, &name, waits.ended as f64);
        shown.histogram(&f::FUTEX_WAIT_SECONDS, &name, waits::histogram(waits));
    }
    if let Some(tasks) = target.sample.totals.tasks {
        shown.set(&f::TASKS, &name, tasks as f64);
    }
    shown.set(&f::THREADS, &name, target.sample.totals.threads as f64);
}

/// Groups that are one to us: they differ by creator or state only.
struct Blocked<'a> {
    group: &'a Group,
    count: u64,
    retained: Option<u64>,
}

fn blocked(shown: &mut Exposition, target: &TargetState, sites: &mut Sites, places: usize) {
    let mut merged: BTreeMap<GroupId, Blocked<'_>> = BTreeMap::new();
    let mut by_kind: BTreeMap<&str, u64> = BTreeMap::new();
    for group in target.sample.groups.iter().filter(|group| waits_for_something(group)) {
        add(by_kind.entry(language::of(group.kind).noun()).or_default(), group.count);
        let known = merged.entry(group.id).or_insert(Blocked { group, count: 0, retained: None });
        add(&mut known.count, group.count);
        if let Some(bytes) = group.retained_bytes {
            add(known.retained.get_or_insert(0), bytes);
        }
    }
    let counts = merged.iter().map(|(id, blocked)| (*id, blocked.count)).collect();
    let rates: BTreeMap<GroupId, f64> =
        target.diagnosis.culprits.iter().map(|c| (c.group.id, c.growth_per_second)).collect();
    let blamed: Vec<GroupId> = target.diagnosis.culprits.iter().take(CULPRITS).map(|c| c.group.id).collect();
    sites.look(target.last_sampled, target.sample.generation, &counts, &blamed, places);

    let mut rest: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for (id, blocked) in &merged {
        let kind = language::of(blocked.group.kind).noun();
        // To Prometheus an empty value is no label; who is in a system call may have no reason but its state.
        let group = blocked.group;
        let reason = sites.reason(group.reason()).unwrap_or_else(|| OTHER.to_owned());
        if !sites.has(*id) {
            add(rest.entry((kind, reason)).or_default(), blocked.count);
            continue;
        }
        let (site, stack_id) = (label::site(blocked.group), label::stack_id(*id));
        let labels = [target.name.as_str(), kind, &reason, &site, &stack_id];
        shown.set(&f::SITE_BLOCKED, &labels, blocked.count as f64);
        if let Some(growth) = rates.get(id).copied().or_else(|| sites.growth(*id)) {
            shown.set(&f::SITE_GROWTH, &labels, growth);
        }
        if let Some(bytes) = blocked.retained {
            shown.set(&f::SITE_RETAINED, &labels, bytes as f64);
        }
    }
    // Of the groups that the sample left out nothing is known but how many members they have.
    let left_out = target.sample.totals.members_left_out;
    if left_out > 0 {
        let kind = target.sample.totals.tasks().next().map_or(GroupKind::Thread, |(kind, _)| kind);
        let kind = language::of(kind).noun();
        add(by_kind.entry(kind).or_default(), left_out);
        add(rest.entry((kind, OTHER.to_owned())).or_default(), left_out);
    }
    for ((kind, reason), count) in &rest {
        shown.set(&f::SITE_BLOCKED, &[&target.name, kind, reason, OTHER, OTHER], *count as f64);
    }
    for (kind, count) in by_kind {
        shown.set(&f::BLOCKED, &[&target.name, kind], count as f64);
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

fn waits_for_something(group: &Group) -> bool {
    language::of(group.kind).wait(&group.state, &group.wait_reason) != Wait::Runs
}
