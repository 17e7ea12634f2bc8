//! Exec, exit and fork of targets.

use aya::maps::{MapData, RingBuf};
use observer_common::lifecycle::{EXEC, EXIT, Event, FORK};

use super::error::KernelError;
use super::events::{Change, LifecycleEvent};
use super::features::{self, Feature, State};
use super::maps::take_map;
use super::options::KernelOptions;
use super::source::{Drained, Object, Source};
use super::targets::Targets;

const PROCESS: &str = "tp_btf/sched_process_*";

/// Events taken from the ring in one go; the rest waits for the next.
const MAX_EVENTS: usize = 1 << 14;

pub(super) struct Lifecycle {
    events: RingBuf<MapData>,
}

impl Source for Lifecycle {
    fn load(from: &mut Object<'_>, _: &KernelOptions) -> Result<(Option<Self>, Feature), KernelError> {
        for (name, event) in [
            ("lifecycle_exec", "sched_process_exec"),
            ("lifecycle_exit", "sched_process_exit"),
            ("lifecycle_fork", "sched_process_fork"),
        ] {
            if let Err(error) = from.tracepoint(name, event) {
                let state =
                    State::Unavailable { instead: "exec and exit are noticed at the next sample only" };
                return Ok((None, Feature::of("lifecycle", state, vec![features::refusal(PROCESS, &error)])));
            }
        }
        let source = Self { events: take_map(from.ebpf, "EVENTS", RingBuf::try_from)? };
        let state = State::On { hook: PROCESS, cost: "a test at each start and end of a thread" };
        Ok((Some(source), Feature::of("lifecycle", state, Vec::new())))
    }

    fn drain(&mut self, targets: &Targets, into: &mut Drained) {
        let events = &mut into.lifecycle;
        // Bounded: a target may fork as fast as we read.
        for _ in 0..MAX_EVENTS {
            let Some(item) = self.events.next() else { break };
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
            let Some(pid) = targets.pid_of(event.slot, event.global_tgid) else { continue };
            // Threads that end at once may each see that they are the last.
            let exited =
                |event: &LifecycleEvent| event.pid == pid && matches!(event.change, Change::Exit { .. });
            if !(matches!(change, Change::Exit { .. }) && events.iter().any(exited)) {
                events.push(LifecycleEvent { pid, time: event.time, change });
            }
        }
    }
}
