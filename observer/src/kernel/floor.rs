//! What a hook costs by being there: an empty program at `sched_switch`, for the benchmark to set observer's beside it.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};

use super::error::KernelError;
use super::object::OBJECT;
use super::{features, sys};

/// The empty program, loaded. Attached only while a [`Self::attach`] lives.
pub struct Floor {
    program: OwnedFd,
    _ebpf: Ebpf,
}

impl Floor {
    /// Loads the eBPF object and of its programs this one.
    pub fn load() -> Result<Self, KernelError> {
        let object = OBJECT.map_err(|reason| KernelError::NotBuilt { reason })?;
        let mut ebpf = EbpfLoader::new().btf(None).load(object)?;
        let btf = Btf::from_sys_fs().map_err(EbpfError::from)?;
        let program = load(&mut ebpf, &btf).map_err(|error| {
            let refusal = features::refusal("tp_btf/sched_switch", &error);
            KernelError::Program { program: "floor", reason: refusal.reason, remedy: refusal.remedy }
        })?;
        Ok(Self { program, _ebpf: ebpf })
    }

    /// Attaches it until what this gives is dropped.
    pub fn attach(&self) -> std::io::Result<OwnedFd> {
        sys::attach_tracepoint(self.program.as_fd())
    }
}

fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<OwnedFd, aya::programs::ProgramError> {
    let program: &mut BtfTracePoint =
        ebpf.program_mut("floor").ok_or(aya::programs::ProgramError::NotLoaded)?.try_into()?;
    program.load("sched_switch", btf)?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}
