//! The loaded object: targets come and go, sources are read, all of it is drained at once.

use std::io;
use std::path::Path;

use aya::maps::{Array, MapData, MapError, PerCpuArray};
use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use aya_log::EbpfLogger;
use observer_common::loss::{LOSSES, Loss};
use observer_common::target::{FLAG_COPY_STACK, FLAG_DEEP_STACK};

use super::allocations::{self, Function};
use super::census::{Census, CensusProgram};
use super::error::KernelError;
use super::features::{self, Features};
use super::maps::take_map;
use super::object::OBJECT;
use super::options::KernelOptions;
use super::source::{Drained, Object};
use super::sources::Sources;
use super::targets::{TargetHandle, Targets};
use super::{heap, layout};
use crate::sample::{Losses, Mapped, Waits};

/// The loaded eBPF object. Dropping it detaches everything.
pub struct Probes {
    census: CensusProgram,
    targets: Targets,
    sources: Sources,
    features: Features,
    losses: PerCpuArray<MapData, u64>,
    lost_before: [u64; LOSSES as usize],
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Keeps the programs and their links.
    _ebpf: Ebpf,
}

impl Probes {
    /// Loads the programs and attaches them. Takes about 0.2 s, most of it parsing the kernel's BTF.
    pub fn load(options: &KernelOptions) -> Result<Self, KernelError> {
        let loaded = Self::load_object(options);
        heap::trim();
        loaded
    }

    fn load_object(options: &KernelOptions) -> Result<Self, KernelError> {
        let object = OBJECT.map_err(|reason| KernelError::NotBuilt { reason })?;
        let layout = layout::running()?;
        let log_level = aya_log_level(log::max_level());
        let verbose = log::max_level() >= log::LevelFilter::Debug;
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .verifier_log_level(if verbose { VerifierLogLevel::DEBUG } else { VerifierLogLevel::DISABLE })
            .override_global("LAYOUT", &layout, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries("EVENTS", options.lifecycle_ring_bytes)
            // Rings that nobody will fill are made as small as they can be.
            .map_max_entries("FAULTS", if options.growth { options.growth_ring_bytes } else { 4096 })
            .map_max_entries("AYA_LOGS", if log_level == 0 { 4096 } else { 128 << 10 });
        if options.allocations.is_none() {
            for (map, least) in allocations::LEAST {
                loader.map_max_entries(map, least);
            }
        }
        let mut ebpf = loader.load(object).map_err(explain)?;
        drop(loader);
        let btf = Btf::from_sys_fs().map_err(EbpfError::from)?;
        let program = load_census(&mut ebpf, &btf).map_err(|error| {
            if features::is_out_of_memory(&error) {
                return KernelError::NoMemory { what: "programs" };
            }
            let refusal = features::refusal("census", &error);
            KernelError::Program { program: "census", reason: refusal.reason, remedy: refusal.remedy }
        })?;
        let mut features = Features::default();
        let on = features::State::On { hook: "iter.s/task", cost: "nothing between censuses" };
        features.list.push(features::Feature::of("census", on, Vec::new()));
        let mut from = Object { ebpf: &mut ebpf, btf: &btf, bytes: object };
        let sources = Sources::load(&mut from, options, &mut features)?;
        let logger = if log_level == 0 { None } else { EbpfLogger::init(&mut ebpf).ok() };
        Ok(Self {
            census: CensusProgram::new(take_map(&mut ebpf, "CENSUS_REQUEST", Array::try_from)?, program),
            targets: Targets::new(
                take_map(&mut ebpf, "TARGETS", Array::try_from)?,
                take_map(&mut ebpf, "REGISTERED", Array::try_from)?,
            ),
            sources,
            features,
            losses: take_map(&mut ebpf, "LOSS", PerCpuArray::try_from)?,
            lost_before: [0; LOSSES as usize],
            logger,
            _ebpf: ebpf,
        })
    }

    /// Per source: the hook that was chosen, or why there is none.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Begins to observe a process, by its pid in our PID namespace.
    pub fn add_target(&mut self, pid: u32) -> Result<TargetHandle, KernelError> {
        let target = self.targets.add(&mut self.census, pid)?;
        let begun = self.begin(&target);
        if begun.is_err() {
            self.targets.remove(&target);
        }
        begun.map(|()| target)
    }

    /// Sets the counters of a target's slot to nothing and shows it to the programs.
    fn begin(&mut self, target: &TargetHandle) -> Result<(), KernelError> {
        for source in self.sources.all() {
            source.clear(target)?;
        }
        self.targets.publish(target, 0)
    }

    /// Ends it; the handle is no longer good for anything.
    pub fn remove_target(&mut self, target: &TargetHandle) {
        if self.targets.knows(target) {
            self.targets.remove(target);
            for source in self.sources.all() {
                source.remove(target);
            }
        }
    }

    /// Has samples of page faults carry a copy of the stack: for code without frame pointers.
    pub fn copy_stacks(&mut self, target: &TargetHandle, copy: bool) -> Result<(), KernelError> {
        if !self.targets.knows(target) {
            return Err(KernelError::NoSuchProcess { pid: target.pid() });
        }
        self.targets.publish(target, if copy { FLAG_COPY_STACK } else { 0 })
    }

    /// Has them carry twice as much of it: for a target whose stacks are deep.
    pub fn copy_deep_stacks(&mut self, target: &TargetHandle) -> Result<(), KernelError> {
        if !self.targets.knows(target) {
            return Err(KernelError::NoSuchProcess { pid: target.pid() });
        }
        self.targets.publish(target, FLAG_COPY_STACK | FLAG_DEEP_STACK)
    }

    /// Every thread of the target. Empty when the process is gone.
    pub fn census(&mut self, target: &TargetHandle) -> Result<Census, KernelError> {
        let pid = target.pid();
        let link = self.targets.link(target).ok_or(KernelError::NoSuchProcess { pid })?;
        self.census.take(link, target.global_tgid()).map_err(|error| KernelError::Census { pid, error })
    }

    /// Futex waits that ended since the target was added; absent without the program.
    pub fn waits(&self, target: &TargetHandle) -> Option<Waits> {
        self.sources.waits.as_ref()?.read(self.slot(target)?).ok()
    }

    /// One futex wait of so many is timed now, and stands for them; absent without the program.
    pub fn wait_period(&self) -> Option<u64> {
        Some(self.sources.waits.as_ref()?.period())
    }

    /// Bytes mapped and unmapped since the target was added; absent where the calls are not traced.
    pub fn mapped(&self, target: &TargetHandle) -> Option<Mapped> {
        self.sources.mapped.as_ref()?.read(self.slot(target)?).ok()
    }

    /// Takes all that the kernel half has put by, of all targets, and passes its log lines on. To be called several
    /// times a second: the kernel's buffers hold some tenths of a second of the worst.
    pub fn drain(&mut self) -> Drained {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let mut drained = Drained::default();
        for source in self.sources.all() {
            source.drain(&self.targets, &mut drained);
        }
        drained.losses = self.losses();
        drained
    }

    /// One fault of so many is sampled now (each sample says what it stands for); absent without the program.
    pub fn sample_period(&self) -> Option<u64> {
        Some(self.sources.growth.as_ref()?.period())
    }

    /// Puts breakpoints on functions of an allocator that the target has mapped from `file`: its allocations are
    /// sampled from here on. They are taken out with [`Self::remove_target`], or when the object is dropped.
    pub fn track_allocations(
        &mut self,
        target: &TargetHandle,
        file: &Path,
        functions: &[Function],
    ) -> Result<(), KernelError> {
        let pid = target.pid();
        if !self.targets.knows(target) {
            return Err(KernelError::NoSuchProcess { pid });
        }
        let allocations = self.sources.allocations.as_mut().ok_or(KernelError::NoAllocations)?;
        allocations.track(target, file, functions).map_err(|error| KernelError::Breakpoints { pid, error })
    }

    /// How allocations are probed, and one of how many bytes is sampled now; absent without the program.
    pub fn allocation_sampling(&self) -> Option<(&'static str, u64)> {
        let allocations = self.sources.allocations.as_ref()?;
        Some((allocations.hook(), allocations.period()))
    }

    /// What the programs could not keep since the last call, all targets together.
    fn losses(&mut self) -> Losses {
        let mut losses = Losses::new();
        for loss in Loss::ALL {
            let Ok(counters) = self.losses.get(&(loss as u32), 0) else { continue };
            let total: u64 = counters.iter().sum();
            let before = std::mem::replace(&mut self.lost_before[loss as usize], total);
            if total > before {
                losses.insert(loss.name().to_owned(), total - before);
            }
        }
        losses
    }

    fn slot(&self, target: &TargetHandle) -> Option<u32> {
        self.targets.knows(target).then(|| target.slot())
    }
}

fn load_census(ebpf: &mut Ebpf, btf: &Btf) -> Result<aya::programs::ProgramFd, ProgramError> {
    let iter: &mut Iter = ebpf.program_mut("census").ok_or(ProgramError::NotLoaded)?.try_into()?;
    iter.load("task", btf)?;
    Ok(iter.fd()?.try_clone()?)
}

/// Refused maps are how missing capabilities, and too small a memory limit, show first.
fn explain(error: EbpfError) -> KernelError {
    let denied = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) if denied(io_error) => {
            let missing = features::missing_capabilities();
            let missing = if missing.is_empty() { "no capability is".into() } else { missing.join(", ") };
            KernelError::NotPermitted { missing }
        }
        EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.raw_os_error() == Some(libc::ENOMEM) =>
        {
            KernelError::NoMemory { what: "maps" }
        }
        _ => KernelError::Load(error),
    }
}

/// aya-log's number of a level; 0, nothing, unless somebody debugs: programs log nothing else.
fn aya_log_level(filter: log::LevelFilter) -> u8 {
    if filter < log::LevelFilter::Debug { 0 } else { filter as u8 }
}
