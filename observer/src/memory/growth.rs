//! Memory that grew and is still there, by the stack that first touched it.
//!
//! Reads sampled page faults (from the kernel side) and which pages are there (`survivors`); gives growth sites. How much was
//! touched says nothing: a loop that maps and unmaps touches gigabytes and keeps none. So the last stack of each
//! sampled page is kept, and what is reported are the pages that are still there. A page that an allocator hands out
//! again stays with who first touched it. 2 µs a sample, 2 µs a page when it is looked for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::pagemap::{Pagemap, page_bytes};
use super::smaps::Smaps;
use crate::kernel::Fault;
use crate::process::code::RuntimeCode;
use crate::process::maps::{self, Mapping};
use crate::process::memory::huge::HUGE_BYTES;
use crate::sample::group_id;
use crate::sample::{Frame, GroupKind, GrowthSite, Losses, lose};
use crate::symbol::{self, Symbolizer};
use crate::unwind::{End, Registers, Unwinder};

mod pages;
mod past;
mod survivors;
mod via;

use pages::{Page, Pages};
use past::Past;
use survivors::Survivors;
pub use via::Via;

/// Sites that are reported.
pub const MAX_SITES: usize = 50;
/// Different stacks kept with their frames; the rest is one site without a stack.
const MAX_STACKS: usize = 4096;
/// Seconds between two looks at which pages are still there.
const SURVIVOR_SECONDS: f64 = 2.0;
/// Frames kept of a stack.
const MAX_FRAMES: usize = 128;

/// One sampled page fault, as the kernel side tells it.
#[derive(Clone, Copy, Debug)]
pub struct Touch<'s> {
    /// What was touched.
    pub address: u64,
    /// Faults that this one stands for.
    pub weight: u64,
    pub registers: Registers,
    /// Who touched it, by the thread's id in the initial PID namespace.
    pub thread: u32,
    /// By frame pointers, the interrupted instruction first.
    pub frames: &'s [u64],
    /// A copy of the stack from the stack pointer up; empty where none was made.
    pub stack: &'s [u8],
}

/// What the kernel side tells, in the order in which it happened.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'s> {
    Touch(Touch<'s>),
    /// `bytes` of a mapping moved to an address, where it has room for `room`.
    Move {
        from: u64,
        to: u64,
        bytes: u64,
        room: u64,
    },
}

impl<'s> From<&'s Fault> for Seen<'s> {
    fn from(fault: &'s Fault) -> Self {
        if let Some(moved) = fault.moved {
            return Self::Move { from: moved.from, to: fault.address, bytes: moved.bytes, room: moved.room };
        }
        Self::Touch(Touch {
            address: fault.address,
            weight: fault.weight,
            thread: fault.global_tid,
            registers: Registers { ip: fault.ip, sp: fault.sp, bp: Some(fault.bp), lr: None },
            frames: &fault.frames,
            stack: &fault.stack,
        })
    }
}

/// What grew, and what was lost on the way to knowing it.
#[derive(Clone, Debug, Default)]
pub struct GrowthSites {
    /// What grew most lately first.
    pub sites: Vec<GrowthSite>,
    /// Surviving bytes of all sites, also of those beyond the bound.
    pub total_bytes: u64,
    /// Bytes that were touched, and of those what has gone since.
    pub touched_bytes: u64,
    pub returned_bytes: u64,
    pub losses: Losses,
}

/// Follows the pages of one process image.
pub struct GrowthReader {
    pid: u32,
    code: RuntimeCode,
    symbolizer: Box<dyn Symbolizer>,
    unwinder: Box<dyn Unwinder>,
    survivors: Survivors,
    /// Why survivors are known by mapping only.
    coarse: Option<io::Error>,
    /// Tells huge pages, where the kernel does.
    huge: Option<Pagemap>,
    maps: Vec<Mapping>,
    pages: Pages,
    stacks: HashMap<Box<[u64]>, u32>,
    places: Vec<Option<Place>>,
    free: Vec<u32>,
    looked: Option<f64>,
    last: Vec<GrowthSite>,
    past: Past,
    threads: HashMap<u32, u64>,
    /// Stacks that were copied, and those of them that went on above what was copied.
    copied: u64,
    cut: u64,
    total_bytes: u64,
    touched_bytes: u64,
    touched_at_look: u64,
    losses: Losses,
    /// The most sites that a sample was without.
    left_out: usize,
}

/// Code addresses of a stack, and whether it goes on above them. Of what has no stack, none.
type Walked = (Box<[u64]>, bool);

/// A stack, under the number that pages know it by.
struct Place {
    addresses: Box<[u64]>,
    /// There are more above.
    truncated: bool,
    /// Looked up once memory that it touched has survived: most stacks keep nothing.
    frames: Option<Arc<[Frame]>>,
}

impl GrowthReader {
    pub fn open(
        pid: u32,
        code: &RuntimeCode,
        symbolizer: Box<dyn Symbolizer>,
        unwinder: Box<dyn Unwinder>,
    ) -> io::Result<Self> {
        let mut pagemap = match Pagemap::open(pid) {
            Ok(pagemap) => pagemap,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let by_mapping =
                    Self::new(pid, code, symbolizer, unwinder, Survivors::ByMapping(Smaps::new(pid)));
                return Ok(Self { coarse: Some(error), ..by_mapping });
            }
            Err(error) => return Err(error),
        };
        let huge = Some(Pagemap::open(pid)?);
        let by_page = Survivors::by_page(move |pages| pagemap.are_resident(pages));
        Ok(Self { huge, ..Self::new(pid, code, symbolizer, unwinder, by_page) })
    }

    fn new(
        pid: u32,
        code: &RuntimeCode,
        symbolizer: Box<dyn Symbolizer>,
        unwinder: Box<dyn Unwinder>,
        survivors: Survivors,
    ) -> Self {
        // Number 0 is the site of all that has no stack of its own.
        let nowhere = Place { addresses: Box::default(), truncated: false, frames: Some(Arc::new([])) };
        Self {
            pid,
            code: code.clone(),
            symbolizer,
            unwinder,
            survivors,
            coarse: None,
            huge: None,
            maps: Vec::new(),
            pages: Pages::default(),
            stacks: HashMap::new(),
            places: vec![Some(nowhere)],
            free: Vec::new(),
            looked: None,
            last: Vec::new(),
            past: Past::default(),
            threads: HashMap::new(),
            copied: 0,
            cut: 0,
            total_bytes: 0,
            touched_bytes: 0,
            touched_at_look: 0,
            losses: Losses::new(),
            left_out: 0,
        }
    }

    /// Why what is still there is known by mapping only, not by page.
    pub fn coarse(&self) -> Option<&io::Error> {
        self.coarse.as_ref()
    }

    /// The share of one core that looking at mappings may take.
    pub fn set_share(&mut self, share: f64) {
        if let Survivors::ByMapping(smaps) = &mut self.survivors {
            smaps.set_share(share);
        }
    }

    /// Takes samples in; often, so that the process still is as it was when they were made.
    pub fn record(&mut self, seen: &[Seen<'_>]) {
        if seen.is_empty() {
            return;
        }
        self.remap(seen);
        let stacks: Vec<Walked> = seen.iter().map(|seen| self.stack(seen)).collect();
        self.intern(&stacks);
        for (seen, (stack, _)) in seen.iter().zip(&stacks) {
            match *seen {
                Seen::Touch(touch) => {
                    let number = self.stacks.get(stack).copied().unwrap_or(0);
                    let via = via::of(&self.maps, touch.address, &self.code);
                    let weight = touch.weight.max(1).saturating_mul(self.pages_at(touch.address));
                    let page = Page { stack: number, weight, via, thread: touch.thread };
                    let bytes = page.weight.saturating_mul(page_bytes());
                    self.touched_bytes = self.touched_bytes.saturating_add(bytes);
                    self.pages.insert(touch.address / page_bytes(), page);
                }
                Seen::Move { from, to, bytes, room } => {
                    let to = via::landed(&self.maps, to, room);
                    let pages = bytes.div_ceil(page_bytes());
                    self.pages.relocate(from / page_bytes(), to / page_bytes(), pages);
                }
            }
        }
        let thinned = self.pages.take_thinned();
        lose(&mut self.losses, "growth_pages_thinned", thinned);
    }

    /// The sites now, at `at_seconds` on the caller's clock; looks at the pages anew every few seconds only.
    pub fn sample(&mut self, at_seconds: f64) -> GrowthSites {
        if self.looked.is_none_or(|looked| at_seconds - looked >= SURVIVOR_SECONDS) {
            self.looked = Some(at_seconds);
            self.look(at_seconds);
        }
        GrowthSites {
            sites: self.last.clone(),
            total_bytes: self.total_bytes,
            touched_bytes: self.touched_at_look,
            returned_bytes: self.touched_at_look.saturating_sub(self.total_bytes),
            losses: std::mem::take(&mut self.losses),
        }
    }

    /// Bytes that each thread first touched and that were still there at the last look, by the thread's id in the
    /// initial PID namespace (`ThreadRecord::global_tid`). Of a thread that ended, what it left behind; an id that
    /// the kernel has given to another thread meanwhile stands for both. At most as many as pages are kept.
    pub fn touched_by_thread(&self) -> &HashMap<u32, u64> {
        &self.threads
    }

    /// Whether many stacks are deeper than what is copied of them.
    pub fn wants_deeper_stacks(&self) -> bool {
        self.copied >= 64 && self.cut * 20 > self.copied
    }

    /// New code or new memory since the maps were read: they are read again, once a batch at most.
    fn remap(&mut self, seen: &[Seen<'_>]) {
        // What nobody may touch is the closed part of a reservation: it has been opened since.
        let known = |address| {
            maps::at(&self.maps, address).is_some_and(|mapping| mapping.readable || mapping.executable)
        };
        let settled = |seen: &Seen<'_>| match seen {
            Seen::Touch(touch) => known(touch.address) && known(touch.registers.ip),
            Seen::Move { room, .. } => !via::is_padded(*room),
        };
        if seen.iter().all(settled) {
            return;
        }
        if let Ok(maps) = maps::read(self.pid)
            && !maps.is_empty()
        {
            self.unwinder.remap(&maps);
            self.maps = maps;
        }
    }

    /// Pages that one fault brought there.
    fn pages_at(&mut self, address: u64) -> u64 {
        let Some(pagemap) = self.huge.as_ref().filter(|_| via::may_be_huge(&self.maps, address)) else {
            return 1;
        };
        match pagemap.is_huge(address) {
            Some(true) => HUGE_BYTES / page_bytes(),
            Some(false) => 1,
            None => {
                self.huge = None;
                1
            }
        }
    }

    fn stack(&mut self, seen: &Seen<'_>) -> Walked {
        let Seen::Touch(touch) = seen else { return Walked::default() };
        let by_frame_pointers = || match touch.frames {
            [] => (Box::from([touch.registers.ip]), true),
            frames => (Box::from(&frames[..frames.len().min(MAX_FRAMES)]), frames.len() >= MAX_FRAMES - 1),
        };
        if touch.stack.is_empty() {
            return by_frame_pointers();
        }
        let mut stack = self.unwinder.unwind_copied(&touch.registers, touch.stack);
        if stack.end != End::Root && touch.frames.len() > stack.addresses.len() {
            return by_frame_pointers();
        }
        self.copied += 1;
        // What C code runs on below a runtime ends where it was called: the task's stack is elsewhere, and deeper copies
        // do not bring it.
        if stack.end != End::Root {
            self.cut += u64::from(!self.code.parks_carriers);
            lose(&mut self.losses, "growth_stacks_cut", 1);
        }
        let truncated = stack.end != End::Root || stack.addresses.len() > MAX_FRAMES;
        stack.addresses.truncate(MAX_FRAMES);
        (stack.addresses.into(), truncated)
    }

    /// Gives each new stack a number.
    fn intern(&mut self, stacks: &[Walked]) {
        let mut new: Vec<&Walked> = stacks
            .iter()
            .filter(|(stack, _)| !stack.is_empty() && !self.stacks.contains_key(stack))
            .collect();
        new.sort_unstable();
        new.dedup_by(|one, other| one.0 == other.0);
        let room = MAX_STACKS.saturating_sub(self.stacks.len());
        let over = new.len().saturating_sub(room);
        lose(&mut self.losses, "growth_stacks_left_out", over as u64);
        new.truncate(room);
        for (addresses, truncated) in new {
            let place = Place { addresses: addresses.clone(), truncated: *truncated, frames: None };
            let number = match self.free.pop() {
                Some(number) => {
                    self.places[number as usize] = Some(place);
                    number
                }
                None => {
                    self.places.push(Some(place));
                    (self.places.len() - 1) as u32
                }
            };
            self.stacks.insert(addresses.clone(), number);
        }
    }

    /// Drops the pages that are gone, and the stacks that no page is left of.
    fn look(&mut self, at_seconds: f64) {
        // Of a process that exited, what was there last stays on the record.
        let _ = self.survivors.keep(&mut self.pages, at_seconds);
        self.pages.cap();
        let mut bytes: HashMap<(u32, Via), u64> = HashMap::new();
        self.threads.clear();
        self.touched_at_look = self.touched_bytes;
        for page in self.pages.iter() {
            let stood_for = page.weight.saturating_mul(page_bytes());
            for sum in [
                bytes.entry((page.stack, page.via)).or_default(),
                self.threads.entry(page.thread).or_default(),
            ] {
                *sum = sum.saturating_add(stood_for);
            }
        }
        self.total_bytes = bytes.values().fold(0, |sum, &bytes| sum.saturating_add(bytes));
        let live: HashSet<u32> = bytes.keys().map(|&(stack, _)| stack).collect();
        self.symbolize(&live);
        self.last = self.sites(&bytes, at_seconds);
        for (number, place) in self.places.iter_mut().enumerate().skip(1) {
            if !live.contains(&(number as u32))
                && let Some(gone) = place.take()
            {
                self.stacks.remove(&gone.addresses);
                self.free.push(number as u32);
            }
        }
    }

    /// Looks up the stacks of memory that is there, those that are new in one go.
    fn symbolize(&mut self, live: &HashSet<u32>) {
        let new: Vec<&mut Place> = self
            .places
            .iter_mut()
            .enumerate()
            .filter(|(number, _)| live.contains(&(*number as u32)))
            .filter_map(|(_, place)| place.as_mut().filter(|place| place.frames.is_none()))
            .collect();
        let stacks: Vec<&[u64]> = new.iter().map(|place| &*place.addresses).collect();
        let frames = symbol::stacks(&mut *self.symbolizer, &stacks);
        for (place, frames) in new.into_iter().zip(frames) {
            place.frames = Some(frames);
        }
    }

    /// Stacks that differ in addresses only are one site.
    fn sites(&mut self, bytes: &HashMap<(u32, Via), u64>, at_seconds: f64) -> Vec<GrowthSite> {
        let mut sites = HashMap::new();
        for (&(stack, via), &bytes) in bytes {
            let Some(place) = self.places.get(stack as usize).and_then(Option::as_ref) else { continue };
            let frames = place.frames.clone().unwrap_or_default();
            let id = group_id::of_group(GroupKind::Thread, via.name(), &frames);
            let site = sites.entry(id).or_insert_with(|| GrowthSite {
                frames,
                bytes: 0,
                via: via.name().into(),
                truncated: place.truncated,
                ..GrowthSite::default()
            });
            site.bytes = site.bytes.saturating_add(bytes);
        }
        let now = sites.iter().map(|(&id, site)| (id, site.bytes)).collect();
        for (id, per_second) in self.past.grown(at_seconds, now) {
            if let Some(site) = sites.get_mut(&id) {
                site.bytes_per_second = per_second;
            }
        }
        let mut sites: Vec<_> = sites.into_iter().collect();
        // What was touched long ago does not stand before what keeps growing, nor does it go when there is room.
        sites.sort_unstable_by(|(id, site), (other_id, other)| {
            let (rate, other_rate) = (site.bytes_per_second.max(0.0), other.bytes_per_second.max(0.0));
            other_rate.total_cmp(&rate).then(other.bytes.cmp(&site.bytes)).then(id.cmp(other_id))
        });
        let over = sites.len().saturating_sub(MAX_SITES);
        // The same ones at every look are no further loss.
        lose(&mut self.losses, "growth_sites_left_out", over.saturating_sub(self.left_out) as u64);
        self.left_out = self.left_out.max(over);
        sites.into_iter().take(MAX_SITES).map(|(_, site)| site).collect()
    }
}

#[cfg(test)]
mod tests;
