//! Bytes of address space that changed hands, counted at every mapping call: by fexit, which costs others nothing,
//! even unasked; by tracepoints, which slow every system call of the machine, only with `--exact`.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData, MapError, PerCpuArray};
use aya::programs::{FExit, ProgramError, TracePoint};
use observer_common::mapped::{CALLS, Call, MappedCounters};

use super::error::KernelError;
use super::features::{self, Feature, Refusal, State};
use super::maps::{clear, take_map};
use super::options::KernelOptions;
use super::source::{Object, Source};
use super::targets::TargetHandle;
use crate::process::maps;
use crate::sample::{Mapped, MappedCall, MappedSource};

const FEXIT: &str = "fexit on syscall entry functions";
const SYSCALL_TRACEPOINTS: &str = "syscalls:sys_exit_* tracepoints";
const SYS_EXIT: &str = "tp_btf/sys_exit";

/// The calls that change the memory map.
const MAPPING_CALLS: [&str; 6] = ["mmap", "munmap", "mremap", "brk", "mprotect", "madvise"];

pub(super) struct MappedCalls {
    counters: PerCpuArray<MapData, MappedCounters>,
    breaks: Array<MapData, u64>,
}

impl MappedCalls {
    /// Since the target was added. Bytes as the successful calls asked for them, in whole pages.
    pub(super) fn read(&self, slot: u32) -> Result<Mapped, MapError> {
        let (mut mapped, mut unmapped) = ([0u64; CALLS], [0u64; CALLS]);
        for counters in self.counters.get(&slot, 0)?.iter() {
            for call in 0..CALLS {
                mapped[call] = mapped[call].wrapping_add(counters.mapped[call]);
                unmapped[call] = unmapped[call].wrapping_add(counters.unmapped[call]);
            }
        }
        let by_name = |bytes: [u64; CALLS]| -> BTreeMap<MappedCall, u64> {
            let calls = Call::ALL.into_iter().zip(bytes);
            calls.filter(|&(_, bytes)| bytes != 0).map(|(call, bytes)| (call.name().into(), bytes)).collect()
        };
        Ok(Mapped {
            source: MappedSource::Exact,
            mapped_bytes: by_name(mapped),
            unmapped_bytes: by_name(unmapped),
        })
    }
}

impl Source for MappedCalls {
    fn load(from: &mut Object<'_>, options: &KernelOptions) -> Result<(Option<Self>, Feature), KernelError> {
        let mut refused = Vec::new();
        let state = match attach(from, options, &mut refused) {
            Some(state) => state,
            None if options.exact => {
                State::Unavailable { instead: "mapped bytes are differences of the memory map" }
            }
            None => State::Off { how: "ask for it with --exact" },
        };
        let source = match state {
            State::On { .. } => Some(Self {
                counters: take_map(from.ebpf, "MAPPED", PerCpuArray::try_from)?,
                breaks: take_map(from.ebpf, "BREAKS", Array::try_from)?,
            }),
            _ => None,
        };
        Ok((source, Feature::of("mapped", state, refused)))
    }

    fn clear(&mut self, target: &TargetHandle) -> Result<(), KernelError> {
        clear(&mut self.counters, target.slot(), MappedCounters::default())?;
        // The break only matters from here on; a target without a heap asks for it before it makes one.
        let heap = maps::read(target.pid()).unwrap_or_default().into_iter().find(|map| map.path == "[heap]");
        let end = heap.map_or(0, |heap| heap.end);
        self.breaks.set(target.slot(), end, 0).map_err(|error| KernelError::Map { map: "BREAKS", error })
    }
}

fn attach(from: &mut Object<'_>, options: &KernelOptions, refused: &mut Vec<Refusal>) -> Option<State> {
    if !options.exact && !options.growth {
        return None;
    }
    match fexit(from) {
        Ok(()) => return Some(State::On { hook: FEXIT, cost: "about 0.1 µs a call, mapping calls only" }),
        Err(error) => refused.push(features::refusal(FEXIT, &error)),
    }
    if !options.exact {
        return None;
    }
    const COST: &str = "every system call of every process";
    if let Err(error) = features::tracefs() {
        refused.push(Refusal {
            hook: SYSCALL_TRACEPOINTS,
            reason: format!("tracefs: {error}"),
            remedy: "mount -t tracefs tracefs /sys/kernel/tracing (reading it as non-root needs CAP_DAC_READ_SEARCH)"
                .into(),
        });
    } else {
        match syscall_tracepoints(from) {
            Ok(()) => return Some(State::On { hook: SYSCALL_TRACEPOINTS, cost: COST }),
            Err(error) => refused.push(features::refusal(SYSCALL_TRACEPOINTS, &error)),
        }
    }
    match from.tracepoint("exact_btf", "sys_exit") {
        Ok(()) => Some(State::On { hook: SYS_EXIT, cost: COST }),
        Err(error) => {
            refused.push(features::refusal(SYS_EXIT, &error));
            None
        }
    }
}

fn fexit(from: &mut Object<'_>) -> Result<(), ProgramError> {
    let prefix = if cfg!(target_arch = "aarch64") { "__arm64_sys_" } else { "__x64_sys_" };
    let btf = from.btf;
    let attached = MAPPING_CALLS.iter().try_for_each(|name| {
        let loaded: &mut FExit = from.program(&format!("exact_fexit_{name}"))?;
        loaded.load(&format!("{prefix}{name}"), btf)?;
        loaded.attach().map(drop)
    });
    if attached.is_err() {
        // All or none: half of the calls would be a wrong number.
        for name in MAPPING_CALLS {
            if let Ok(loaded) = from.program::<FExit>(&format!("exact_fexit_{name}")) {
                let _ = loaded.unload();
            }
        }
    }
    attached
}

fn syscall_tracepoints(from: &mut Object<'_>) -> Result<(), ProgramError> {
    let loaded: &mut TracePoint = from.program("exact_tracepoint")?;
    loaded.load()?;
    for name in MAPPING_CALLS {
        loaded.attach("syscalls", &format!("sys_exit_{name}"))?;
    }
    Ok(())
}
