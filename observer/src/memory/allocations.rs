//! What a target's own allocator handed out and did not get back, by the stack that asked for it.
//!
//! Reads sampled allocations and frees (from the kernel's half); gives an estimate of the live bytes of each site.
//! A sample of `n` bytes stands for `n / (1 - exp(-n / period))`, which makes every sum of them unbiased. Blocks
//! have names that are never used twice, the address and the time, so that nothing depends on the order in which a
//! block is freed here and handed out again there. 20 µs a sample with its stack, nothing for what is not sampled.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::process::maps;
use crate::sample::group_id;
use crate::sample::{AllocationSite, Allocations, Frame, GroupKind, Losses, lose};
use crate::symbol::{self, Symbolizer};
use crate::unwind::{Registers, Unwinder};

mod entrance;
pub(crate) mod loaded;
mod pace;
pub mod provider;

use pace::Pace;

/// Sites that are reported.
pub const MAX_SITES: usize = 50;
/// Different stacks that are told apart; what else there is counts as one.
const MAX_STACKS: usize = 4096;
/// Blocks that are alive; the kernel's half follows no more of them.
const MAX_LIVE: usize = 1 << 16;
/// Frees of blocks whose allocation has not been told yet.
const MAX_EARLY: usize = 1 << 14;
/// Between two readings of the maps.
const REMAP: Duration = Duration::from_millis(50);
/// Frames kept of a stack.
const MAX_FRAMES: usize = 128;

/// A sampled allocation, as the kernel's half tells it.
#[derive(Clone, Copy, Debug)]
pub struct Made<'s> {
    pub address: u64,
    /// Monotonic nanoseconds.
    pub time: u64,
    pub size: u64,
    /// Mean bytes to a sample when it was drawn.
    pub period: u64,
    /// Of the caller, with its return address.
    pub registers: Registers,
    /// A copy of the stack from the stack pointer up.
    pub stack: &'s [u8],
}

/// What is seen of one process image.
pub struct AllocationReader {
    pid: u32,
    symbolizer: Box<dyn Symbolizer>,
    unwinder: Box<dyn Unwinder>,
    code: Vec<(u64, u64)>,
    remapped: Option<Instant>,
    stacks: HashMap<Box<[u64]>, usize>,
    places: Vec<Place>,
    live: HashMap<u64, Block>,
    /// Frees that came before what they free: a later batch brings it.
    early: VecDeque<(u64, u64)>,
    began: Option<f64>,
    losses: Losses,
    /// The most sites that a sample was without.
    left_out: usize,
}

/// A block that is alive, by its address.
struct Block {
    time: u64,
    place: usize,
    bytes: f64,
    variance: f64,
}

/// A stack, and what became of what it asked for.
#[derive(Default)]
struct Place {
    addresses: Box<[u64]>,
    frames: Option<Arc<[Frame]>>,
    live_bytes: f64,
    /// Of `live_bytes`, as an estimate.
    variance: f64,
    live_samples: u64,
    allocated_bytes: f64,
    samples: u64,
    frees: u64,
    pace: Pace,
}

impl AllocationReader {
    pub fn new(pid: u32, symbolizer: Box<dyn Symbolizer>, unwinder: Box<dyn Unwinder>) -> Self {
        Self {
            pid,
            symbolizer,
            unwinder,
            code: Vec::new(),
            remapped: None,
            stacks: HashMap::new(),
            // Number 0 is the place of all that has none of its own.
            places: vec![Place { frames: Some(Arc::new([])), ..Place::default() }],
            live: HashMap::new(),
            early: VecDeque::new(),
            began: None,
            losses: Losses::new(),
            left_out: 0,
        }
    }

    /// Takes a sampled allocation in; soon, so that the process still is as it was.
    pub fn made(&mut self, made: &Made<'_>) {
        let chance = -(-(made.size as f64) / made.period.max(1) as f64).exp_m1();
        if chance <= 0.0 {
            return;
        }
        let bytes = made.size as f64 / chance;
        let place = self.place(made);
        // Handed out again: what was there is gone, also where nobody told so.
        if let Some(before) = self.live.remove(&made.address) {
            self.forget(&before);
        } else if self.live.len() >= MAX_LIVE {
            lose(&mut self.losses, "allocations_left_out", 1);
            return;
        }
        let at = &mut self.places[place];
        at.samples += 1;
        at.live_samples += 1;
        at.allocated_bytes += bytes;
        at.live_bytes += bytes;
        let variance = bytes * bytes * (1.0 - chance);
        at.variance += variance;
        self.live.insert(made.address, Block { time: made.time, place, bytes, variance });
    }

    /// A block is no more. To be called after all that was made until then.
    pub fn freed(&mut self, address: u64, born: u64) {
        match self.live.get(&address) {
            Some(block) if block.time == born => {
                if let Some(block) = self.live.remove(&address) {
                    self.forget(&block);
                }
            }
            // Its address has been handed out again since, and it was forgotten then.
            Some(block) if block.time > born => {}
            _ => {
                if self.early.len() >= MAX_EARLY {
                    self.early.pop_front();
                }
                self.early.push_back((address, born));
            }
        }
    }

    /// Looks again for what was freed before it was told to have been made.
    pub fn settle(&mut self) {
        for (address, born) in std::mem::take(&mut self.early) {
            if self.live.get(&address).is_some_and(|block| block.time == born)
                && let Some(block) = self.live.remove(&address)
            {
                self.forget(&block);
            }
        }
    }

    fn forget(&mut self, block: &Block) {
        let Some(place) = self.places.get_mut(block.place) else { return };
        place.frees += 1;
        place.live_samples = place.live_samples.saturating_sub(1);
        // Sums of many terms drift: with nothing alive it is nothing.
        if place.live_samples == 0 {
            (place.live_bytes, place.variance) = (0.0, 0.0);
        } else {
            place.live_bytes -= block.bytes;
            place.variance -= block.variance;
        }
    }

    fn place(&mut self, made: &Made<'_>) -> usize {
        // The instruction that called, not the one it returns to: that may be another line's.
        let ip = made.registers.ip.saturating_sub(1);
        // A caller that lies in no code is no reason to read the maps for every sample.
        let lately = self.remapped.is_some_and(|at| at.elapsed() < REMAP);
        if !lately && !self.code.iter().any(|&(start, end)| start <= ip && ip < end) {
            self.remap();
        }
        let stack = self.unwinder.unwind_copied(&Registers { ip, ..made.registers }, made.stack);
        let mut addresses = stack.addresses;
        addresses.truncate(MAX_FRAMES);
        let addresses: Box<[u64]> = addresses.into();
        if let Some(&number) = self.stacks.get(&addresses) {
            return number;
        }
        if self.stacks.len() >= MAX_STACKS {
            lose(&mut self.losses, "allocation_stacks_left_out", 1);
            return 0;
        }
        self.places.push(Place { addresses: addresses.clone(), ..Place::default() });
        self.stacks.insert(addresses, self.places.len() - 1);
        self.places.len() - 1
    }

    /// New code since the maps were read.
    fn remap(&mut self) {
        self.remapped = Some(Instant::now());
        if let Ok(maps) = maps::read(self.pid)
            && !maps.is_empty()
        {
            self.unwinder.remap(&maps);
            self.code = maps.iter().filter(|map| map.executable).map(|map| (map.start, map.end)).collect();
        }
    }

    /// What is alive now, at `at_seconds` on the caller's clock.
    pub fn sample(&mut self, at_seconds: f64) -> Allocations {
        let began = *self.began.get_or_insert(at_seconds);
        for place in &mut self.places {
            place.pace.note(at_seconds - began, place.live_bytes);
        }
        self.symbolize();
        let sum = |of: fn(&Place) -> f64| self.places.iter().map(of).sum::<f64>().max(0.0) as u64;
        let (live_bytes, allocated_bytes) =
            (sum(|place| place.live_bytes), sum(|place| place.allocated_bytes));
        Allocations {
            since_seconds: at_seconds - began,
            live_bytes,
            allocated_bytes,
            samples: self.places.iter().map(|place| place.samples).sum(),
            frees: self.places.iter().map(|place| place.frees).sum(),
            sites: self.sites(),
            ..Allocations::default()
        }
    }

    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Looks up the stacks that are new and hold something, in one go.
    fn symbolize(&mut self) {
        let new: Vec<&mut Place> =
            self.places.iter_mut().filter(|place| place.live_samples > 0 && place.frames.is_none()).collect();
        let stacks: Vec<&[u64]> = new.iter().map(|place| &*place.addresses).collect();
        let frames = symbol::stacks(&mut *self.symbolizer, &stacks);
        for (place, frames) in new.into_iter().zip(frames) {
            place.frames = Some(frames);
        }
    }

    /// Stacks that differ in addresses only are one site; largest first.
    fn sites(&mut self) -> Vec<AllocationSite> {
        let mut sites = HashMap::new();
        for place in self.places.iter().filter(|place| place.live_samples > 0) {
            let frames = place.frames.clone().unwrap_or_default();
            let id = group_id::of_group(GroupKind::Thread, "allocation", &frames);
            let (site, variance) = sites
                .entry(id)
                .or_insert_with(|| (AllocationSite { id, frames, ..AllocationSite::default() }, 0.0));
            site.live_bytes += place.live_bytes.max(0.0) as u64;
            site.live_samples += place.live_samples;
            site.allocated_bytes += place.allocated_bytes as u64;
            site.samples += place.samples;
            site.frees += place.frees;
            site.growth_bytes_per_second += place.pace.per_second();
            *variance += place.variance;
            site.error_bytes = variance.max(0.0).sqrt() as u64;
        }
        let mut sites: Vec<AllocationSite> = sites.into_values().map(|(site, _)| site).collect();
        sites
            .sort_unstable_by(|one, other| other.live_bytes.cmp(&one.live_bytes).then(one.id.cmp(&other.id)));
        let over = sites.len().saturating_sub(MAX_SITES);
        // The same ones at every look are no further loss.
        lose(&mut self.losses, "allocation_sites_left_out", over.saturating_sub(self.left_out) as u64);
        self.left_out = self.left_out.max(over);
        sites.truncate(MAX_SITES);
        sites
    }
}

#[cfg(test)]
mod tests;
