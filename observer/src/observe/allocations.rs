//! Tracking the allocations of one target: finds its allocator, has the kernel put breakpoints there, keeps count.

use crate::kernel::{Allocation, TargetRegistration};
use crate::memory::allocations::{AllocationReader, Made, provider};
use crate::process::code::OwnAllocator;
use crate::process::maps;
use crate::sample::{Degraded, Sample, lose_all};
use crate::symbol::Symbolizer;
use crate::unwind::{Registers, dwarf::CallFrames};

/// Looks for an allocator: a program that has only just started has not loaded its libraries yet.
const TRIES: u8 = 10;

/// Nothing, where it is not asked for.
#[derive(Default)]
pub(super) struct Allocating {
    wanted: Option<Wanted>,
    tracked: Option<Tracked>,
    /// Why it is not tracked.
    refused: Option<Degraded>,
}

struct Wanted {
    pid: u32,
    own: Option<OwnAllocator>,
    symbols: Box<dyn Symbolizer>,
    tries: u8,
}

impl Allocating {
    pub(super) fn wanted(pid: u32, own: Option<OwnAllocator>, symbols: Box<dyn Symbolizer>) -> Self {
        Self { wanted: Some(Wanted { pid, own, symbols, tries: 0 }), ..Self::default() }
    }

    /// Takes what was drained.
    pub(super) fn take(&mut self, registration: &TargetRegistration) {
        if let Some(tracked) = &mut self.tracked {
            tracked.take(registration);
        }
    }

    pub(super) fn sample_into(&mut self, registration: &TargetRegistration, sample: &mut Sample) {
        if let Some(wanted) = self.wanted.take() {
            self.begin(registration, wanted);
        }
        sample.degraded.extend(self.refused.clone());
        if let Some(tracked) = &mut self.tracked {
            tracked.sample_into(registration, sample);
        }
    }

    fn begin(&mut self, registration: &TargetRegistration, mut wanted: Wanted) {
        match Tracked::probe(wanted.pid, wanted.own, registration) {
            Ok(allocators) => {
                self.refused = None;
                self.tracked = Some(Tracked::new(wanted.pid, wanted.own, allocators, wanted.symbols));
            }
            Err(why) => {
                self.refused = Some(why);
                wanted.tries += 1;
                self.wanted = (wanted.tries < TRIES).then_some(wanted);
            }
        }
    }
}

struct Tracked {
    reader: AllocationReader,
    allocators: Vec<String>,
    /// What it does not cover.
    degraded: Vec<Degraded>,
}

impl Tracked {
    /// From here on the target's allocator has breakpoints, until the registration is dropped.
    fn probe(
        pid: u32,
        own: Option<OwnAllocator>,
        registration: &TargetRegistration,
    ) -> Result<Vec<String>, Degraded> {
        if registration.allocation_sampling().is_none() {
            return Err(degraded(
                "this kernel offers no way to sample allocations".to_owned(),
                "needs Linux 6.6 with CONFIG_UPROBES, CAP_BPF and CAP_PERFMON; `observer doctor` says what was refused",
            ));
        }
        let maps = maps::read(pid).unwrap_or_default();
        let providers = provider::find(pid, &maps);
        if let Some(own) = own.filter(|_| providers.is_empty()) {
            return Err(degraded(
                format!(
                    "{} has its own allocator, which is not tracked, and this program has no C code with one",
                    own.of
                ),
                own.told_anyway,
            ));
        }
        if providers.is_empty() {
            return Err(degraded(
                "no malloc was found: the program is static and stripped, or its allocator has another name"
                    .to_owned(),
                "keep the symbols of static programs (do not strip them)",
            ));
        }
        let mut allocators = Vec::new();
        for provider in &providers {
            registration
                .track_allocations(&provider.module.path(), &provider.functions)
                .map_err(|error| degraded(error.to_string(), "`observer doctor` says what is missing"))?;
            allocators.push(provider.module.name.clone());
        }
        tracing::warn!(
            pid,
            allocator = allocators.join(", "),
            "--allocations touches the process: breakpoints in its allocator's code, in its memory alone, some 1 µs each \
             call; the kernel takes them out at the end, however that comes"
        );
        Ok(allocators)
    }

    fn new(
        pid: u32,
        own: Option<OwnAllocator>,
        allocators: Vec<String>,
        symbols: Box<dyn Symbolizer>,
    ) -> Self {
        let degraded = own.map(|own| {
            degraded(
                format!("{} has its own allocator: only what its C code allocates is tracked", own.of),
                own.told_anyway,
            )
        });
        Self {
            reader: AllocationReader::new(pid, symbols, Box::new(CallFrames::new(pid))),
            allocators,
            degraded: degraded.into_iter().collect(),
        }
    }

    fn take(&mut self, registration: &TargetRegistration) {
        for allocation in registration.allocations() {
            match allocation {
                Allocation::Made(made) => self.reader.made(&Made {
                    address: made.address,
                    time: made.time,
                    size: made.size,
                    period: made.period,
                    registers: Registers { ip: made.ip, sp: made.sp, bp: Some(made.bp), lr: None },
                    stack: &made.stack,
                }),
                Allocation::Freed { address, born, .. } => self.reader.freed(address, born),
            }
        }
        self.reader.settle();
    }

    fn sample_into(&mut self, registration: &TargetRegistration, sample: &mut Sample) {
        self.take(registration);
        let mut found = self.reader.sample(sample.at_seconds);
        found.allocators.clone_from(&self.allocators);
        if let Some((hook, period)) = registration.allocation_sampling() {
            hook.clone_into(&mut found.hook);
            found.sample_bytes = period;
        }
        lose_all(&mut sample.losses, self.reader.take_losses());
        sample.degraded.extend(self.degraded.iter().cloned());
        sample.allocations = Some(found);
    }
}

fn degraded(reason: String, remedy: &str) -> Degraded {
    Degraded { feature: "allocations".to_owned(), reason, remedy: remedy.to_owned() }
}
