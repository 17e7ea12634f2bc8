//! The native side of a target: threads, futex waits and memory that grew, with eBPF or without.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::allocations::Allocating;
use super::degrade;
use super::options::{KernelSource, Options};
use crate::kernel::{Fault, KernelOptions, SharedProbes, TargetRegistration, ThreadRecord};
use crate::memory::growth::{GrowthReader, Seen};
use crate::memory::mapped::MapsDifference;
use crate::process::Exited;
use crate::process::maps;
use crate::runtime::Runtimes;
use crate::sample::{Degraded, Group, GroupId, GroupKind, Growth, Losses, Mapped, Sample, lose_all};
use crate::symbol::native::Native as NativeSymbols;
use crate::symbol::perf_map::PerfMap;
use crate::symbol::{Chain, Symbolizer};
use crate::threads::{ThreadError, ThreadReader};
use crate::unwind::dwarf::CallFrames;

/// Comparing the memory maps may take one part in so many of the time.
const MAPS_SHARE: u32 = 200;

pub(super) struct Native {
    pid: u32,
    maps: MapsDifference,
    mapped: Mapped,
    next_maps: Instant,
    registration: Option<TargetRegistration>,
    /// The object, where it was loaded for this target alone: then draining it is ours.
    own: Option<Arc<SharedProbes>>,
    /// What its programs could not keep since the last sample.
    losses: Losses,
    /// What the kernel does not give here, and why.
    degraded: Vec<Degraded>,
    threads: ThreadReader,
    growth: Option<GrowthReader>,
    allocations: Allocating,
    /// More of each stack is copied than at first.
    deep: bool,
}

impl Native {
    pub(super) fn open(pid: u32, options: &Options, source: &KernelSource, runtimes: &Runtimes) -> Self {
        let code = runtimes.code();
        let mut degraded = Vec::new();
        let kernel = kernel(source, options).transpose().map_err(|why| degraded.push(why)).ok().flatten();
        let registration = kernel.as_ref().and_then(|kernel| {
            degraded.extend_from_slice(kernel.degraded());
            // Where all code keeps frame pointers the kernel walks them; elsewhere, also in what a library brought, the
            // stack itself is needed to unwind it.
            let framed = code.keeps_frame_pointers && !has_libraries(pid);
            let registration = kernel.register(pid, options.growth && !framed);
            registration.map_err(|error| degraded.push(degrade::kernel(&error))).ok()
        });
        let growth = (options.growth && registration.is_some())
            .then(|| {
                GrowthReader::open(
                    pid,
                    &code,
                    symbols(pid, runtimes),
                    Box::new(CallFrames::beside(pid, &code)),
                )
            })
            .and_then(|growth| growth.map_err(|error| degraded.push(degrade::growth(pid, &error))).ok());
        if let Some(error) = growth.as_ref().and_then(GrowthReader::coarse) {
            degraded.push(degrade::coarse_growth(pid, error));
        }
        let allocations = match options.allocations {
            None => Allocating::default(),
            Some(_) => Allocating::wanted(pid, code.own_allocator, symbols(pid, runtimes)),
        };
        Self {
            pid,
            maps: MapsDifference::default(),
            mapped: Mapped::default(),
            next_maps: Instant::now(),
            registration,
            own: kernel.filter(|_| matches!(source, KernelSource::Load)),
            losses: Losses::new(),
            degraded,
            threads: ThreadReader::open(pid, &code, symbols(pid, runtimes)),
            growth,
            allocations,
            deep: false,
        }
    }

    /// The target is observed by the kernel no longer: another may take its place.
    pub(super) fn leave(&mut self) {
        self.registration = None;
    }

    /// Whether eBPF is loaded, or was tried in vain.
    pub(super) fn uses_kernel(&self) -> bool {
        self.registration.is_some() || !self.degraded.is_empty()
    }

    /// Takes what the kernel has put by, where nobody else does.
    pub(super) fn drain(&mut self) {
        if let Some(kernel) = self.own.clone() {
            let drained = kernel.drain();
            lose_all(&mut self.losses, drained.losses);
            self.record(&drained.faults);
        }
        if let Some(registration) = &self.registration {
            self.allocations.take(registration);
        }
    }

    /// Notes page faults of the target.
    pub(super) fn record(&mut self, faults: &[Fault]) {
        let Some(growth) = &mut self.growth else { return };
        growth.record(&faults.iter().map(Seen::from).collect::<Vec<_>>());
        if !self.deep
            && growth.wants_deeper_stacks()
            && let Some(registration) = &self.registration
        {
            self.deep = true;
            if let Err(error) = registration.copy_deep_stacks() {
                tracing::debug!(pid = self.pid, %error, "stacks stay cut");
            }
        }
    }

    /// The share of one core that looking at mappings may take, for threads and for growth.
    pub(super) fn set_share(&mut self, share: f64) {
        self.threads.set_share(share);
        if let Some(growth) = &mut self.growth {
            growth.set_share(share);
        }
    }

    /// Fills in threads, waits, growth, and what was lost.
    pub(super) fn sample_into(&mut self, sample: &mut Sample) -> Result<(), Exited> {
        self.drain();
        sample.degraded.extend(self.degraded.iter().cloned());
        let census = self.census(sample);
        match self.threads.sample(sample.at_seconds, census.as_deref()) {
            Ok(read) => {
                sample.groups.extend(read.groups);
                sample.totals.threads = read.threads;
                sample.totals.groups += read.groups_total;
                sample.totals.members_left_out += read.members_left_out;
                sample.deadlocks.extend(read.deadlocks);
                lose_all(&mut sample.losses, read.losses);
                sample.degraded.extend(read.degraded);
            }
            Err(ThreadError::Exited(_)) => return Err(Exited),
            Err(error) => sample.degraded.push(degrade::threads(&error)),
        }
        let mut growth = Growth::default();
        if let Some(registration) = &self.registration {
            sample.waits = registration.waits();
            growth.sample_period = registration.sample_period().unwrap_or(0);
            growth.mapped = registration.mapped().unwrap_or_default();
        }
        lose_all(&mut sample.losses, std::mem::take(&mut self.losses));
        if growth.mapped.source.is_empty() {
            self.compare_maps();
            growth.mapped = self.mapped.clone();
        }
        if let Some(reader) = &mut self.growth {
            let found = reader.sample(sample.at_seconds);
            lose_all(&mut sample.losses, found.losses);
            growth.sites = found.sites;
            growth.touched_bytes = found.touched_bytes;
            growth.returned_bytes = found.returned_bytes;
        }
        if let (Some(reader), Some(census)) = (&self.growth, &census) {
            tell_who_touched(&self.threads, reader, census, &mut sample.groups);
        }
        sample.growth = Some(growth);
        if let Some(registration) = &self.registration {
            self.allocations.sample_into(registration, sample);
        }
        Ok(())
    }

    /// What was mapped and unmapped, by the difference of the maps; less often where there are many.
    fn compare_maps(&mut self) {
        let started = Instant::now();
        if started < self.next_maps {
            return;
        }
        if let Ok(maps) = maps::read(self.pid)
            && !maps.is_empty()
        {
            self.mapped = self.maps.update(&maps).clone();
        }
        self.next_maps = Instant::now() + started.elapsed() * MAPS_SHARE;
    }

    /// The threads by the kernel's iterator; `None` where only `/proc` is left.
    fn census(&mut self, sample: &mut Sample) -> Option<Vec<ThreadRecord>> {
        match self.registration.as_ref()?.census() {
            Ok(census) => {
                if census.left_out > 0 {
                    *sample.losses.entry("threads_left_out".to_owned()).or_default() += census.left_out;
                }
                Some(census.threads)
            }
            Err(error) => {
                sample.degraded.push(degrade::kernel(&error));
                None
            }
        }
    }
}

/// Notes for each group of threads what its members first touched and is still there.
fn tell_who_touched(
    threads: &ThreadReader,
    growth: &GrowthReader,
    census: &[ThreadRecord],
    groups: &mut [Group],
) {
    let global: HashMap<u32, u32> = census.iter().map(|record| (record.tid, record.global_tid)).collect();
    let mut touched: HashMap<GroupId, u64> = HashMap::new();
    for (tid, group) in threads.members() {
        let bytes =
            global.get(&tid).and_then(|tid| growth.touched_by_thread().get(tid)).copied().unwrap_or(0);
        let sum = touched.entry(group).or_default();
        *sum = sum.saturating_add(bytes);
    }
    for group in groups.iter_mut().filter(|group| group.kind == GroupKind::Thread) {
        group.touched_bytes = touched.get(&group.id).copied();
    }
}

/// The object that serves this target, or why none does.
fn kernel(source: &KernelSource, options: &Options) -> Option<Result<Arc<SharedProbes>, Degraded>> {
    match source {
        KernelSource::Off => None,
        KernelSource::Shared(kernel) => Some(kernel.clone()),
        KernelSource::Load => {
            // One moment has no waits that end in it, nor growth: what would count them need not be loaded.
            let wanted = KernelOptions {
                exact: options.exact,
                growth: options.growth,
                waits: options.growth,
                allocations: options.allocations,
                ..KernelOptions::default()
            };
            Some(SharedProbes::load(&wanted).map_err(|error| degrade::kernel(&error)))
        }
    }
}

/// Runtimes' own tables first: they know inlined calls that ELF symbols do not.
fn symbols(pid: u32, runtimes: &Runtimes) -> Box<dyn Symbolizer> {
    let mut chain = runtimes.symbolizers();
    chain.push(Box::new(NativeSymbols::new(pid)));
    chain.push(Box::new(PerfMap::new(pid)));
    Box::new(Chain(chain))
}

/// Whether it runs code of libraries beside that of its executable.
fn has_libraries(pid: u32) -> bool {
    let code = maps::read(pid).unwrap_or_default().into_iter().filter(|map| map.executable && map.is_file());
    let files: BTreeSet<u64> = code.map(|map| map.inode).collect();
    files.len() > 1
}
