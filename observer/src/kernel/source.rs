//! What a source of kernel data is. A new one is a file with a [`Source`], and a line in each function of `sources.rs`.
//!
//! Each chooses its own hook: the cheapest that this kernel permits, tried in order, never assumed.

use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, Ebpf};

use super::error::KernelError;
use super::events::{Allocation, Fault, LifecycleEvent};
use super::features::Feature;
use super::options::KernelOptions;
use super::targets::{TargetHandle, Targets};

use crate::sample::Losses;

/// What the kernel half has put by since it was last drained, of all targets.
#[derive(Debug, Default)]
pub struct Drained {
    pub faults: Vec<Fault>,
    /// First what was made, then what was freed.
    pub allocations: Vec<Allocation>,
    pub lifecycle: Vec<LifecycleEvent>,
    /// What the programs could not keep.
    pub losses: Losses,
}

/// One source: its programs and maps, from load to the last drain. Dropped, its hooks are gone.
pub(super) trait Source {
    /// Loads the programs and attaches them, if that is wanted and the kernel permits it; what came of it.
    fn load(from: &mut Object<'_>, options: &KernelOptions) -> Result<(Option<Self>, Feature), KernelError>
    where
        Self: Sized;

    /// Sets what it keeps of a target's slot to nothing. The programs do not see the target yet.
    fn clear(&mut self, _target: &TargetHandle) -> Result<(), KernelError> {
        Ok(())
    }

    /// Takes what the programs have put by.
    fn drain(&mut self, _targets: &Targets, _into: &mut Drained) {}

    /// Lets go of a target that the programs see no longer.
    fn remove(&mut self, _target: &TargetHandle) {}
}

/// What sources are loaded from.
pub(super) struct Object<'o> {
    pub(super) ebpf: &'o mut Ebpf,
    pub(super) btf: &'o Btf,
    /// The bytes that `ebpf` was made of.
    pub(super) bytes: &'o [u8],
}

impl Object<'_> {
    /// The program of that name as the type it has.
    pub(super) fn program<'e, P>(&'e mut self, name: &str) -> Result<&'e mut P, ProgramError>
    where
        &'e mut P: TryFrom<&'e mut aya::programs::Program, Error = ProgramError>,
    {
        self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
    }

    /// Attaches a program for good.
    pub(super) fn tracepoint(&mut self, name: &str, event: &str) -> Result<(), ProgramError> {
        let btf = self.btf;
        let program: &mut BtfTracePoint = self.program(name)?;
        program.load(event, btf)?;
        program.attach()?;
        Ok(())
    }
}
