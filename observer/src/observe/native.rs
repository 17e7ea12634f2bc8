//! The native side of a target: threads, futex waits and memory that grew, with eBPF or without.

use std::time::Instant;

use super::goroutines::Goroutines;
use super::{Exited, Options, degrade};
use crate::collect::growth::{GrowthReader, Touch};
use crate::collect::mapped::MapsDifference;
use crate::collect::threads::unwind::{Registers, dwarf::CallFrames};
use crate::collect::threads::{ThreadError, ThreadOptions, ThreadReader};
use crate::kernel::{CensusOptions, Fault, Kernel, KernelOptions, TargetHandle, ThreadRecord};
use crate::sample::{Degraded, Growth, Losses, Mapped, Sample};
use crate::symbol::native::Native as NativeSymbols;
use crate::symbol::{Chain, Symbolizer};
use crate::target::maps;

/// Comparing the memory maps may take one part in so many of the time.
const MAPS_SHARE: u32 = 200;

pub struct Native {
    pid: u32,
    maps: MapsDifference,
    mapped: Mapped,
    next_maps: Instant,
    kernel: Option<(Kernel, TargetHandle)>,
    /// What the kernel does not give here, and why.
    degraded: Vec<Degraded>,
    threads: ThreadReader,
    growth: Option<GrowthReader>,
}

impl Native {
    pub fn open(pid: u32, options: &Options, goroutines: &Goroutines) -> Self {
        let go = goroutines.is_go();
        let mut degraded = Vec::new();
        let kernel = options.ebpf.then(|| load(pid, options, go)).and_then(|loaded| match loaded {
            Ok((kernel, target)) => {
                degraded.extend(kernel.features().degraded());
                Some((kernel, target))
            }
            Err(why) => {
                degraded.push(why);
                None
            }
        });
        let growth = (options.growth && kernel.is_some())
            .then(|| GrowthReader::open(pid, go, symbols(pid, goroutines), Box::new(CallFrames::new(pid))))
            .and_then(|growth| growth.map_err(|error| degraded.push(degrade::growth(pid, &error))).ok());
        Self {
            pid,
            maps: MapsDifference::default(),
            mapped: Mapped::default(),
            next_maps: Instant::now(),
            kernel,
            degraded,
            threads: ThreadReader::open(pid, &ThreadOptions { go }, symbols(pid, goroutines)),
            growth,
        }
    }

    /// Whether eBPF is loaded, or was tried in vain.
    pub fn uses_kernel(&self) -> bool {
        self.kernel.is_some() || !self.degraded.is_empty()
    }

    /// Takes what the kernel has put by.
    pub fn drain(&mut self) {
        let (Some((kernel, _)), Some(growth)) = (&mut self.kernel, &mut self.growth) else { return };
        let faults = kernel.drain_faults();
        let touches: Vec<Touch<'_>> = faults.iter().map(touch).collect();
        growth.record(&touches);
    }

    /// Fills in threads, waits, growth, and what was lost.
    pub fn sample_into(&mut self, sample: &mut Sample) -> Result<(), Exited> {
        self.drain();
        sample.degraded.extend(self.degraded.iter().cloned());
        let census = self.census(sample);
        match self.threads.sample(sample.at_seconds, census.as_deref()) {
            Ok(read) => {
                sample.groups.extend(read.groups);
                sample.totals.threads = read.threads;
                sample.totals.groups += read.groups_total;
                sample.totals.members_left_out += read.members_left_out;
                add(&mut sample.losses, read.losses);
                sample.degraded.extend(read.degraded);
            }
            Err(ThreadError::Exited(_)) => return Err(Exited),
            Err(error) => sample.degraded.push(degrade::threads(&error)),
        }
        let mut growth = Growth::default();
        if let Some((kernel, target)) = &mut self.kernel {
            sample.waits = kernel.waits(target);
            growth.sample_period = kernel.sample_period().unwrap_or(0);
            growth.mapped = kernel.mapped(target).unwrap_or_default();
            add(&mut sample.losses, kernel.losses());
        }
        if growth.mapped.source.is_empty() {
            self.compare_maps();
            growth.mapped = self.mapped.clone();
        }
        if let Some(reader) = &mut self.growth {
            let found = reader.sample(sample.at_seconds);
            add(&mut sample.losses, found.losses);
            growth.sites = found.sites;
        }
        sample.growth = Some(growth);
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
        let (kernel, target) = self.kernel.as_mut()?;
        match kernel.census(target, CensusOptions::default()) {
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

fn load(pid: u32, options: &Options, go: bool) -> Result<(Kernel, TargetHandle), Degraded> {
    // One moment has no waits that end in it, nor growth: what would count them need not be loaded.
    let wanted = KernelOptions {
        exact: options.exact,
        growth: options.growth,
        waits: options.growth,
        ..KernelOptions::default()
    };
    let mut kernel = Kernel::load(&wanted).map_err(|error| degrade::kernel(&error))?;
    let target = kernel.add_target(pid).map_err(|error| degrade::kernel(&error))?;
    if options.growth && !go {
        // Go keeps frame pointers everywhere; elsewhere the stack itself is needed to unwind it.
        kernel.copy_stacks(&target, true).map_err(|error| degrade::kernel(&error))?;
    }
    Ok((kernel, target))
}

/// Go's own tables first: they know inlined calls that ELF symbols do not.
fn symbols(pid: u32, goroutines: &Goroutines) -> Box<dyn Symbolizer> {
    let native = Box::new(NativeSymbols::new(pid));
    match goroutines.symbols() {
        Some(go) => Box::new(Chain(vec![Box::new(go), native])),
        None => native,
    }
}

fn touch(fault: &Fault) -> Touch<'_> {
    Touch {
        address: fault.address,
        weight: fault.weight,
        registers: Registers { ip: fault.ip, sp: fault.sp, bp: Some(fault.bp) },
        frames: &fault.frames,
        stack: &fault.stack,
    }
}

fn add(losses: &mut Losses, more: Losses) {
    for (name, count) in more {
        *losses.entry(name).or_default() += count;
    }
}
