//! The kernel half, from user space: loads the eBPF object once for one or many targets and drains it.
//!
//! One module a source, named as in `observer-ebpf`. What this kernel does not permit is left out with a
//! reason ([`Features`]), not an error; [`Kernel::load`] fails only when no program can run at all.

pub mod btf;
pub mod census;
pub mod layout;
mod sys;
mod targets;

use std::io;

use aya::maps::{Array, MapError, PerCpuArray};
use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use observer_common::loss::{LOSSES, Loss};

use crate::sample::Losses;
pub use census::{Census, CensusOptions, ThreadRecord};
pub use targets::TargetHandle;

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct KernelOptions {
    /// Trace every futex and mapping call: exact, at the cost of every process of the machine.
    pub exact: bool,
    /// Sample page faults.
    pub growth: bool,
    /// Time futex waits.
    pub waits: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "this binary was built without its eBPF object: {reason} (build it again after `cargo xtask setup`)"
    )]
    NotBuilt { reason: &'static str },
    #[error(
        "bpf(2) is not permitted: {missing} missing (run as root, or grant CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE)"
    )]
    NotPermitted { missing: String },
    #[error("{0} (needs a kernel with CONFIG_DEBUG_INFO_BTF)")]
    Layout(#[from] layout::LayoutError),
    #[error("loading the eBPF object: {0}")]
    Load(#[from] EbpfError),
    #[error("eBPF program {program}: {error}")]
    Program { program: &'static str, error: ProgramError },
    #[error("eBPF map {map}: {error}")]
    Map { map: &'static str, error: MapError },
    #[error("no process {pid}")]
    NoSuchProcess { pid: u32 },
    #[error("the eBPF object already serves {} targets", observer_common::target::MAX_TARGETS)]
    TooManyTargets,
    #[error("census of process {pid}: {error}")]
    Census { pid: u32, error: io::Error },
}

/// The loaded eBPF object. Dropping it detaches everything.
pub struct Kernel {
    census: census::CensusProgram,
    targets: targets::Targets,
    losses: PerCpuArray<aya::maps::MapData, u64>,
    lost_before: [u64; LOSSES as usize],
    /// Keeps the programs and their links.
    _ebpf: Ebpf,
}

/// The object that the build script left, or why it could not build one.
#[cfg(observer_ebpf)]
const OBJECT: Result<&[u8], &str> =
    Ok(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf")));
#[cfg(not(observer_ebpf))]
const OBJECT: Result<&[u8], &str> = Err(env!("OBSERVER_EBPF_MISSING"));

impl Kernel {
    /// Loads the programs. Takes about 0.2 s, most of it parsing the kernel's BTF.
    pub fn load(_options: &KernelOptions) -> Result<Self, KernelError> {
        let loaded = Self::load_object();
        sys::trim_heap();
        loaded
    }

    fn load_object() -> Result<Self, KernelError> {
        let object = OBJECT.map_err(|reason| KernelError::NotBuilt { reason })?;
        let layout = layout::running()?;
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global("LAYOUT", &layout, true)
            .load(object)?;
        let btf = Btf::from_sys_fs().map_err(EbpfError::from)?;
        let program = |error| KernelError::Program { program: "census", error };
        let iter: &mut Iter = ebpf
            .program_mut("census")
            .ok_or(program(ProgramError::NotLoaded))?
            .try_into()
            .map_err(program)?;
        iter.load("task", &btf).map_err(program)?;
        let fd = iter.fd().and_then(|fd| fd.try_clone().map_err(ProgramError::from)).map_err(program)?;
        let request = take_map(&mut ebpf, "CENSUS_REQUEST", Array::try_from)?;
        Ok(Self {
            census: census::CensusProgram::new(request, fd),
            targets: targets::Targets::new(),
            losses: take_map(&mut ebpf, "LOSS", PerCpuArray::try_from)?,
            lost_before: [0; LOSSES as usize],
            _ebpf: ebpf,
        })
    }

    /// Begins to observe a process, by its pid in our PID namespace.
    pub fn add_target(&mut self, pid: u32) -> Result<TargetHandle, KernelError> {
        self.targets.add(&mut self.census, pid)
    }

    /// Ends it; the handle is no longer good for anything.
    pub fn remove_target(&mut self, target: &TargetHandle) {
        self.targets.remove(target);
    }

    /// Every thread of the target. Empty when the process is gone.
    pub fn census(&mut self, target: &TargetHandle, options: CensusOptions) -> Result<Census, KernelError> {
        let pid = target.pid();
        let link = self.targets.link(target).ok_or(KernelError::NoSuchProcess { pid })?;
        self.census
            .take(link, target.global_tgid(), options)
            .map_err(|error| KernelError::Census { pid, error })
    }

    /// What the programs could not keep since the last call, all targets together.
    pub fn losses(&mut self) -> Losses {
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
