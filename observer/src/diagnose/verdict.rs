//! The verdict: from the standings of all groups and the memory curve to one answer, in words.
//!
//! Takes a [`History`], gives a [`Diagnosis`]. Evidence or silence: what cannot be said yet is a verdict of its own.

use super::allocated;
use super::attribution::{self, Holding};
use super::cause::{self, Cluster, Suspect, Tie};
use super::history::{GroupSeries, History};
use super::memory::{self, Reading};
use super::turnover::{self, Rise, Standing};
use super::{Bystander, Culprit, Diagnosis, GrowthTotals, SCHEMA, Verdict, growth, site};
use crate::format::{bytes, bytes_per_second, count, counted, duration, percent, rate};
use crate::language::{self, Wait};
use crate::sample::{Group, TargetInfo};

/// Steady groups shown as not being the cause.
const BYSTANDERS: usize = 5;
/// Culprits named; more leaks at once than this are counted in a note.
const CULPRITS: usize = 5;
/// Suspects looked at in pairs.
const SUSPECTS: usize = 200;
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
        .map(|cluster| culprit(cluster, attribution::holding(cluster, &reading, all_per_second)))
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
    let mut notes = findings.notes.clone();
    if clusters.len() > CULPRITS && verdict == Verdict::Leak {
        notes.push(format!("{} more groups leak", clusters.len() - CULPRITS));
    }
    if history.restarts() > 0 {
        notes.push(format!(
            "the process was replaced {} in the window; only its present life of {} is judged",
            times(history.restarts()),
            duration(history.window_seconds())
        ));
    }
    let (allocations, allocation_sites) = allocated::parts(history.allocations());
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
        not_the_cause: findings.bystanders(),
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
        sentences(&diagnosis, &findings, leader.as_ref(), unknown_heap, short);
    diagnosis
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
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

struct Findings<'a> {
    leaking: Vec<Suspect<'a>>,
    watched: Vec<Suspect<'a>>,
    too_early: Vec<Suspect<'a>>,
    quiet: Vec<(&'a GroupSeries, Standing)>,
    notes: Vec<String>,
}

impl<'a> Findings<'a> {
    fn of(history: &'a History) -> Self {
        let mut findings = Self {
            leaking: Vec::new(),
            watched: Vec::new(),
            too_early: Vec::new(),
            quiet: Vec::new(),
            notes: Vec::new(),
        };
        for series in history.groups() {
            match turnover::standing(series, history.first_at(), history.last_at()) {
                Standing::Leaks(rise) => findings.leaking.push(Suspect { series, rise }),
                Standing::Watch(rise) => findings.watched.push(Suspect { series, rise }),
                Standing::TooEarly(rise) => findings.too_early.push(Suspect { series, rise }),
                other => findings.quiet.push((series, other)),
            }
        }
        for list in [&mut findings.leaking, &mut findings.watched, &mut findings.too_early] {
            list.sort_by(|a, b| b.rise.net.total_cmp(&a.rise.net).then(a.group().id.cmp(&b.group().id)));
            list.truncate(SUSPECTS);
        }
        findings
            .quiet
            .sort_by(|(a, _), (b, _)| b.group.count.cmp(&a.group.count).then(a.group.id.cmp(&b.group.id)));
        findings
    }

    /// A member at rest beside one that reads from a peer, both of the same connection, is as healthy as the
    /// connection: it is watched as long as one.
    fn spare_peers(&mut self, history: &History) {
        if history.window_seconds() >= 300.0 {
            return;
        }
        let watched = &self.watched;
        let (spared, leaking) =
            std::mem::take(&mut self.leaking).into_iter().partition(|suspect: &Suspect<'_>| {
                turnover::wait(suspect.group()) == Wait::Soft
                    && watched.iter().any(|peer| {
                        language::of(peer.group().kind).is_connection(&peer.group().wait_reason)
                            && cause::same_connection(suspect, peer)
                    })
            });
        self.leaking = leaking;
        self.watched.extend(Vec::<Suspect<'_>>::into_iter(spared));
    }

    /// Something grows and does not drain, but not for long enough: neither a leak nor stable.
    fn too_early_matters(&self) -> bool {
        self.too_early.iter().any(|s| {
            turnover::wait(s.group()) <= Wait::Soft
                && s.rise.net >= 8.0
                && s.rise.drain <= 0.02
                && s.rise.steps >= 3
        })
    }

    /// The group that rose with memory and is healthy all the same.
    fn risen(&self, grown: f64) -> Option<String> {
        let gain = |series: &GroupSeries| {
            let group = &series.group;
            let heap = group.retained.as_ref().map_or(0.0, |r| r.exclusive_bytes_per_member.max(0.0));
            let first = series.points.first().map_or(0, |p| p.count);
            group.count.saturating_sub(first) as f64
                * (group.stack_bytes as f64 / group.count.max(1) as f64 + heap)
        };
        let (series, standing) = self
            .quiet
            .iter()
            .filter(|(series, _)| series.present)
            .max_by(|(a, _), (b, _)| gain(a).total_cmp(&gain(b)))?;
        (gain(series) > 0.2 * grown && !matches!(standing, Standing::Steady)).then(|| {
            format!(
                "{} rose with it, but {}.",
                who(&series.group, site::place(&series.group).as_ref()),
                quiet_because(series, *standing)
            )
        })
    }

    fn bystanders(&self) -> Vec<Bystander> {
        let watched =
            self.watched.iter().map(|s| Bystander { group: s.group().clone(), why: watched_because(s) });
        let quiet = self.quiet.iter().filter(|(series, _)| series.present && series.group.count >= 2).map(
            |(series, standing)| Bystander {
                group: series.group.clone(),
                why: quiet_because(series, *standing),
            },
        );
        let mut all: Vec<Bystander> = watched.chain(quiet).collect();
        all.sort_by(|a, b| b.group.count.cmp(&a.group.count).then(a.group.id.cmp(&b.group.id)));
        all.truncate(BYSTANDERS);
        all
    }
}

fn watched_because(suspect: &Suspect<'_>) -> String {
    let rise = &suspect.rise;
    let why = language::of(suspect.group().kind).why_patience(&suspect.group().wait_reason);
    format!(
        "{} more and none left yet, but {why}: needs {} of watching",
        rate(rise.per_second),
        duration(300.0)
    )
}

fn quiet_because(series: &GroupSeries, standing: Standing) -> String {
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

fn culprit(cluster: &Cluster<'_>, held: Holding) -> Culprit {
    let Cluster { root, others } = cluster;
    let (group, rise) = (root.group(), &root.rise);
    let mut evidence = vec![format!(
        "{} more in {} ({}), in {} of {} samples",
        count(rise.net.max(0.0) as u64),
        duration(rise.seconds()),
        rate(rise.per_second),
        count(rise.steps as u64),
        count(rise.samples as u64),
    )];
    evidence.push(if rise.left < 0.5 {
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
        evidence.push(format!("the oldest has waited {}", duration(oldest)));
    }
    if let Some(on) = &group.waits_on
        && on.objects == group.count
        && group.count > 1
    {
        evidence.push(format!(
            "each waits on {} of its own: {} different ones",
            article(&on.kind),
            count(on.objects)
        ));
    }
    evidence.extend(held.evidence.iter().cloned());
    if let Some(touched) = group.touched_bytes.filter(|bytes| *bytes > 0) {
        evidence.push(format!(
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
        evidence.push(format!(
            "in step with it: {} in {} at {place}, {} more, which {why}",
            counted(other.group().count, language::of(other.group().kind).noun()),
            reason(other.group()),
            rate(other.rise.per_second),
        ));
    }
    let corroborated = if held.share_is_direct && held.share > 0.5 { 0.3 } else { 0.0 };
    let confidence = rise.confidence + (1.0 - rise.confidence) * corroborated;
    if turnover::wait(group) == Wait::Peer {
        evidence.push(format!("what it waits for may still come: watched for {}", duration(rise.seconds())));
    }
    Culprit {
        group: group.clone(),
        site: site::place(group),
        growth_per_second: memory::finite(rise.per_second),
        bytes_per_member: memory::finite(held.per_member.max(0.0)),
        bytes_error: held.error.filter(|error| error.is_finite()),
        bytes_source: held.source,
        stack_bytes_per_member: memory::finite(held.stack),
        heap_bytes_per_member: memory::finite(held.heap.max(0.0)),
        share_of_growth: memory::finite(held.share),
        confidence: confidence.clamp(0.0, 1.0),
        evidence,
        in_step: others.iter().map(|(other, _)| other.group().clone()).collect(),
    }
}

fn article(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn reason(group: &Group) -> &str {
    group.reason()
}

/// `9,214 goroutines blocked in chan send at checkout.(*Quoter).fetch quote.go:41`.
fn who(group: &Group, place: Option<&crate::sample::Place>) -> String {
    let at = place.map(|place| format!(" at {}", site::words(place))).unwrap_or_default();
    format!("{} blocked in {}{at}", counted(group.count, language::of(group.kind).noun()), reason(group))
}

fn sentences(
    diagnosis: &Diagnosis,
    findings: &Findings<'_>,
    leader: Option<&growth::Leader>,
    unknown_heap: bool,
    short: bool,
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
            let never = if first.evidence.iter().any(|line| line.starts_with("none of the")) {
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
                None if findings
                    .risen(memory.live_slope_bytes_per_second * diagnosis.window_seconds)
                    .is_some() =>
                {
                    findings
                        .risen(memory.live_slope_bytes_per_second * diagnosis.window_seconds)
                        .unwrap_or_default()
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

fn early_words(group: &Group, rise: &Rise) -> String {
    format!(
        "{} more in {} ({}), none of which has left: too early to judge.",
        who(group, site::place(group).as_ref()),
        duration(rise.seconds()),
        rate(rise.per_second)
    )
}
