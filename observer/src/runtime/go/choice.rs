//! Which layout a process is read with: its version's own, or another's that holds in it.
//!
//! A version that the table has is taken at its word. For one that it has not, what is cheap comes first: the newest known
//! layout, checked against the goroutines and channels of the process. Where that does not hold, the program's DWARF is
//! read, within bounds.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use super::addresses::{Image, Module, RuntimeAddresses};
use super::clock::monotonic_nanos;
use super::g::{self, G};
use super::layout::{GoVersion, Layout};
use super::symbol::GoSymbols;
use super::waits_on::{self, Describer};
use super::{reasons, status};
use crate::process::memory::RemoteMemory;
use crate::sample::Degraded;

/// Goroutines that a borrowed layout is checked against.
const LOOKED_AT: u64 = 256;
const MAX_CHANNELS: usize = 64;
/// Fewer say nothing. A program that has begun has its own and those of the runtime.
const LEAST: u64 = 2;

/// A layout, where it has led, and why it is believed.
#[derive(Debug)]
pub struct Choice {
    pub layout: Layout,
    pub anchors: RuntimeAddresses,
    pub origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table has the version.
    Table,
    /// The program's own debug information.
    Dwarf,
    /// Another version's, which holds.
    Borrowed(Checked),
}

/// How much of the process agreed with a layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub goroutines: u64,
    pub channels: u64,
}

/// The layout for a process of this version; `None` where none leads to its goroutines.
pub fn choose(
    pid: u32,
    memory: RemoteMemory,
    image: &Image,
    version: Option<&GoVersion>,
) -> io::Result<Option<Choice>> {
    let oldest = Layout::table().first().map_or(0, |oldest| oldest.minor);
    let tried: Vec<&Layout> = match version {
        Some(version) => match Layout::for_version(version) {
            Some(known) => {
                let anchors = image.anchor(memory, known)?;
                let found = |anchors| Choice { layout: known.clone(), anchors, origin: Origin::Table };
                return Ok(anchors.map(found));
            }
            // Nothing of the table fits.
            None if version.minor < oldest => return Ok(None),
            None => Layout::newest().into_iter().collect(),
        },
        None => Layout::table().iter().rev().collect(),
    };
    for layout in tried {
        if let Some(anchors) = image.anchor(memory, layout)?
            && let Some(checked) = check(memory, layout, &anchors)?
        {
            return Ok(Some(Choice { layout: layout.clone(), anchors, origin: Origin::Borrowed(checked) }));
        }
    }
    let own = File::open(format!("/proc/{pid}/exe")).ok().and_then(|file| Layout::from_dwarf(&file).ok());
    let Some(layout) = own else { return Ok(None) };
    let anchors = image.anchor(memory, &layout)?;
    Ok(anchors.map(|anchors| Choice { layout, anchors, origin: Origin::Dwarf }))
}

/// What is to be said of a layout that is not the version's own.
pub fn said(origin: Origin, layout: &Layout, version: &str) -> Option<Degraded> {
    let Origin::Borrowed(Checked { goroutines, channels }) = origin else { return None };
    Some(Degraded {
        feature: "go version".to_owned(),
        reason: format!(
            "the offsets of {version} are not known here: it is read with those of go1.{}, checked against {goroutines} \
             goroutines and {channels} of their channels",
            layout.minor
        ),
        remedy: "use an observer that knows this version".to_owned(),
    })
}

/// Whether what a layout says holds for the goroutines of a process and for the channels that they wait on.
///
/// Few may disagree: they run while they are read.
pub fn check(
    memory: RemoteMemory,
    layout: &Layout,
    anchors: &RuntimeAddresses,
) -> io::Result<Option<Checked>> {
    let Some(reasons) = reasons::find(memory, anchors) else { return Ok(None) };
    let tables = anchors.modules.iter().map(Module::table).collect();
    let mut symbols = GoSymbols::new(memory, tables);
    let addresses = some_goroutines(memory, anchors)?;
    let mut found = Vec::new();
    g::read(memory, &layout.g, &addresses, &mut Vec::new(), |index, head| found.push((index, head)))?;

    let now = monotonic_nanos();
    let mut goroutines = Votes::default();
    let mut frames = Votes::default();
    let mut sequences = Vec::new();
    let mut sudogs = Vec::new();
    for (index, head) in found {
        let Some(head) = head else {
            goroutines.add(false);
            continue;
        };
        if status::is_dead(head.status) {
            continue;
        }
        sequences.push(head.sequence);
        let reason = reasons.get(usize::from(head.reason)).map(String::as_str);
        goroutines.add(holds(&head, reason, now, &mut symbols));
        for sense in [head.pc, head.creator].into_iter().filter_map(|pc| symbols.frame_map_makes_sense(pc)) {
            frames.add(sense);
        }
        if head.status == status::WAITING
            && matches!(reason, Some("chan send" | "chan receive"))
            && sudogs.len() < MAX_CHANNELS
        {
            sudogs.push((addresses.get(index).copied().unwrap_or(0), head.waiting));
        }
    }
    let mut objects = BTreeSet::new();
    let mut waiting = Votes { yes: 0, no: sudogs.len() as u64 };
    waits_on::read_objects(memory, &layout.sudog, &sudogs, &mut Vec::new(), |_, object| {
        objects.insert(object);
        waiting = Votes { yes: waiting.yes + 1, no: waiting.no.saturating_sub(1) };
    })?;
    let mut describer = Describer::default();
    let mut channels = Votes::default();
    for object in objects {
        let channel = describer.channel(memory, layout, &anchors.modules, object);
        channels.add(channel.is_some_and(|channel| channel.element_type.is_some()));
    }
    let agree = goroutines.yes >= LEAST
        && frames.yes > 0
        && are_random(&mut sequences)
        && [goroutines, frames, waiting, channels].iter().all(Votes::agree);
    Ok(agree.then_some(Checked { goroutines: goroutines.yes, channels: channels.yes }))
}

#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    yes: u64,
    no: u64,
}

impl Votes {
    fn add(&mut self, holds: bool) {
        *(if holds { &mut self.yes } else { &mut self.no }) += 1;
    }

    fn agree(&self) -> bool {
        self.no * 8 <= self.yes
    }
}

/// The runtime's rules for a goroutine that lives.
fn holds(head: &G, reason: Option<&str>, now: u64, symbols: &mut GoSymbols) -> bool {
    let waits = head.status != status::WAITING
        || head.wait_since <= now
            && head.is_outside_system_call()
            && reason.is_some_and(|reason| !reason.is_empty())
            && (head.waiting != 0 || !matches!(reason, Some("chan send" | "chan receive" | "select")));
    let stands = !status::has_readable_stack(head.status)
        || head.status == status::SYSCALL
        || (head.stack_low..=head.stack_high).contains(&head.sp) && symbols.is_code(head.pc);
    waits
        && stands
        && head.goid != 0
        && symbols.is_entry(head.start)
        && (head.creator == 0 || symbols.is_code(head.creator))
}

/// Each begins at a random byte; what lies around it are flags. Of 256 random ones some 160 differ.
fn are_random(sequences: &mut Vec<u8>) -> bool {
    let count = sequences.len();
    sequences.sort_unstable();
    sequences.dedup();
    sequences.len() * 2 >= count
}

/// Addresses of goroutines, from the whole list.
fn some_goroutines(memory: RemoteMemory, anchors: &RuntimeAddresses) -> io::Result<Vec<u64>> {
    let array = memory.read_u64(anchors.allgs)?;
    let length = memory.read_u64(anchors.allgs.saturating_add(8))?;
    let step = length.div_ceil(LOOKED_AT).max(1);
    let places = (0..LOOKED_AT).map(|index| index * step).take_while(|&place| place < length);
    Ok(places.filter_map(|place| memory.read_u64(array.checked_add(place.checked_mul(8)?)?).ok()).collect())
}
