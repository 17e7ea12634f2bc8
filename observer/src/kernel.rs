//! The kernel half, from user space: loads the eBPF object once for one or many targets and drains it.
//!
//! One module a source, named as in `observer-ebpf`. What this kernel does not permit is left out with a
//! reason ([`Features`]), not an error; [`Probes::load`] fails only when no program can run at all.

pub mod allocations;
pub mod btf;
pub mod census;
pub mod features;
pub mod floor;
mod growth;
pub mod heap;
pub mod layout;
mod lifecycle;
mod mapped;
pub mod shared;
mod source;
mod sys;
mod targets;
mod waits;
mod windows;

use std::io;
use std::path::Path;

use aya::maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, Pod, VerifierLogLevel};
use aya_log::EbpfLogger;
use observer_common::loss::{LOSSES, Loss};
use observer_common::target::{FLAG_COPY_STACK, FLAG_DEEP_STACK};

use crate::sample::{Losses, Mapped, Waits};
pub use allocations::Allocation;
pub use census::{Census, ThreadRecord};
pub use features::Features;
pub use growth::{Fault, Moved};
pub use lifecycle::{Change, LifecycleEvent};
pub use shared::{SharedProbes, TargetRegistration};
pub use source::Drained;
pub use targets::TargetHandle;
pub use windows::{Hooks, Windows};

/// What to load.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Trace every mapping call: exact, where fexit is refused at the cost of every process of the machine.
    pub exact: bool,
    /// Sample page faults.
    pub growth: bool,
    /// Time futex waits.
    pub waits: bool,
    /// When the hooks of those two are attached.
    pub hooks: Hooks,
    /// Be able to sample allocations, one of so many bytes: for targets that it is asked for, which it touches.
    pub allocations: Option<u64>,
    /// Bytes of the ring of sampled faults, rounded up to a power of two of pages.
    pub growth_ring_bytes: u32,
    /// Bytes of the ring of lifecycle events, likewise.
    pub lifecycle_ring_bytes: u32,
}

impl Default for KernelOptions {
    /// What costs the target and its neighbours next to nothing.
    fn default() -> Self {
        Self {
            exact: false,
            growth: true,
            waits: true,
            hooks: Hooks::Always,
            allocations: None,
            growth_ring_bytes: 2 << 20,
            lifecycle_ring_bytes: 64 << 10,
        }
    }
}

const BUILD_AGAIN: &str = "build it again after `cargo xtask setup`";
const PERMIT: &str = "run as root or grant it; seccomp must let bpf(2) through";
const RAISE: &str = "raise its limit: resources.limits.memory, MemoryMax";
const NEEDS_BTF: &str = "needs a kernel with CONFIG_DEBUG_INFO_BTF";

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("this binary was built without its eBPF object: {reason} ({BUILD_AGAIN})")]
    NotBuilt { reason: &'static str },
    #[error("bpf(2) is not permitted: {missing} missing ({PERMIT})")]
    NotPermitted { missing: String },
    #[error(
        "no memory for the eBPF {what}, which count against the memory limit of observer's own cgroup ({RAISE})"
    )]
    NoMemory { what: &'static str },
    #[error("{0} ({NEEDS_BTF})")]
    Layout(#[from] layout::LayoutError),
    #[error("loading the eBPF object: {0}")]
    Load(#[from] EbpfError),
    #[error("loading the eBPF program {program}: {reason} ({remedy})")]
    Program { program: &'static str, reason: String, remedy: String },
    #[error("eBPF map {map}: {error}")]
    Map { map: &'static str, error: MapError },
    #[error("no process {pid}")]
    NoSuchProcess { pid: u32 },
    #[error("process {pid} is a target already")]
    AlreadyTarget { pid: u32 },
    #[error("the eBPF object already serves {} targets", observer_common::target::MAX_TARGETS)]
    TooManyTargets,
    #[error("census of process {pid}: {error}")]
    Census { pid: u32, error: io::Error },
    #[error("this kernel offers no way to sample allocations")]
    NoAllocations,
    #[error("breakpoints in the allocator of process {pid}: {error}")]
    Breakpoints { pid: u32, error: io::Error },
}

impl KernelError {
    /// What helps against it, where that is known; the error's text has it in brackets at its end.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::NotBuilt { .. } => Some(BUILD_AGAIN),
            Self::NotPermitted { .. } => Some(PERMIT),
            Self::NoMemory { .. } => Some(RAISE),
            Self::Layout(_) => Some(NEEDS_BTF),
            Self::Program { remedy, .. } => Some(remedy),
            _ => None,
        }
    }

    /// What is the matter, without the remedy.
    pub fn reason(&self) -> String {
        let text = self.to_string();
        match self.remedy() {
            Some(remedy) => text.strip_suffix(&format!(" ({remedy})")).map(str::to_owned).unwrap_or(text),
            None => text,
        }
    }
}

/// The loaded eBPF object. Dropping it detaches everything.
pub struct Probes {
    census: census::CensusProgram,
    targets: targets::Targets,
    sources: source::Sources,
    features: Features,
    losses: PerCpuArray<MapData, u64>,
    lost_before: [u64; LOSSES as usize],
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Keeps the programs and their links.
    _ebpf: Ebpf,
}

/// The object that the build script left, or why it could not build one.
#[cfg(observer_ebpf)]
const OBJECT: Result<&[u8], &str> =
    Ok(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf")));
#[cfg(not(observer_ebpf))]
const OBJECT: Result<&[u8], &str> = Err(env!("OBSERVER_EBPF_MISSING"));

/// Whether this binary has an eBPF object; if not, why.
pub fn built() -> Result<(), &'static str> {
    OBJECT.map(drop)
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
        let mut from = source::Object { ebpf: &mut ebpf, btf: &btf, bytes: object };
        let sources = source::Sources::load(&mut from, options, &mut features)?;
        let logger = if log_level == 0 { None } else { EbpfLogger::init(&mut ebpf).ok() };
        Ok(Self {
            census: census::CensusProgram::new(
                take_map(&mut ebpf, "CENSUS_REQUEST", Array::try_from)?,
                program,
            ),
            targets: targets::Targets::new(
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
        functions: &[allocations::Function],
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

fn clear<T: Pod + Copy>(map: &mut PerCpuArray<MapData, T>, slot: u32, zero: T) -> Result<(), KernelError> {
    let error = |error| KernelError::Map { map: "counters", error };
    let cpus = aya::util::nr_cpus()
        .map_err(|(path, cause)| error(MapError::IoError(io::Error::other(format!("{path}: {cause}")))))?;
    let values = PerCpuValues::try_from(vec![zero; cpus]).map_err(|cause| error(MapError::IoError(cause)))?;
    map.set(slot, values, 0).map_err(error)
}

/// Takes a map out of the object as the type it has there.
fn take_map<T>(
    ebpf: &mut Ebpf,
    name: &'static str,
    as_type: impl FnOnce(aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, KernelError> {
    let error = |error| KernelError::Map { map: name, error };
    let map = ebpf.take_map(name).ok_or_else(|| error(MapError::InvalidName { name: name.to_owned() }))?;
    as_type(map).map_err(error)
}
