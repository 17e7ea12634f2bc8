//! Circles of threads, each looked at twice before it is told.
//!
//! Reads the words of the cycle's locks and where its threads are a second time: 5 ms and some 30 µs a thread, once.

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::Duration;

use super::cycles::{self, Cycle};
use super::found::Owner;
use super::owners::ThreadTable;
use super::recognise::lock;
use super::remembered::Link;
use super::words;
use crate::process::memory::RemoteMemory;
use crate::sample::{Deadlock, DeadlockedThread, lose};
use crate::threads::procfs;
use crate::threads::reader::{ThreadReader, ThreadSample};
use crate::threads::tracked::{Sleeper, Tracked};

/// Deadlocks told in one sample.
const MAX_DEADLOCKS: usize = 16;
/// Threads of one cycle that are told with their stacks.
const MAX_TOLD: usize = 32;
/// Circles of more threads are not followed.
const MAX_CYCLE: usize = 4096;
/// Between two looks at a cycle.
const SECOND_LOOK: Duration = Duration::from_millis(5);

fn link(tid: u32, now: &Tracked) -> Link {
    (tid, now.started, now.voluntary_switches, now.wait.address)
}

impl ThreadReader {
    /// Threads that wait in a cycle, each seen twice in the same wait.
    pub(super) fn deadlocks(
        &mut self,
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &ThreadTable<'_>,
        memory: RemoteMemory,
        at: f64,
        sample: &mut ThreadSample,
    ) -> Vec<Deadlock> {
        // Who has set itself a time goes on when it is over.
        let waits_for: BTreeMap<u32, u32> = sleeping
            .values()
            .filter(|sleeper| !sleeper.now.wait.timed)
            .filter_map(|sleeper| match sleeper.lock?.owner {
                Owner::Thread(owner) => Some((sleeper.tid, owner)),
                _ => None,
            })
            .collect();
        let mut cycles = cycles::find(&waits_for);
        let seen = cycles.len();
        cycles.retain(|cycle| cycle.threads.len() <= MAX_CYCLE);
        cycles.sort_by_key(|cycle| std::cmp::Reverse(cycle.threads.len() as u64 + cycle.behind));
        cycles.truncate(MAX_DEADLOCKS);
        lose(&mut sample.losses, "deadlocks_left_out", (seen - cycles.len()) as u64);
        let links = |cycle: &Cycle| -> Vec<Link> {
            let waits = cycle.threads.iter().filter_map(|tid| sleeping.get(tid));
            waits.map(|sleeper| link(sleeper.tid, &sleeper.now)).collect()
        };
        let known = |cycle: &Cycle| self.remembered.confirmed.contains(&links(cycle));
        if cycles.iter().any(|cycle| !known(cycle)) {
            thread::sleep(SECOND_LOOK);
            cycles.retain(|cycle| known(cycle) || self.still_waits(cycle, sleeping, crowd, memory));
        }
        let told = cycles.iter().map(|cycle| self.tell(cycle, sleeping, crowd, at)).collect();
        self.remembered.confirmed = cycles.iter().map(links).collect();
        told
    }

    /// Whether all threads of a cycle still are in the same waits for the same owners, and did not run meanwhile.
    fn still_waits(
        &self,
        cycle: &Cycle,
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &ThreadTable<'_>,
        memory: RemoteMemory,
    ) -> bool {
        let sleepers: Vec<&Sleeper> =
            cycle.threads.iter().filter_map(|tid| sleeping.get(tid).copied()).collect();
        let addresses: Vec<u64> = sleepers.iter().map(|sleeper| sleeper.now.wait.address).collect();
        let Ok(words) = words::read(memory, &addresses) else { return false };
        sleepers.len() == cycle.threads.len()
            && sleepers.iter().all(|sleeper| {
                let now = &sleeper.now;
                let again = words
                    .get(&now.wait.address)
                    .and_then(|words| lock(&now.wait, words, self.name(now), crowd));
                again == sleeper.lock && sleeps_on(self.pid, sleeper.tid, now)
            })
    }

    fn tell(
        &self,
        cycle: &Cycle,
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &ThreadTable<'_>,
        at: f64,
    ) -> Deadlock {
        let next = cycle.threads.iter().cycle().skip(1);
        let threads = cycle.threads.iter().zip(next).take(MAX_TOLD).filter_map(|(&tid, &held_by)| {
            let sleeper = sleeping.get(&tid)?;
            let number = crowd.number(tid);
            Some(DeadlockedThread {
                tid,
                namespace_tid: (number != tid).then_some(number),
                name: crowd.name(tid),
                wait_reason: self.name(&sleeper.now).reason.into(),
                waits_for: sleeper.lock.map_or("", |lock| lock.kind).into(),
                address: sleeper.now.wait.address,
                held_by,
                wait_seconds: (at - sleeper.now.first_seen).max(0.0),
                site: None,
                frames: self.places.get(&sleeper.now.group).cloned().unwrap_or_default(),
            })
        });
        Deadlock {
            description: String::new(),
            threads: threads.collect(),
            length: cycle.threads.len() as u64,
            also_waiting: cycle.behind,
        }
    }
}

/// Whether a thread has not run since it was visited.
fn sleeps_on(pid: u32, tid: u32, before: &Tracked) -> bool {
    procfs::look(pid, tid).is_some_and(|now| {
        now.voluntary_switches == before.voluntary_switches
            && now.call.is_some_and(|call| (call.sp, call.ip) == (before.sp, before.ip))
    })
}
