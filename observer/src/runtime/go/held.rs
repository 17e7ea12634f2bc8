//! Memory of a Go process: how much of its heap and stacks is in use, and which groups keep the heap.

use std::collections::{BTreeMap, HashMap};

use super::retain::{self, MAX_GROUPS, RetainBudget, Roots};
use super::spans::SpanReader;
use super::{GoError, GoReader};
use crate::sample::{GroupId, HeapUsage, Retained};

impl GoReader {
    /// Heap and stacks in use. Costs about 0.7 ms for 80 MiB of heap, the first time some 10 ms more.
    pub fn memory(&mut self) -> Result<HeapUsage, GoError> {
        let pid = self.pid;
        let spans = self.spans()?;
        spans.memory().map_err(|source| GoError::of(pid, source))
    }

    /// What groups of the last sample keep reachable, for as many of them as can be told apart (60), in the
    /// order given. A group that is not in the result could not be measured. See [`retain`] for what it costs.
    pub fn retained(&mut self, groups: &[GroupId], budget: RetainBudget) -> BTreeMap<GroupId, Retained> {
        let groups = &groups[..groups.len().min(MAX_GROUPS)];
        match self.measure(groups, budget) {
            Ok(measured) => groups
                .iter()
                .zip(measured.groups)
                .filter_map(|(&group, retained)| Some((group, retained?)))
                .collect(),
            Err(error) => {
                log::debug!("retained bytes of process {}: {error}", self.pid);
                BTreeMap::new()
            }
        }
    }

    /// As [`Self::retained`], with what it cost and what was left out.
    pub fn measure(&mut self, groups: &[GroupId], budget: RetainBudget) -> Result<retain::Measured, GoError> {
        let pid = self.pid;
        let mut number_of = HashMap::new();
        for (number, group) in groups.iter().enumerate() {
            for slot in self.shown.get(group).into_iter().flatten().filter_map(|slot| slot.index()) {
                number_of.insert(slot, number as u16);
            }
        }
        let entries = self.members.entries().iter();
        let group_of: Vec<Option<u16>> =
            entries.map(|entry| number_of.get(&entry.slot.index()?).copied()).collect();
        let globals: Vec<_> = self
            .anchors
            .modules
            .iter()
            .flat_map(|module| [module.data.clone(), module.bss.clone()])
            .collect();
        self.spans()?;
        let Some(spans) = &mut self.spans else { return Ok(retain::Measured::default()) };
        let roots = Roots {
            globals: &globals,
            goroutines: self.scanner.pointers(),
            group_of: &group_of,
            groups: groups.len(),
        };
        retain::measure(self.memory, &self.layout, &mut self.symbols, spans, &roots, budget)
            .map_err(|source| GoError::of(pid, source))
    }

    fn spans(&mut self) -> Result<&mut SpanReader, GoError> {
        let pid = self.pid;
        if self.spans.is_none() {
            let globals: Vec<_> = self
                .anchors
                .modules
                .iter()
                .flat_map(|module| [module.noptrbss.clone(), module.bss.clone()])
                .collect();
            self.spans = SpanReader::locate(self.memory, &self.layout, &globals)
                .map_err(|source| GoError::of(pid, source))?;
        }
        self.spans.as_mut().ok_or_else(|| GoError::Unsupported {
            pid,
            version: self.version.clone(),
            why: "its list of heap spans was not found".to_owned(),
        })
    }
}
