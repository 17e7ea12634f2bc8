//! The verdict: from the standings of all groups and the memory curve to one answer.
//!
//! Takes a [`History`], gives a [`Diagnosis`]. Evidence or silence: what cannot be said yet is a verdict of its own.
//! Values decide; `words` and `sentences` are asked last.

use super::allocated;
use super::attribution::{self, Holding};
use super::cause::{self, Cluster};
use super::diagnosis::{Bystander, Culprit, Diagnosis, GrowthTotals, SCHEMA, Verdict};
use super::findings::Findings;
use super::history::History;
use super::memory::{self, Reading};
use super::sentences::sentences;
use super::turnover;
use super::words;
use super::{growth, site};
use crate::format::duration;
use crate::sample::TargetInfo;

/// Steady groups shown as not being the cause.
const BYSTANDERS: usize = 5;
/// Culprits named; more leaks at once than this are counted in a note.
const CULPRITS: usize = 5;
const GROWTH_SITES: usize = 10;

/// What the samples say.
pub fn diagnose(history: &History, target: &TargetInfo) -> Diagnosis {
    let reading = memory::read(history);
    let mut findings = Findings::of(history);
    findings.spare_peers(history);
    let clusters = cause::clusters(&findings.leaking);
    let all_per_second: f64 = clusters.iter().map(|cluster| cluster.root.rise.per_second).sum();
    let culprits: Vec<Culprit> = clusters
        .iter()
        .take(CULPRITS)
        .map(|cluster| culprit(cluster, &attribution::holding(cluster, &reading, all_per_second)))
        .collect();
    let short =
        history.samples() < turnover::LEAST_SAMPLES || history.window_seconds() < turnover::LEAST_SECONDS;
    let unknown_heap = !reading.trend.live_is_certain && reading.trend.still_rising && !doubled(&reading);
    let verdict = if short {
        Verdict::InsufficientData
    } else if !culprits.is_empty() {
        Verdict::Leak
    } else if findings.too_early_matters() || unknown_heap {
        Verdict::InsufficientData
    } else if reading.trend.still_rising {
        Verdict::Growing
    } else {
        Verdict::Stable
    };
    let culprits = if verdict == Verdict::Leak { culprits } else { Vec::new() };
    let sites = history.growth().map(|growth| growth.sites.as_slice()).unwrap_or_default();
    let leader = growth::leader(sites, reading.trend.live_slope_bytes_per_second);
    let mut growth_sites = growth::ranked(sites);
    growth_sites.truncate(GROWTH_SITES);
    let mut notes = Vec::new();
    if clusters.len() > CULPRITS && verdict == Verdict::Leak {
        notes.push(format!("{} more groups leak", clusters.len() - CULPRITS));
    }
    if history.restarts() > 0 {
        notes.push(format!(
            "the process was replaced {} in the window; only its present life of {} is judged",
            words::times(history.restarts()),
            duration(history.window_seconds())
        ));
    }
    let (allocations, allocation_sites) = allocated::parts(history.allocations());
    let none_left = clusters.first().is_some_and(|first| first.root.rise.none_left());
    let mut diagnosis = Diagnosis {
        schema: SCHEMA.to_owned(),
        target: target.clone(),
        window_seconds: history.window_seconds(),
        samples: history.samples(),
        verdict,
        sentence: String::new(),
        second_sentence: String::new(),
        exited: history.exited(),
        restarts: history.restarts(),
        memory: reading.trend.clone(),
        culprits,
        not_the_cause: bystanders(&findings),
        growth_sites,
        allocations,
        allocation_sites,
        growth: history.growth().map(|growth| GrowthTotals {
            page_faults: growth.page_faults,
            sample_period: growth.sample_period,
            touched_bytes: growth.touched_bytes,
            returned_bytes: growth.returned_bytes,
            mapped: growth.mapped.clone(),
        }),
        waits: history.waits().cloned(),
        deadlocks: history.deadlocks().to_vec(),
        notes,
        losses: history.losses().clone(),
        degraded: history.degraded().to_vec(),
    };
    (diagnosis.sentence, diagnosis.second_sentence) =
        sentences(&diagnosis, &findings, leader.as_ref(), unknown_heap, short, none_left);
    diagnosis
}

/// With no collection in the window, only a rise beyond twice the start cannot be garbage of the usual settings.
fn doubled(reading: &Reading) -> bool {
    match (reading.floor.first(), reading.floor.last()) {
        (Some(first), Some(last)) => {
            last.value > 2.5 * first.value && last.value - first.value > 64.0 * 1048576.0
        }
        _ => false,
    }
}

/// The largest groups that are not to blame.
fn bystanders(findings: &Findings<'_>) -> Vec<Bystander> {
    let watched = findings
        .watched
        .iter()
        .map(|suspect| Bystander { group: suspect.group().clone(), why: words::watched_because(suspect) });
    let quiet = findings.quiet.iter().filter(|(series, _)| series.present && series.group.count >= 2).map(
        |(series, standing)| Bystander {
            group: series.group.clone(),
            why: words::quiet_because(series, *standing),
        },
    );
    let mut all: Vec<Bystander> = watched.chain(quiet).collect();
    all.sort_by(|a, b| b.group.count.cmp(&a.group.count).then(a.group.id.cmp(&b.group.id)));
    all.truncate(BYSTANDERS);
    all
}

fn culprit(cluster: &Cluster<'_>, held: &Holding) -> Culprit {
    let Cluster { root, others } = cluster;
    let (group, rise) = (root.group(), &root.rise);
    let corroborated = if held.share_is_direct && held.share > 0.5 { 0.3 } else { 0.0 };
    let confidence = rise.confidence + (1.0 - rise.confidence) * corroborated;
    Culprit {
        group: group.clone(),
        site: site::place(group),
        growth_per_second: memory::finite(rise.per_second),
        bytes_per_member: memory::finite(held.per_member.max(0.0)),
        bytes_error: held.error.filter(|error| error.is_finite()),
        bytes_source: words::source(held.source),
        stack_bytes_per_member: memory::finite(held.stack),
        heap_bytes_per_member: memory::finite(held.heap.max(0.0)),
        share_of_growth: memory::finite(held.share),
        confidence: confidence.clamp(0.0, 1.0),
        evidence: words::against(cluster, held),
        in_step: others.iter().map(|(other, _)| other.group().clone()).collect(),
    }
}
