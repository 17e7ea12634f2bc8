//! What the holders of locks do: asleep themselves, running, gone, in another process.
//!
//! Reads the census or `/proc`, and the stack of a holder that is in no group. Some 20 µs each.

use std::collections::HashMap;
use std::sync::Arc;

use super::found::Owner;
use super::owners::{self, State, ThreadId, ThreadTable};
use crate::sample::{Frame, Holder, HolderState};
use crate::symbol;
use crate::threads::blocked::BlockedThread;
use crate::threads::procfs;
use crate::threads::reader::ThreadReader;
use crate::threads::tracked::Sleeper;
use crate::unwind::{End, Registers};

/// Owners told of in one sample, those that most wait for.
const MAX_HOLDERS: usize = 256;

impl ThreadReader {
    /// What is to be told of each owner.
    pub(super) fn holders(
        &mut self,
        sleepers: &[Sleeper],
        sleeping: &HashMap<u32, &Sleeper>,
        crowd: &ThreadTable<'_>,
    ) -> HashMap<Owner, Holder> {
        let mut waiters: HashMap<Owner, u64> = HashMap::new();
        for lock in sleepers.iter().filter_map(|sleeper| sleeper.lock) {
            *waiters.entry(lock.owner).or_default() += 1;
        }
        let mut owners: Vec<(Owner, u64)> = waiters.into_iter().collect();
        owners.sort_unstable_by_key(|&(owner, waiters)| (std::cmp::Reverse(waiters), owner));
        let mut stacks = HashMap::new();
        let mut mapped = false;
        let mut holders = HashMap::new();
        for (owner, _) in owners.into_iter().take(MAX_HOLDERS) {
            let holder = match owner {
                Owner::Thread(tid) => match sleeping.get(&tid) {
                    Some(sleeper) => self.sleeping_holder(sleeper, crowd),
                    None => {
                        let Some(person) = crowd.person(tid) else { continue };
                        let frames = self.stack_of(tid, &person, &mut mapped);
                        stacks.insert(tid, (person.clone(), Arc::clone(&frames)));
                        other_holder(tid, person, frames)
                    }
                },
                Owner::Elsewhere(number) => {
                    let known = crowd.shares_numbers().then(|| owners::anywhere(number)).flatten();
                    let (process, name) = known.unzip();
                    Holder {
                        tid: number,
                        name: name.unwrap_or_default(),
                        state: HolderState::Elsewhere,
                        process,
                        ..Holder::default()
                    }
                }
                Owner::Unrecorded | Owner::Readers(_) => continue,
            };
            holders.insert(owner, holder);
        }
        self.remembered.stacks = stacks;
        holders
    }

    fn sleeping_holder(&self, sleeper: &Sleeper, crowd: &ThreadTable<'_>) -> Holder {
        Holder {
            tid: sleeper.tid,
            name: crowd.name(sleeper.tid),
            state: HolderState::Sleeping,
            waits_in: Some(self.name(&sleeper.now).reason.into()),
            waits_for: sleeper.lock.and_then(|lock| match lock.owner {
                Owner::Thread(tid) => Some(tid),
                _ => None,
            }),
            frames: self.places.get(&sleeper.now.group).cloned().unwrap_or_default(),
            ..Holder::default()
        }
    }

    /// The stack of an owner that is in no group: asleep elsewhere, or running.
    fn stack_of(&mut self, tid: u32, person: &ThreadId, mapped: &mut bool) -> Arc<[Frame]> {
        if let Some((before, frames)) = self.remembered.stacks.get(&tid)
            && before == person
            && person.state != State::Running
        {
            return Arc::clone(frames);
        }
        let Some(registers) = person.registers.filter(|_| person.state != State::Ended) else {
            return Arc::default();
        };
        if !std::mem::replace(mapped, true) {
            self.remap();
        }
        let Registers { ip, sp, bp, lr } = registers;
        let mut stack = self.unwinder.unwind(&registers);
        let stays =
            procfs::still_there(self.pid, &BlockedThread { tid, ip, sp, bp, lr, ..BlockedThread::default() });
        if person.state == State::Running && (stack.end != End::Root || stack.guessed) {
            // It was there when it last entered the kernel; what lies on its stack has changed since.
            stack.addresses.truncate(1);
        } else if person.state != State::Running && !stays {
            return Arc::default();
        }
        symbol::stacks(&mut *self.symbolizer, &[&stack.addresses]).pop().unwrap_or_default()
    }
}

fn other_holder(tid: u32, person: ThreadId, frames: Arc<[Frame]>) -> Holder {
    let state = match person.state {
        State::Running => HolderState::Running,
        State::Sleeping => HolderState::Sleeping,
        State::Stopped => HolderState::Stopped,
        State::Ended => HolderState::Ended,
    };
    Holder { tid, name: person.name, state, frames, ..Holder::default() }
}
