//! The language runtimes of a process: what each tells of its tasks, its heap and its code.
//!
//! A runtime is a folder here with an `open` in [`RUNTIMES`]; nobody else knows its name. A process is asked for all
//! of them in order and may hold several. Reads the target's memory through the folders; costs what they cost.

pub(crate) mod detect;
pub mod go;
pub mod interface;
pub(crate) mod retention;
pub(crate) mod tasks;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::process::Exited;
use crate::process::code::RuntimeCode;
use crate::sample::{GroupId, GroupKind, Retained, Sample, TargetInfo, lose};
use crate::symbol::Symbolizer;
use interface::{Open, Refused, Runtime, RuntimeError};
use retention::KeepsHeap;

/// The runtimes whose tasks are read, in the order in which a process is asked for them, with the name that people
/// write.
const RUNTIMES: &[(&str, Open)] = &[("Go", go::open::open)];

/// All runtimes of one process image.
#[derive(Default)]
pub struct Runtimes {
    readers: Vec<Box<dyn Runtime>>,
    refused: Vec<Refused>,
}

impl Runtimes {
    /// Asks `pid` for each runtime, and notes the first that it has in `info`.
    pub fn open(pid: u32, info: &mut TargetInfo) -> Self {
        let mut runtimes = Self::default();
        for (_, open) in RUNTIMES {
            match open(pid) {
                Ok(reader) => runtimes.readers.extend(reader),
                Err(refused) => runtimes.refused.push(*refused),
            }
        }
        let known = runtimes.readers.first().map(|reader| reader.info());
        let refused = || runtimes.refused.iter().find_map(|refused| refused.info.clone());
        if let Some(runtime) = known.or_else(refused) {
            info.runtime = runtime;
        } else if runtimes.refused.is_empty() {
            info.runtime = detect::of(pid);
        }
        runtimes
    }

    /// The names of all runtimes that are looked for.
    pub fn names() -> Vec<&'static str> {
        RUNTIMES.iter().map(|(name, _)| *name).collect()
    }

    pub fn readers(&mut self) -> &mut [Box<dyn Runtime>] {
        &mut self.readers
    }

    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Fills in groups, totals and the runtimes' part of the memory.
    pub fn sample_into(&mut self, sample: &mut Sample) -> Result<(), Exited> {
        sample.degraded.extend(self.refused.iter().map(|refused| refused.degraded.clone()));
        for reader in &mut self.readers {
            match reader.tasks(sample.at_seconds) {
                Ok(tasks) => {
                    sample.groups.extend(tasks.groups);
                    *sample.totals.tasks.get_or_insert_default() += tasks.alive;
                    sample.totals.groups += tasks.groups_total;
                    sample.totals.members_left_out += tasks.members_left_out;
                    sample.deadlocks.extend(tasks.deadlocks);
                    for (name, lost) in tasks.losses {
                        lose(&mut sample.losses, &name, lost);
                    }
                    sample.degraded.extend(tasks.degraded);
                }
                Err(RuntimeError::Exited) => return Err(Exited),
                Err(RuntimeError::Unreadable(degraded)) => sample.degraded.push(degraded),
            }
            match reader.heap() {
                Ok(heap) => sample.memory.heap = sample.memory.heap.take().or(heap),
                Err(RuntimeError::Exited) => return Err(Exited),
                Err(RuntimeError::Unreadable(degraded)) => sample.degraded.push(degraded),
            }
        }
        Ok(())
    }

    /// Name the runtimes' code in stacks that others walked, those first that come first.
    pub fn symbolizers(&self) -> Vec<Box<dyn Symbolizer>> {
        self.readers.iter().filter_map(|reader| reader.symbolizer()).collect()
    }

    /// The code of all of them, also of those that cannot be read.
    pub fn code(&self) -> RuntimeCode {
        let read = self.readers.iter().map(|reader| reader.code());
        let refused = self.refused.iter().map(|refused| refused.code.clone());
        read.chain(refused).reduce(RuntimeCode::and).unwrap_or_default()
    }
}

impl KeepsHeap for Runtimes {
    fn has(&self, kind: GroupKind) -> bool {
        self.readers.iter().any(|reader| reader.kind() == kind)
    }

    fn retained(&mut self, groups: &[(GroupKind, GroupId)], time: Duration) -> BTreeMap<GroupId, Retained> {
        let mut found = BTreeMap::new();
        for reader in &mut self.readers {
            let kind = reader.kind();
            let own: Vec<GroupId> =
                groups.iter().filter(|group| group.0 == kind).map(|group| group.1).collect();
            if !own.is_empty() {
                found.extend(reader.retained(&own, time));
            }
        }
        found
    }
}
