//! Goroutines of another process, read from its memory while it runs.
//!
//! Works on what every Go program carries, stripped or not: nothing is asked of the target, stopped or
//! written. [`GoReader::open`] finds the runtime's tables by content, [`GoReader::sample`] reads all
//! goroutines and gives them back in groups. Costs: opening some 10 ms; a sample about 0.1 µs a
//! goroutine that did not run since the last one and 1 µs one that did.

pub mod addresses;
mod bytes;
pub mod choice;
mod clock;
mod coalesced;
pub(crate) mod g;
mod held;
pub mod layout;
mod names;
pub(crate) mod open;
mod reasons;
pub mod retain;
mod scan;
pub(crate) mod spans;
pub(crate) mod status;
pub(crate) mod symbol;
mod unwind;
mod version;
mod waits_on;

use std::collections::{BTreeMap, HashMap};
use std::io;

use crate::process::maps;
use crate::process::memory::RemoteMemory;
use crate::runtime::interface::Tasks;
use crate::runtime::tasks::members::Members;
use crate::runtime::tasks::report;
use crate::runtime::tasks::slot::Slot;
use crate::sample::{Degraded, Group, GroupId, Losses, WaitsOn, lose};
use crate::symbol::native::elf;
use addresses::{Image, RuntimeAddresses};
use choice::Choice;
use clock::monotonic_nanos;
use layout::{GoVersion, Layout};
use names::GoNames;
use scan::AllgsScanner;
use symbol::GoSymbols;
use waits_on::{Describer, Objects};

/// More goroutines than this are not looked at; the rest is counted.
const MAX_GOROUTINES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum GoError {
    #[error("process {pid} has no Go runtime in it")]
    NotGo { pid: u32 },
    #[error("process {pid} is built with {version}, which observer cannot read: {why}")]
    Unsupported { pid: u32, version: String, why: String },
    #[error("process {pid} has exited")]
    Exited { pid: u32 },
    #[error(
        "reading the memory of process {pid}: {source} (run as root, as the same user, or with CAP_SYS_PTRACE)"
    )]
    Unreadable { pid: u32, source: io::Error },
}

impl GoError {
    fn of(pid: u32, source: io::Error) -> Self {
        match source.raw_os_error() {
            // Of a zombie the map is empty and its memory gone.
            Some(libc::ESRCH | libc::ENOENT) => Self::Exited { pid },
            _ => Self::Unreadable { pid, source },
        }
    }
}

/// Everything known about the Go runtime of one process image.
#[derive(Debug)]
pub struct GoReader {
    pid: u32,
    memory: RemoteMemory,
    version: String,
    stripped: bool,
    layout: Layout,
    /// What is to be said of the layout, where it is another version's.
    borrowed: Option<Degraded>,
    anchors: RuntimeAddresses,
    symbols: GoSymbols,
    reasons: Vec<String>,
    members: Members,
    /// Found when memory is first asked for.
    spans: Option<spans::SpanReader>,
    scanner: AllgsScanner,
    /// The raw groups of the groups in the last sample.
    shown: BTreeMap<GroupId, Vec<Slot>>,
    describer: Describer,
    waits_on: HashMap<GroupId, Option<WaitsOn>>,
}

impl GoReader {
    /// Finds the Go runtime of a process.
    pub fn open(pid: u32) -> Result<Self, GoError> {
        let failed = |source| GoError::of(pid, source);
        let memory = RemoteMemory::new(pid);
        let mappings = maps::read(pid).map_err(failed)?;
        if mappings.is_empty() {
            // A kernel thread, or a zombie.
            return Err(GoError::NotGo { pid });
        }
        let image = Image::find(pid, memory, &mappings).map_err(failed)?.ok_or(GoError::NotGo { pid })?;
        let unsupported = |version: &str, why: &str| GoError::Unsupported {
            pid,
            version: version.to_owned(),
            why: why.to_owned(),
        };
        let text = image.version.clone().unwrap_or_else(|| "an unknown version of Go".to_owned());
        let parsed = GoVersion::parse(&text);
        let chosen = choice::choose(pid, memory, &image, parsed.as_ref()).map_err(failed)?;
        let Some(Choice { layout, anchors, origin }) = chosen else {
            let why = match &parsed {
                Some(version) if Layout::for_version(version).is_some() => {
                    "the list of goroutines was not found (is it still starting?)"
                }
                Some(_) => {
                    "no offsets are known for it, those of the newest known version do not hold, and it has no debug information that does"
                }
                None => "its build information is missing, and the offsets of no known version fit",
            };
            return Err(unsupported(&text, why));
        };
        let tables = anchors.modules.iter().map(addresses::Module::table).collect();
        let reasons = reasons::find(memory, &anchors).unwrap_or_else(|| layout.wait_reasons.clone());
        let scanner = AllgsScanner::new(memory, layout.minor, &reasons);
        Ok(Self {
            pid,
            memory,
            borrowed: choice::said(origin, &layout, &text),
            version: text,
            stripped: is_stripped(pid),
            layout,
            anchors,
            symbols: GoSymbols::new(memory, tables),
            reasons,
            members: Members::default(),
            spans: None,
            scanner,
            shown: BTreeMap::new(),
            describer: Describer::default(),
            waits_on: HashMap::new(),
        })
    }

    /// As the program writes it: `go1.27.3`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Names the code of this program, for stacks that come from elsewhere.
    pub fn symbols(&self) -> GoSymbols {
        self.symbols.sharing()
    }

    /// Whether it has no symbol table.
    pub fn stripped(&self) -> bool {
        self.stripped
    }

    /// Reads all goroutines, without the runtime's own, as `runtime.NumGoroutine` counts them. `at_seconds` is the
    /// reader's clock, which ages waits.
    pub fn sample(&mut self, at_seconds: f64) -> Result<Tasks, GoError> {
        let pid = self.pid;
        let failed = |source| GoError::of(pid, source);
        if self.members.begin(at_seconds) {
            self.shown.clear();
        }
        let (pointers, unread) = self.read_allgs().map_err(failed)?;
        self.scanner.set_pointers(pointers, &mut self.members);
        let pass = self
            .scanner
            .pass(&self.layout.g, &mut self.symbols, &mut self.members, monotonic_nanos())
            .map_err(failed)?;
        self.scanner.name_objects(&self.layout.sudog, &mut self.members).map_err(failed)?;
        self.scanner.rest();
        self.members.finish();
        let mut names = GoNames {
            symbols: &mut self.symbols,
            reasons: &self.reasons,
            wrapper_id: wrapper_id(self.layout.minor),
        };
        let mut report = report::report(self.members.groups_mut(), &mut names);
        self.shown = report
            .groups
            .iter()
            .zip(std::mem::take(&mut report.slots))
            .map(|(group, slots)| (group.id, slots))
            .collect();
        self.describe_objects(&mut report.groups);
        let mut losses = Losses::new();
        for (name, lost) in [
            ("torn_reads", pass.torn),
            ("invalid_goroutines", pass.invalid),
            ("stacks_incomplete", pass.incomplete),
            ("stacks_truncated", pass.shortened + self.members.groups().shortened),
            ("goroutines_not_read", unread),
        ] {
            lose(&mut losses, name, lost);
        }
        Ok(Tasks {
            groups: report.groups,
            alive: pass.goroutines,
            groups_total: report.groups_total,
            members_left_out: report.members_left_out,
            deadlocks: Vec::new(),
            losses,
            degraded: self.borrowed.iter().cloned().collect(),
        })
    }

    /// Says what each group waits on; what was said of a group that did not change is said again.
    fn describe_objects(&mut self, groups: &mut [Group]) {
        let mut old = std::mem::take(&mut self.waits_on);
        // By raw group: the group whose objects are to be collected.
        let mut wanted: HashMap<usize, usize> = HashMap::new();
        let mut objects: Vec<Objects> = Vec::new();
        objects.resize_with(groups.len(), Objects::default);
        for (index, group) in groups.iter().enumerate() {
            let slots = self.shown.get(&group.id).map(Vec::as_slice).unwrap_or_default();
            let is_changed = slots.iter().any(|&slot| {
                self.members.groups().get(slot).is_some_and(|raw| raw.changed || raw.joined > 0)
            });
            if is_changed || !old.contains_key(&group.id) {
                old.remove(&group.id);
                wanted.extend(slots.iter().filter_map(|slot| Some((slot.index()?, index))));
            }
        }
        if !wanted.is_empty() {
            let mut by_slot = vec![u32::MAX; wanted.keys().max().map_or(0, |most| most + 1)];
            for (slot, index) in wanted {
                if let Some(entry) = by_slot.get_mut(slot) {
                    *entry = index as u32;
                }
            }
            for entry in self.members.entries().iter().filter(|entry| entry.object != 0) {
                let index =
                    entry.slot.index().and_then(|slot| by_slot.get(slot)).copied().unwrap_or(u32::MAX);
                if let Some(objects) = objects.get_mut(index as usize) {
                    objects.add(entry.object);
                }
            }
        }
        for (group, objects) in groups.iter_mut().zip(objects) {
            group.waits_on = match old.remove(&group.id) {
                Some(known) => known,
                None => self.describer.describe(
                    self.memory,
                    &self.layout,
                    &self.anchors.modules,
                    &group.wait_reason,
                    group.count,
                    &objects,
                ),
            };
            self.waits_on.insert(group.id, group.waits_on.clone());
        }
    }

    /// Addresses of the `g` structs of members of groups of the last sample, at most `limit` a group, spread over it.
    pub fn members(&self, groups: &[GroupId], limit: usize) -> BTreeMap<GroupId, Vec<u64>> {
        let mut group_of = BTreeMap::new();
        let mut members = BTreeMap::new();
        for id in groups {
            let Some(slots) = self.shown.get(id) else { continue };
            let count: u64 = slots
                .iter()
                .filter_map(|&slot| self.members.groups().get(slot))
                .map(|raw| u64::from(raw.count))
                .sum();
            // Every so many-th is taken.
            let stride = (count / limit.max(1) as u64).max(1);
            for slot in slots.iter().filter_map(|slot| slot.index()) {
                group_of.insert(slot, (*id, stride));
            }
            members.insert(*id, (0u64, Vec::new()));
        }
        for (entry, &address) in self.members.entries().iter().zip(self.scanner.pointers()) {
            let Some((id, stride)) = entry.slot.index().and_then(|slot| group_of.get(&slot)) else {
                continue;
            };
            let Some((seen, addresses)) = members.get_mut(id) else { continue };
            if seen.is_multiple_of(*stride) && addresses.len() < limit {
                addresses.push(address);
            }
            *seen += 1;
        }
        members.into_iter().map(|(id, (_, addresses))| (id, addresses)).collect()
    }

    /// The addresses in `runtime.allgs`, and how many were too many to read.
    fn read_allgs(&self) -> io::Result<(Vec<u64>, u64)> {
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            let header = self.allgs_header()?;
            let [array, length, _] = header;
            let count = length.min(MAX_GOROUTINES);
            let mut bytes = vec![0; count as usize * 8];
            match self.memory.read_exact(array, &mut bytes) {
                Ok(()) => {}
                // It grew and moved elsewhere between the two reads.
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => continue,
                Err(error) => return Err(error),
            }
            // The old array of a list that grew is garbage, so what was read counts only if it is still the list's.
            let after = self.allgs_header()?;
            if after[0] == array && after[1] >= length {
                let pointers = bytes
                    .chunks_exact(8)
                    .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
                    .collect();
                return Ok((pointers, length - count));
            }
        }
        // What was a list is none any more: another program runs under this pid.
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }

    fn allgs_header(&self) -> io::Result<[u64; 3]> {
        let mut bytes = [0; 24];
        match self.memory.read_exact(self.anchors.allgs, &mut bytes) {
            Ok(()) => {}
            // An exec took the mapping away.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Err(error) => return Err(error),
        }
        let mut header = [0; 3];
        for (word, bytes) in header.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        Ok(header)
    }
}

/// Whether the program's file has no symbol table.
fn is_stripped(pid: u32) -> bool {
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/exe")) else { return false };
    !elf::section(&file, b".symtab").is_ok_and(|table| table.is_some())
}

/// The runtime's number for generated wrapper functions, the last of its list.
fn wrapper_id(minor: u32) -> u8 {
    match minor {
        ..=21 => 21,
        22..=24 => 22,
        _ => 23,
    }
}
