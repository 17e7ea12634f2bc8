//! The groups of a target, each where it belongs: leaking, to be watched, too early to say, or quiet.
//!
//! Takes a history, gives [`Findings`] as values; `words` and `sentences` say them.

use super::cause::{self, Suspect};
use super::history::{GroupSeries, History};
use super::turnover::{self, Standing};
use crate::language::{self, Wait};

/// Suspects looked at in pairs.
const SUSPECTS: usize = 200;

/// All groups, by how they stand.
pub(super) struct Findings<'a> {
    pub leaking: Vec<Suspect<'a>>,
    pub watched: Vec<Suspect<'a>>,
    pub too_early: Vec<Suspect<'a>>,
    /// Neither: they drain, stopped or never grew.
    pub quiet: Vec<(&'a GroupSeries, Standing)>,
}

impl<'a> Findings<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut findings =
            Self { leaking: Vec::new(), watched: Vec::new(), too_early: Vec::new(), quiet: Vec::new() };
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
    pub(super) fn spare_peers(&mut self, history: &History) {
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
    pub(super) fn too_early_matters(&self) -> bool {
        self.too_early.iter().any(|s| {
            turnover::wait(s.group()) <= Wait::Soft
                && s.rise.net >= 8.0
                && s.rise.drain <= 0.02
                && s.rise.steps >= 3
        })
    }

    /// The group that rose with memory by `grown` bytes and is healthy all the same.
    pub(super) fn risen(&self, grown: f64) -> Option<(&'a GroupSeries, Standing)> {
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
        (gain(series) > 0.2 * grown && !matches!(standing, Standing::Steady)).then_some((*series, *standing))
    }
}
