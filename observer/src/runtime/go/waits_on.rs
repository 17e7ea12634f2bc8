//! What goroutines wait on: their channels and locks, with the type of a channel's elements.
//!
//! A waiting goroutine has a `sudog` that names its channel or semaphore (locks only since Go 1.26). The
//! name is kept per goroutine, so it is read once a wait; of the channels themselves a few are looked at
//! for each group. Costs 0.1 to 0.3 µs a goroutine that moved, and some µs a group that changed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::io;

use super::addresses::Module;
use super::bytes::{u8_at, u32_at, u64_at};
use super::coalesced;
use super::layout::{Layout, SudogLayout};
use crate::process::memory::RemoteMemory;
use crate::sample::WaitsOn;
use crate::symbol::address_hash::{AddressHasher, mix};
use crate::symbol::bounded_name;

/// Channels of a group that are looked at.
const LOOKED_AT: usize = 8;
/// Exact up to here; beyond, counted by a sample of about this many.
const MAX_EXACT: usize = 1 << 16;
const MAX_TYPES: usize = 1 << 14;

/// Reads what `sudogs` (of the goroutines that own them) wait on; `done(index, object)`.
pub(super) fn read_objects(
    memory: RemoteMemory,
    layout: &SudogLayout,
    sudogs: &[(u64, u64)],
    buffer: &mut Vec<u8>,
    mut done: impl FnMut(usize, u64),
) -> io::Result<()> {
    let need = layout.g.max(layout.elem).max(layout.c) as usize + 8;
    let pieces: Vec<(u64, usize)> = sudogs.iter().map(|&(_, sudog)| (sudog, need)).collect();
    coalesced::read(memory, &pieces, buffer, |index, bytes| {
        let (Some(bytes), Some(&(goroutine, _))) = (bytes, sudogs.get(index)) else { return };
        // It has gone back to the pool, and may be another's by now.
        if u64_at(bytes, layout.g) != Some(goroutine) {
            return;
        }
        let object = match u64_at(bytes, layout.c) {
            Some(channel) if channel != 0 => channel,
            _ => u64_at(bytes, layout.elem).unwrap_or(0),
        };
        if object != 0 {
            done(index, object);
        }
    })
}

/// The different objects of a group: all of them up to [`MAX_EXACT`], then a sample.
#[derive(Debug, Default)]
pub(super) struct Objects {
    seen: HashSet<u64, BuildHasherDefault<AddressHasher>>,
    /// One in 2^shift is kept.
    shift: u32,
}

impl Objects {
    pub(super) fn add(&mut self, object: u64) {
        if !Self::is_kept(object, self.shift) {
            return;
        }
        self.seen.insert(object);
        while self.seen.len() > MAX_EXACT && self.shift < 48 {
            self.shift += 1;
            let shift = self.shift;
            self.seen.retain(|&object| Self::is_kept(object, shift));
        }
    }

    fn is_kept(object: u64, shift: u32) -> bool {
        mix(object ^ 0x5bd1_e995) & ((1 << shift) - 1) == 0
    }

    pub(super) fn count(&self) -> u64 {
        (self.seen.len() as u64) << self.shift
    }

    fn is_exact(&self) -> bool {
        self.shift == 0
    }
}

/// The kind of thing that a wait reason is about, and whether it is a channel.
fn kind(reason: &str) -> Option<(&'static str, bool)> {
    Some(match reason {
        "chan receive"
        | "chan send"
        | "select"
        | "chan receive (durable)"
        | "chan send (durable)"
        | "select (durable)" => ("channel", true),
        "sync.Mutex.Lock" => ("mutex", false),
        "sync.RWMutex.RLock" | "sync.RWMutex.Lock" => ("rwmutex", false),
        "sync.Cond.Wait" => ("cond", false),
        "sync.WaitGroup.Wait" | "sync.WaitGroup.Wait (durable)" => ("waitgroup", false),
        "semacquire" => ("semaphore", false),
        _ => return None,
    })
}

/// What is at a channel's address.
pub(super) struct Channel {
    buffered: u64,
    capacity: u64,
    closed: bool,
    pub element_type: Option<String>,
}

/// Describes the objects of groups.
#[derive(Debug, Default)]
pub(super) struct Describer {
    types: HashMap<u64, Option<String>, BuildHasherDefault<AddressHasher>>,
}

impl Describer {
    /// What `members` goroutines with this wait reason wait on.
    pub(super) fn describe(
        &mut self,
        memory: RemoteMemory,
        layout: &Layout,
        modules: &[Module],
        reason: &str,
        members: u64,
        objects: &Objects,
    ) -> Option<WaitsOn> {
        let (kind, is_channel) = kind(reason)?;
        if objects.count() == 0 {
            return None;
        }
        // Of one that was torn its old object is kept, though it is not counted as a member.
        let count = objects.count().min(members);
        let mut waits_on = WaitsOn { kind: kind.into(), objects: count, ..WaitsOn::default() };
        let mut notes = Vec::new();
        if !objects.is_exact() {
            notes.push("their number is an estimate".to_owned());
        }
        if waits_on.objects == 1 {
            let address = objects.seen.iter().next().copied();
            // A mutex is its state and then the semaphore that is waited on.
            waits_on.address =
                address.map(|address| if kind == "mutex" { address.saturating_sub(4) } else { address });
        }
        if is_channel {
            let looked_at: Vec<u64> = objects.seen.iter().copied().take(LOOKED_AT).collect();
            let channels: Vec<Channel> = looked_at
                .iter()
                .filter_map(|&address| self.channel(memory, layout, modules, address))
                .collect();
            let capacities: BTreeSet<u64> = channels.iter().map(|channel| channel.capacity).collect();
            if capacities.len() == 1 {
                waits_on.capacity = capacities.first().copied();
            }
            let types: BTreeSet<&Option<String>> =
                channels.iter().map(|channel| &channel.element_type).collect();
            if types.len() == 1 {
                waits_on.element_type = types.first().and_then(|name| (*name).clone());
            }
            notes.extend(side(reason, members, waits_on.objects));
            if !channels.is_empty() && channels.iter().all(|channel| channel.closed) {
                notes.push("closed".to_owned());
            }
            if channels.iter().any(|channel| channel.capacity > 0)
                && channels.iter().all(|channel| channel.buffered == channel.capacity)
            {
                notes.push("buffer full".to_owned());
            }
        }
        waits_on.note = (!notes.is_empty()).then(|| notes.join(", "));
        Some(waits_on)
    }

    /// `None` for what cannot be a channel.
    pub(super) fn channel(
        &mut self,
        memory: RemoteMemory,
        layout: &Layout,
        modules: &[Module],
        address: u64,
    ) -> Option<Channel> {
        let hchan = &layout.hchan;
        let mut bytes = vec![0; hchan.size.clamp(64, 256) as usize];
        memory.read_exact(address, &mut bytes).ok()?;
        let (buffered, capacity) = (u64_at(&bytes, hchan.qcount)?, u64_at(&bytes, hchan.dataqsiz)?);
        if buffered > capacity {
            return None;
        }
        let closed = u32_at(&bytes, hchan.closed)? != 0;
        let element = u64_at(&bytes, hchan.elemtype)?;
        if self.types.len() >= MAX_TYPES {
            self.types.clear();
        }
        let element_type =
            self.types.entry(element).or_insert_with(|| type_name(memory, layout, modules, element)).clone();
        Some(Channel { buffered, capacity, closed, element_type })
    }
}

/// Who is on which side of the channels. Nobody is on the other one, or these would not wait.
fn side(reason: &str, members: u64, objects: u64) -> Option<String> {
    let (here, there) = match reason.split(' ').next()? {
        "chan" if reason.starts_with("chan send") => ("sender", "receiver"),
        "chan" => ("receiver", "sender"),
        _ => return Some("the first channel of each select".to_owned()),
    };
    Some(if objects == members && objects > 1 {
        format!("one {here} each, no {there}")
    } else {
        format!("no {there} waits")
    })
}

/// A type's name as Go writes it: `*checkout.quote`.
fn type_name(memory: RemoteMemory, layout: &Layout, modules: &[Module], address: u64) -> Option<String> {
    const EXTRA_STAR: u8 = 1 << 1;
    const MAX_NAME: usize = 1024;
    let module = modules.iter().find(|module| module.types.contains(&address))?;
    let type_ = &layout.type_;
    let mut bytes = vec![0; type_.size.clamp(48, 128) as usize];
    memory.read_exact(address, &mut bytes).ok()?;
    let offset = u32_at(&bytes, type_.str_)?.cast_signed();
    let name = module.types.start.checked_add_signed(i64::from(offset))?;
    let mut text = vec![0; MAX_NAME + 3];
    let read = memory.read(name, &mut text).ok()?;
    let text = text.get(..read)?;
    // Flags, the length as a varint, the name.
    let first: usize = u8_at(text, 1)?.into();
    let (length, start): (usize, usize) = match first {
        0..0x80 => (first, 2),
        _ => (first & 0x7f | usize::from(u8_at(text, 2)?) << 7, 3),
    };
    let name = text.get(start..start.checked_add(length)?)?;
    let name = std::str::from_utf8(name).ok()?;
    let name = if u8_at(&bytes, type_.tflag)? & EXTRA_STAR != 0 { name.strip_prefix('*')? } else { name };
    (!name.is_empty()).then(|| bounded_name(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_counted_exactly_and_then_nearly() {
        let mut objects = Objects::default();
        for object in 0..60_000u64 {
            objects.add(0xc000_0000 + object % 50_000 * 96);
        }
        assert_eq!((objects.count(), objects.is_exact()), (50_000, true));
        for object in 0..1_000_000u64 {
            objects.add(0xc000_0000 + object * 96);
        }
        assert!(!objects.is_exact() && objects.seen.len() <= MAX_EXACT);
        assert!(objects.count().abs_diff(1_000_000) < 20_000, "{}", objects.count());
    }

    #[test]
    fn the_other_side_of_a_channel_is_named() {
        assert_eq!(side("chan send", 5, 5).as_deref(), Some("one sender each, no receiver"));
        assert_eq!(side("chan receive", 5, 1).as_deref(), Some("no sender waits"));
        assert_eq!(kind("IO wait"), None);
    }
}
