//! Who is observed under which name: begins, follows over restarts, ends and forgets.
//!
//! Reads what was discovered and how the followers are; starts and stops followers. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::drain::Routes;
use super::sampler::{Carried, Phase, Shared, TargetSampler, unix_now};
use crate::board::TargetState;
use crate::sample::{Degraded, Sample};
use crate::select::name::Names;
use crate::select::rules::Rule;
use crate::select::scan::{Found, Scan};
use crate::timeline::Timeline;

/// A process that could not be attached to is tried again after this.
const RETRY: Duration = Duration::from_secs(60);
/// A target of which nothing was heard for so long hangs.
const HANGS: f64 = 30.0;

/// What the roster goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    pub targets: usize,
    /// A target that is gone is spoken of for so long.
    pub forget_after: Duration,
    pub interval: Duration,
    /// Of one core, for all targets together.
    pub cpu: f64,
}

/// A name, and whoever has it now.
struct Slot {
    base: String,
    past: Carried,
    follower: Option<TargetSampler>,
    down_since: Instant,
    /// It has been said that it hangs.
    hangs: bool,
}

struct Refusal {
    name: String,
    reason: String,
    at: Instant,
}

pub(super) struct Supervisor {
    common: Arc<Shared>,
    routes: Arc<Routes>,
    limits: Limits,
    names: Names,
    slots: BTreeMap<String, Slot>,
    /// By identity.
    refused: BTreeMap<(u32, u64), Refusal>,
    /// Those that have exited and may still be found, until they are reaped.
    ended: BTreeSet<(u32, u64)>,
    left_out: usize,
}

impl Supervisor {
    pub(super) fn new(common: Arc<Shared>, routes: Arc<Routes>, limits: Limits) -> Self {
        Self {
            common,
            routes,
            limits,
            names: Names::default(),
            slots: BTreeMap::new(),
            refused: BTreeMap::new(),
            ended: BTreeSet::new(),
            left_out: 0,
        }
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes note of who is there; whether that began anything.
    pub(super) fn update(&mut self, look: &Scan, rules: &[Rule]) -> bool {
        self.reap();
        self.stop_those_not_in(look);
        let begun = self.begin_new(look);
        self.forget();
        self.pace();
        self.announce(look, rules);
        begun
    }

    /// Followers that have ended by themselves: the process exited, or could not be attached to.
    pub(super) fn reap(&mut self) {
        let mut over = Vec::new();
        for (name, slot) in &mut self.slots {
            let Some(follower) = &slot.follower else { continue };
            let phase = follower.phase();
            if matches!(phase, Phase::Attaching | Phase::Sampling) {
                continue;
            }
            let key = (follower.pid, follower.start_ticks);
            self.routes.remove(follower.pid);
            slot.follower = None;
            slot.down_since = Instant::now();
            let stopped = phase == Phase::Stopped;
            match phase {
                // It lived too short to be observed: nothing that anybody could mend.
                Phase::Refused(reason) if !is_there(key.0) => {
                    tracing::debug!(target = %name, pid = key.0, "not observed: {reason}");
                }
                Phase::Refused(reason) => {
                    tracing::warn!(target = %name, pid = key.0, "not observed: {reason}");
                    self.refused.insert(key, Refusal { name: name.clone(), reason, at: Instant::now() });
                }
                Phase::Stopped => {
                    tracing::info!(target = %name, pid = key.0, "no rule asks for it under this name any more");
                }
                _ => {
                    tracing::info!(target = %name, pid = key.0, "the process has exited");
                    self.ended.insert(key);
                }
            }
            if stopped || self.common.board.target(name).is_none() {
                over.push(name.clone());
            }
        }
        for name in over {
            self.drop_slot(&name);
        }
        let now = Instant::now();
        self.refused.retain(|_, refusal| now.duration_since(refusal.at) < RETRY);
    }

    /// A process that is gone, or meets no rule any more, or has executed what is called otherwise: a container's first
    /// process is the runtime's own at first. It begins anew once its follower has ended.
    fn stop_those_not_in(&mut self, look: &Scan) {
        for slot in self.slots.values_mut() {
            let Some(follower) = &slot.follower else { continue };
            match look.found.iter().find(|found| is(found, follower)) {
                Some(found) if found.base == slot.base => {}
                None if !is_there(follower.pid) => follower.inbox().look(),
                _ => follower.stop(),
            }
        }
    }

    fn begin_new(&mut self, look: &Scan) -> bool {
        self.left_out = 0;
        self.ended.retain(|(pid, ticks)| {
            look.found.iter().any(|found| (found.pid, found.start_ticks) == (*pid, *ticks))
        });
        let mut begun = false;
        for found in &look.found {
            let key = (found.pid, found.start_ticks);
            let known = self.slots.values().filter_map(|slot| slot.follower.as_ref()).any(|f| is(found, f));
            if known || self.refused.contains_key(&key) || self.ended.contains(&key) {
                continue;
            }
            let observed = self.slots.values().filter(|slot| slot.follower.is_some()).count();
            if observed >= self.limits.targets {
                self.left_out += 1;
                continue;
            }
            self.begin(found);
            begun = true;
        }
        begun
    }

    fn begin(&mut self, found: &Found) {
        // The name of a process that is gone passes on to the next of its kind.
        let heir = self.slots.iter_mut().find(|(_, slot)| slot.follower.is_none() && slot.base == found.base);
        let (name, past) = match heir {
            Some((name, slot)) => {
                slot.past.unread = false;
                slot.past.restarts = self.common.board.target(name).map_or(0, |state| state.restarts) + 1;
                (name.clone(), slot.past.clone())
            }
            None => {
                let name = self.names.take(&found.base);
                let timeline = Arc::new(Mutex::new(Timeline::default()));
                (name, Carried { first_seen: unix_now(), restarts: 0, unread: true, timeline })
            }
        };
        tracing::info!(target = %name, pid = found.pid, restarts = past.restarts, "observing");
        let common = Arc::clone(&self.common);
        let follower =
            match TargetSampler::start(found.pid, found.start_ticks, name.clone(), past.clone(), common) {
                Ok(follower) => {
                    self.routes.add(found.pid, follower.inbox().clone());
                    Some(follower)
                }
                Err(error) => {
                    tracing::error!(target = %name, %error, "no thread to observe it with; trying again");
                    None
                }
            };
        let slot =
            Slot { base: found.base.clone(), past, follower, down_since: Instant::now(), hangs: false };
        self.slots.insert(name, slot);
    }

    /// What is gone for long is not spoken of any more.
    fn forget(&mut self) {
        let gone =
            |slot: &Slot| slot.follower.is_none() && slot.down_since.elapsed() >= self.limits.forget_after;
        let names: Vec<String> =
            self.slots.iter().filter(|(_, slot)| gone(slot)).map(|(name, _)| name.clone()).collect();
        for name in names {
            tracing::info!(target = %name, "forgotten");
            self.drop_slot(&name);
        }
    }

    fn drop_slot(&mut self, name: &str) {
        self.slots.remove(name);
        self.names.free(name);
        self.common.board.forget(name);
    }

    fn pace(&self) {
        let observed = self.slots.values().filter(|slot| slot.follower.is_some()).count();
        self.common.pace.set(self.limits.interval, self.limits.cpu / observed.max(1) as f64);
    }

    /// Rules that nobody meets, processes that cannot be observed, targets that hang.
    fn announce(&mut self, look: &Scan, rules: &[Rule]) {
        let unmet = (0..rules.len()).filter(|rule| !look.found.iter().any(|found| found.rule == *rule));
        let mut awaited: Vec<String> = unmet
            .filter_map(|rule| rules.get(rule))
            .map(|rule| format!("no process with {}", rule.words()))
            .collect();
        awaited.extend(self.refused.iter().map(|((pid, _), refusal)| {
            format!("{} (pid {pid}) is not observed: {}", refusal.name, refusal.reason)
        }));
        if self.left_out > 0 {
            awaited.push(format!(
                "{} more processes are not observed: the limit is {} (raise sampling.targets)",
                self.left_out, self.limits.targets
            ));
        }
        if let Some(trouble) = self.common.pods.trouble() {
            awaited.push(format!("the node's pods are not known: {trouble}"));
        }
        self.common.board.set_awaited(awaited);
        let now = unix_now();
        for (name, slot) in &mut self.slots {
            let Some(state) = self.common.board.target(name).filter(|_| slot.follower.is_some()) else {
                continue;
            };
            let silent = now - state.last_sampled;
            let hangs = state.up && silent > HANGS.max(5.0 * state.interval_seconds);
            if hangs && !slot.hangs {
                tracing::warn!(target = %name, "no sample for {silent:.0} s: reading the process hangs");
                self.common.board.publish(hanging(&state, silent));
            }
            slot.hangs = hangs;
        }
    }

    /// Ends every follower; how many had to be left behind.
    pub(super) fn stop(self, until: Instant) -> usize {
        let followers: Vec<TargetSampler> =
            self.slots.into_values().filter_map(|slot| slot.follower).collect();
        for follower in &followers {
            self.routes.remove(follower.pid);
            follower.stop();
        }
        followers.into_iter().map(|follower| follower.join(until)).filter(|joined| !joined).count()
    }
}

fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn is(found: &Found, follower: &TargetSampler) -> bool {
    found.pid == follower.pid && found.start_ticks == follower.start_ticks
}

fn hanging(state: &TargetState, silent: f64) -> TargetState {
    let mut sample = Sample::clone(&state.sample);
    sample.degraded.push(Degraded {
        feature: "sampling".to_owned(),
        reason: format!(
            "no sample for {silent:.0} s: reading the process hangs, as it does in uninterruptible sleep"
        ),
        remedy: "look at its state with `ps -o stat,wchan`; sampling goes on when it does".to_owned(),
    });
    TargetState { sample: Arc::new(sample), ..state.clone() }
}
