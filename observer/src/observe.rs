//! The loop's body: everything that is known of one target, and how a [`Sample`] of it is taken.
//!
//! Reads through `runtime`, `threads`, `memory` and `kernel`; gives samples. Costs what its parts cost; what is dear (following
//! the heap of a growing group) is done only so often that it stays under one per cent of one core.

mod allocations;
pub(crate) mod check;
pub(crate) mod degrade;
mod native;
pub(crate) mod options;
pub(crate) mod own_memory;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::kernel::Fault;
use crate::memory::usage::ProcessReader;
use crate::process::Exited;
use crate::process::Target;
use crate::process::identity::{IdentityError, Life};
use crate::sample::{GroupKind, Sample, TargetInfo};

use crate::runtime::Runtimes;
use crate::runtime::retention::RetentionSchedule;
use native::Native;
pub use options::{KernelSource, Options};

/// How often what the kernel has put by is to be taken: a burst fills its buffer within some tenths of a second.
pub const DRAIN: Duration = Duration::from_millis(50);

/// Following the heap of more goroutines than this costs more than the rest of a snapshot.
const FOLLOWED_IN_SNAPSHOT: u64 = 20_000;

/// One target under observation.
pub struct Observer {
    target: Target,
    info: TargetInfo,
    began: Instant,
    generation: u32,
    options: Options,
    kernel: KernelSource,
    first_page_faults: u64,
    process: ProcessReader,
    runtimes: Runtimes,
    heap: RetentionSchedule,
    native: Native,
}

impl Observer {
    /// Attaches to `pid` (in observer's PID namespace). The target notices nothing.
    pub fn attach(pid: u32, options: &Options, kernel: KernelSource) -> Result<Self> {
        let target = Target::open(pid)?;
        let mut info = target.info();
        let runtimes = Runtimes::open(pid, &mut info);
        let process = ProcessReader::open(pid)
            .map_err(|error| gone_or(pid, error.into()))
            .with_context(|| format!("reading the memory figures of pid {pid}"))?;
        // A moment of a program whose threads carry tasks seldom needs the kernel, and loading it costs more than the
        // moment itself.
        let unneeded = runtimes.code().parks_carriers && !options.growth;
        let now = if unneeded { &KernelSource::Off } else { &kernel };
        let native = Native::open(pid, options, now, &runtimes);
        let first_page_faults = target.page_faults();
        Ok(Self {
            target,
            info,
            first_page_faults,
            began: Instant::now(),
            generation: 0,
            options: *options,
            kernel,
            process,
            runtimes,
            heap: RetentionSchedule::default(),
            native,
        })
    }

    pub fn info(&self) -> &TargetInfo {
        &self.info
    }

    /// Seconds since attach.
    pub fn at_seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether the process is still there, also as another program.
    pub fn is_alive(&self) -> bool {
        self.target.life() != Life::Gone
    }

    /// Takes what the kernel has put by, so that its buffer does not fill up; cheap, to be called between samples.
    pub fn drain(&mut self) {
        self.native.drain();
    }

    /// Notes page faults of the target that somebody else took from the kernel.
    pub fn record(&mut self, faults: &[Fault]) {
        self.native.record(faults);
    }

    /// The share of one core that the target may take: looks that are dear are spaced out to keep to a part of it.
    pub fn set_share(&mut self, share: f64) {
        self.heap.set_share(share / 2.0);
        self.native.set_share(share / 8.0);
    }

    /// One moment of the target.
    pub fn sample(&mut self) -> Result<Sample, Exited> {
        self.follow_life()?;
        let mut sample = self.measure()?;
        self.heap.refresh(&mut self.runtimes, &sample);
        self.heap.apply(&mut sample.groups);
        Ok(sample)
    }

    /// The last sample of a window: what is dear is measured now, for all that grew.
    pub fn last_sample(&mut self) -> Result<Sample, Exited> {
        self.follow_life()?;
        let mut sample = self.measure()?;
        self.heap.refresh_now(&mut self.runtimes, &sample);
        self.heap.apply(&mut sample.groups);
        Ok(sample)
    }

    /// A sample that stands alone: the heap of the largest groups is followed too.
    pub fn snapshot(&mut self) -> Result<Sample> {
        let pid = self.target.pid();
        let failed = || format!("reading pid {pid}");
        let mut sample = self.measure().with_context(failed)?;
        let has_threads = sample.groups.iter().any(|group| group.kind == GroupKind::Thread);
        if !matches!(self.kernel, KernelSource::Off) && !self.native.uses_kernel() && has_threads {
            // Threads that C code blocks: their stacks need registers that /proc does not give.
            self.native = Native::open(pid, &self.options, &self.kernel, &self.runtimes);
            sample = self.measure().with_context(failed)?;
        }
        let cheap = sample.totals.tasks.unwrap_or(0) <= FOLLOWED_IN_SNAPSHOT;
        let followed = (self.options.retained || cheap)
            && self.heap.measure_largest(&mut self.runtimes, &sample, self.options.retained);
        if followed {
            self.heap.apply(&mut sample.groups);
        } else {
            sample.degraded.push(degrade::retained());
        }
        sample.took_seconds = self.at_seconds() - sample.at_seconds;
        Ok(sample)
    }

    fn measure(&mut self) -> Result<Sample, Exited> {
        let started = Instant::now();
        let at_seconds = started.duration_since(self.began).as_secs_f64();
        let mut sample = Sample { at_seconds, generation: self.generation, ..Sample::default() };
        sample.memory = self.process.memory().map_err(|_| Exited)?;
        self.runtimes.sample_into(&mut sample)?;
        self.native.sample_into(&mut sample)?;
        if let Some(growth) = &mut sample.growth {
            growth.page_faults = self.target.page_faults().saturating_sub(self.first_page_faults);
        }
        // What was read of a process that died meanwhile is not a moment of its life. One that executed another
        // program meanwhile is begun anew at the next look.
        if self.target.life() == Life::Gone {
            return Err(Exited);
        }
        sample.took_seconds = started.elapsed().as_secs_f64();
        Ok(sample)
    }

    fn follow_life(&mut self) -> Result<(), Exited> {
        match self.target.life() {
            Life::Same => Ok(()),
            Life::Gone => Err(Exited),
            Life::NewImage => self.reopen().map_err(|_| Exited),
        }
    }

    /// The process executed another program: begin anew with it.
    fn reopen(&mut self) -> Result<()> {
        let pid = self.target.pid();
        tracing::info!(pid, "the process executed a program: beginning anew with it");
        // An image that was just mapped is not yet the program that runs it.
        std::thread::sleep(Duration::from_millis(50));
        self.target.adopt();
        self.info = self.target.info();
        self.runtimes = Runtimes::open(pid, &mut self.info);
        self.process = ProcessReader::open(pid)?;
        self.native.leave();
        self.native = Native::open(pid, &self.options, &self.kernel, &self.runtimes);
        self.first_page_faults = self.target.page_faults();
        self.generation += 1;
        Ok(())
    }
}

fn gone_or(pid: u32, error: anyhow::Error) -> anyhow::Error {
    if std::path::Path::new(&format!("/proc/{pid}")).exists() {
        error
    } else {
        IdentityError::Gone { pid }.into()
    }
}
