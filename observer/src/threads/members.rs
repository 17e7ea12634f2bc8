//! From sleeping threads to groups: who came, who left, who ran in between, and what their stacks take.
//!
//! Reads the residency of a bounded number of stacks a sample; the rest is arithmetic.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::comm::Comms;
use super::locks::found::{Found, Owner};
use super::naming::{self, Name};
use super::reader::{MAX_GROUPS, MAX_MEASURED_STACKS, MAX_STACK_PAGES, ThreadReader, ThreadSample};
use super::syscall;
use super::tracked::Sleeper;
use crate::memory::{pagemap, smaps};
use crate::sample::{Frame, Group, GroupId, GroupKind, GroupState, Holder, StackEnd, WaitsOn, lose};

/// Holders told of a group.
const HOLDERS: usize = 3;

impl ThreadReader {
    /// Measures the resident stack of some threads that have not been measured since they came here.
    pub(super) fn measure_stacks(&mut self, sleepers: &mut [Sleeper], at_seconds: f64) {
        let page = pagemap::page_bytes();
        let mut unmeasured =
            sleepers.iter_mut().filter(|sleeper| sleeper.now.stack_bytes.is_none()).peekable();
        if self.pagemap.is_none() && unmeasured.peek().is_some() {
            // Of an unfinished look, or none yet, they stay unmeasured until the next.
            let Ok(Some(mappings)) = self.smaps.look(at_seconds) else { return };
            for sleeper in unmeasured {
                let at = smaps::at(&mappings, sleeper.now.sp / page);
                let bytes = at.map_or(0, |held| held.pages.min(MAX_STACK_PAGES) * page);
                sleeper.now.stack_bytes = Some(bytes);
            }
            return;
        }
        for sleeper in unmeasured.take(MAX_MEASURED_STACKS) {
            let Some(mapping) = self.mapping(sleeper.now.sp) else { continue };
            let (start, end) = (mapping.start, mapping.end);
            let Some(pagemap) = self.pagemap.as_mut() else { return };
            // A mapping beyond the bound is measured from its top, where a stack begins.
            let start = start.max(end.saturating_sub(MAX_STACK_PAGES * page));
            sleeper.now.stack_bytes =
                pagemap.resident_pages(start, end, MAX_STACK_PAGES).ok().map(|n| n * page);
        }
    }

    /// Makes the groups, and remembers this moment for the next.
    pub(super) fn group(
        &mut self,
        now: f64,
        sleepers: Vec<Sleeper>,
        locks: &Found,
        sample: &mut ThreadSample,
    ) {
        let mut groups: BTreeMap<GroupId, Members> = BTreeMap::new();
        let mut threads = HashMap::with_capacity(sleepers.len());
        for sleeper in sleepers {
            groups.entry(sleeper.now.group).or_default().add(&sleeper, locks);
            threads.insert(sleeper.tid, sleeper.now);
        }
        for (tid, before) in &self.threads {
            let stayed = threads
                .get(tid)
                .is_some_and(|now| (now.started, now.group) == (before.started, before.group));
            if !stayed {
                groups.entry(before.group).or_default().left += 1;
            }
        }
        self.threads = threads;
        let mut all: Vec<Group> = groups
            .into_iter()
            .filter_map(|(id, members)| {
                let frames = self.places.get(&id)?;
                // Of a group that all have left there is none, and nothing to tell.
                let name = *self.names.get(&id)?;
                members.into_group(id, frames, name, now, (self.pid, self.first), locks)
            })
            .collect();
        let present: HashSet<GroupId> = all.iter().map(|group| group.id).collect();
        self.places.retain(|id, _| present.contains(id));
        self.names.retain(|id, _| present.contains(id));
        all.sort_by(|a, b| b.count.cmp(&a.count).then(a.id.cmp(&b.id)));
        sample.groups_total = all.len() as u64;
        sample.members_left_out = all.iter().skip(MAX_GROUPS).map(|group| group.count).sum();
        all.truncate(MAX_GROUPS);
        lose(&mut sample.losses, "thread_groups_left_out", sample.groups_total - all.len() as u64);
        sample.groups = all;
    }
}

/// What is summed up over the members of a group.
#[derive(Default)]
struct Members {
    count: u64,
    joined: u64,
    left: u64,
    moved: u64,
    timed: u64,
    operation: &'static str,
    stack_end: Option<StackEnd>,
    first_seen: Option<f64>,
    measured: u64,
    measured_bytes: u64,
    objects: HashSet<u64>,
    comms: Comms,
    most_waiters: u64,
    owners: HashMap<Owner, u64>,
}

impl Members {
    fn add(&mut self, sleeper: &Sleeper, locks: &Found) {
        let now = &sleeper.now;
        self.count += 1;
        if sleeper.before != Some(now.group) {
            self.joined += 1;
        } else if sleeper.ran {
            self.moved += 1;
        }
        self.timed += u64::from(now.wait.timed);
        self.operation = now.wait.reason;
        self.stack_end = self.stack_end.max(now.stack_end);
        self.first_seen = Some(self.first_seen.map_or(now.first_seen, |first| first.min(now.first_seen)));
        self.objects.insert(now.wait.address);
        self.comms.add(sleeper.comm);
        self.most_waiters = self.most_waiters.max(locks.waiters.get(&now.wait.address).copied().unwrap_or(0));
        if let Some(lock) = sleeper.lock {
            *self.owners.entry(lock.owner).or_default() += 1;
        }
        if let Some(bytes) = now.stack_bytes {
            self.measured += 1;
            self.measured_bytes = self.measured_bytes.saturating_add(bytes);
        }
    }

    /// `None` for a group that all have left.
    fn into_group(
        self,
        id: GroupId,
        frames: &Arc<[Frame]>,
        name: Name,
        now: f64,
        (pid, first): (u32, bool),
        locks: &Found,
    ) -> Option<Group> {
        let objects = self.objects.len() as u64;
        // Members that were not measured count as the mean of those that were.
        let scaled =
            u128::from(self.measured_bytes) * u128::from(self.count) / u128::from(self.measured.max(1));
        let note = self.note(name);
        let waits_on = if syscall::is_one(self.operation) {
            syscall::waits_on(pid, self.operation, &self.objects, note.as_deref())
        } else {
            Some(WaitsOn {
                kind: name.kind.into(),
                objects,
                operation: Some(self.operation.to_owned()),
                address: self.objects.iter().next().copied().filter(|_| objects == 1),
                note,
                most_waiters: (self.most_waiters > 1).then_some(self.most_waiters),
                holders: self.holders(locks),
                ..WaitsOn::default()
            })
        };
        (self.count > 0).then(|| Group {
            id,
            kind: GroupKind::Thread,
            state: GroupState::Sleeping,
            wait_reason: name.reason.into(),
            count: self.count,
            joined: if first { 0 } else { self.joined },
            left: self.left,
            moved: self.moved,
            oldest_wait_seconds: self.first_seen.map(|first| (now - first).max(0.0)),
            stack_bytes: u64::try_from(scaled).unwrap_or(u64::MAX),
            frames: Arc::clone(frames),
            stack_end: self.stack_end,
            waits_on,
            thread_names: self.comms.shown(),
            ..Group::default()
        })
    }

    /// The threads that most of the members wait for.
    fn holders(&self, locks: &Found) -> Vec<Holder> {
        let mut owners: Vec<(Owner, u64)> = self.owners.iter().map(|(owner, n)| (*owner, *n)).collect();
        owners.sort_unstable_by_key(|&(owner, waiters)| (Reverse(waiters), owner));
        owners
            .into_iter()
            .filter_map(|(owner, waiters)| Some(Holder { waiters, ..locks.holders.get(&owner)?.clone() }))
            .take(HOLDERS)
            .collect()
    }

    /// What else is known, in words.
    fn note(&self, name: Name) -> Option<String> {
        let mut notes = Vec::new();
        match self.timed {
            0 => {}
            timed if timed == self.count => notes.push("with a timeout".to_owned()),
            timed => notes.push(format!("{timed} of them with a timeout")),
        }
        let readers = self.owners.keys().filter_map(|owner| match owner {
            Owner::Readers(readers) => Some(*readers),
            _ => None,
        });
        if let Some(readers) = readers.max() {
            let noun = if readers == 1 { "reader, who is" } else { "readers, who are" };
            notes.push(format!("held by {readers} {noun} not recorded"));
        } else if self.owners.contains_key(&Owner::Unrecorded) || name.owner == naming::Owner::NotRecorded {
            notes.push("owner not recorded".to_owned());
        }
        (!notes.is_empty()).then(|| notes.join(", "))
    }
}
