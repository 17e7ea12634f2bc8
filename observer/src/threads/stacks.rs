//! The stacks of threads that are new or have moved: read, checked against the wait they belong to, and given frames.
//!
//! Reads the target's stacks through the unwinders; gives each thread its group. Each stack is read once a wait and
//! symbolized once a place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::blocked::BlockedThread;
use super::reader::{MAX_PLACES, StackKey, ThreadReader, ThreadSample};
use super::tracked::{Sleeper, Tracked};
use super::{futex, procfs};
use crate::process::maps::{self, Mapping};
use crate::sample::group_id;
use crate::sample::{Degraded, GroupId, GroupKind, Losses, StackEnd, lose};
use crate::symbol;
use crate::unwind::{End, Registers};

impl ThreadReader {
    pub(super) fn remap(&mut self) {
        if let Ok(maps) = maps::read(self.pid)
            && !maps.is_empty()
        {
            self.unwinder.remap(&maps);
            self.maps = maps;
        }
    }

    pub(super) fn mapping(&self, address: u64) -> Option<&Mapping> {
        maps::at(&self.maps, address)
    }

    pub(super) fn read_stacks(
        &mut self,
        moved: Vec<(&BlockedThread, futex::Wait, Option<GroupId>)>,
        now: f64,
        sleepers: &mut Vec<Sleeper>,
        sample: &mut ThreadSample,
    ) {
        let mut read = Vec::with_capacity(moved.len());
        let (mut torn, mut truncated) = (0, 0);
        for (visit, wait, before) in moved {
            let registers = Registers { ip: visit.ip, sp: visit.sp, bp: visit.bp, lr: visit.lr };
            let stack = self.unwinder.unwind(&registers);
            // It slept when the census came by; the stack is that sleep's only if it sleeps it still.
            if !procfs::still_there(self.pid, visit) {
                torn += 1;
                continue;
            }
            truncated += u64::from(stack.end == End::Truncated);
            let lacks = stack.lacks();
            let key: StackKey = (wait.reason, stack.addresses.into());
            read.push((visit, wait, before, lacks, key));
        }
        lose(&mut sample.losses, "threads_moved_while_read", torn);
        lose(&mut sample.losses, "thread_stacks_truncated", truncated);
        let keys: Vec<&StackKey> = read.iter().map(|(.., key)| key).collect();
        let groups = self.identify(&keys, &mut sample.losses);
        for ((visit, wait, before, lacks, _), group) in read.into_iter().zip(groups) {
            let tracked = Tracked {
                started: visit.started,
                voluntary_switches: visit.voluntary_switches,
                sp: visit.sp,
                ip: visit.ip,
                wait,
                first_seen: now,
                group,
                stack_end: lacks,
                // It may have grown since it was measured.
                stack_bytes: None,
                no_lock: false,
            };
            sleepers.push(Sleeper {
                tid: visit.tid,
                now: tracked,
                before,
                ran: true,
                comm: visit.comm,
                lock: None,
            });
        }
    }

    /// The group of each stack; what is new is symbolized in one go.
    pub(super) fn identify(&mut self, keys: &[&StackKey], losses: &mut Losses) -> Vec<GroupId> {
        let mut new = HashSet::new();
        let mut known = HashMap::new();
        for &key in keys {
            if known.contains_key(key) || new.contains(key) {
                continue;
            }
            match self.stacks.get(key) {
                Some((id, frames)) => {
                    self.places.entry(id).or_insert(frames);
                    known.insert(key, id);
                }
                None => {
                    new.insert(key);
                }
            }
        }
        let mut new: Vec<&StackKey> = new.into_iter().collect();
        // Beyond that many different stacks at a time, those of one reason are one group without a stack.
        new.sort_unstable();
        new.truncate(MAX_PLACES.saturating_sub(self.places.len()));
        let stacks: Vec<&[u64]> = new.iter().map(|(_, addresses)| &**addresses).collect();
        for (key, frames) in new.iter().zip(symbol::stacks(&mut *self.symbolizer, &stacks)) {
            let id = group_id::of_group(GroupKind::Thread, key.0, &frames);
            self.stacks.insert((*key).clone(), (id, Arc::clone(&frames)));
            self.places.entry(id).or_insert(frames);
            known.insert(key, id);
        }
        keys.iter()
            .map(|key| {
                known.get(*key).copied().unwrap_or_else(|| {
                    let id = group_id::of_group(GroupKind::Thread, key.0, &[]);
                    self.places.entry(id).or_insert_with(|| Arc::new([]));
                    lose(losses, "thread_stacks_left_out", 1);
                    id
                })
            })
            .collect()
    }
}

pub(super) fn tell_of_cut_stacks(sleepers: &[Sleeper], by_kernel: bool, sample: &mut ThreadSample) {
    let cut = sleepers.iter().filter(|sleeper| sleeper.now.stack_end == Some(StackEnd::Unknown)).count();
    if cut == 0 {
        return;
    }
    let (why, remedy) = if by_kernel {
        (
            "code without call frame information or frame pointers",
            "build the target with -fasynchronous-unwind-tables or -fno-omit-frame-pointer",
        )
    } else {
        (
            "/proc does not tell the frame pointer, which the code there needs",
            "run observer with its eBPF part (CAP_BPF and CAP_PERFMON)",
        )
    };
    sample.degraded.push(Degraded {
        feature: "thread stacks".to_owned(),
        reason: format!("{cut} of {} thread stacks end early: {why}", sleepers.len()),
        remedy: remedy.to_owned(),
    });
}
