//! Exec, exit and fork of targets, and how many of their threads came and went.

use aya::maps::{MapData, MapError, PerCpuArray, RingBuf};
use observer_common::lifecycle::{EXEC, EXIT, Event, FORK, ThreadCounters};

/// What happened to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It runs another program: maps and symbols are no longer what they were.
    Exec,
    /// Its last thread ended; the status is as `wait(2)` gives it.
    Exit { status: u32 },
    /// It has a child process, by its pid in the initial namespace. The child is no target by that.
    Fork { child_global_tgid: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifecycleEvent {
    /// Of the target, in our PID namespace.
    pub pid: u32,
    /// Monotonic nanoseconds.
    pub time: u64,
    pub change: Change,
}

/// Threads of a target that came and went since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTurnover {
    pub created: u64,
    pub exited: u64,
}

pub(super) struct Lifecycle {
    pub(super) events: RingBuf<MapData>,
    pub(super) threads: PerCpuArray<MapData, ThreadCounters>,
}

impl Lifecycle {
    /// Events since the last call. `pid_of` knows the pid of the target in a slot with that global tgid.
    pub(super) fn drain(&mut self, pid_of: impl Fn(u32, u32) -> Option<u32>) -> Vec<LifecycleEvent> {
        let mut events: Vec<LifecycleEvent> = Vec::new();
        while let Some(item) = self.events.next() {
            if item.len() < size_of::<Event>() {
                continue;
            }
            // SAFETY: the item holds a whole event, which is plain integers; the read needs no alignment.
            let event = unsafe { item.as_ptr().cast::<Event>().read_unaligned() };
            let change = match event.kind {
                EXEC => Change::Exec,
                EXIT => Change::Exit { status: event.detail },
                FORK => Change::Fork { child_global_tgid: event.detail },
                _ => continue,
            };
            let Some(pid) = pid_of(event.slot, event.global_tgid) else { continue };
            // Threads that end at once may each see that they are the last.
            let exited =
                |event: &LifecycleEvent| event.pid == pid && matches!(event.change, Change::Exit { .. });
            if !(matches!(change, Change::Exit { .. }) && events.iter().any(exited)) {
                events.push(LifecycleEvent { pid, time: event.time, change });
            }
        }
        events
    }

    pub(super) fn threads(&self, slot: u32) -> Result<ThreadTurnover, MapError> {
        Ok(self.threads.get(&slot, 0)?.iter().fold(ThreadTurnover::default(), |sum, counters| {
            ThreadTurnover { created: sum.created + counters.created, exited: sum.exited + counters.exited }
        }))
    }
}
