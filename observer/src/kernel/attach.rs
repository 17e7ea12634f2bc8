//! Chooses a hook for every source: the cheapest that this kernel permits, tried in order, never assumed.

use std::os::fd::AsFd as _;

use aya::maps::{PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, FExit, PerfEvent, ProgramError, TracePoint};
use aya::{Btf, Ebpf};

use super::allocations::Allocations;
use super::features::{self, Feature, Features, Refusal, State};
use super::growth::Growth;
use super::lifecycle::Lifecycle;
use super::mapped::MappedMap;
use super::waits::{ExactWaitsMap, WaitsMap};
use super::{KernelError, KernelOptions, take_map};

/// The sources that could be attached; absent where not asked for or refused.
pub(super) struct Sources {
    pub(super) waits: Option<WaitsMap>,
    pub(super) exact_waits: Option<ExactWaitsMap>,
    pub(super) mapped: Option<MappedMap>,
    pub(super) growth: Option<Growth>,
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) allocations: Option<Allocations>,
}

/// A hook that was attached, and what it costs whom.
type Hook = (&'static str, &'static str);

const SWITCH: &str = "tp_btf/sched_switch";
const PROCESS: &str = "tp_btf/sched_process_*";
const PAGE_FAULTS: &str = "perf event page-faults";
const FEXIT: &str = "fexit on syscall entry functions";
const SYSCALL_TRACEPOINTS: &str = "syscalls:sys_exit_* tracepoints";
const SYS_EXIT: &str = "tp_btf/sys_exit";

const ALLOCATIONS_COST: &str = "touches the target: breakpoints in its allocator's code, some 1 µs each call of it, none elsewhere; the kernel takes them out again";

/// The calls that change the memory map, and those that wait on a futex.
const MAPPING_CALLS: [&str; 6] = ["mmap", "munmap", "mremap", "brk", "mprotect", "madvise"];
const FUTEX_CALLS: [&str; 4] = ["futex", "futex_wait", "futex_waitv", "restart_syscall"];

pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    object: &[u8],
    options: &KernelOptions,
) -> Result<(Sources, Features), KernelError> {
    let mut features = Features::default();
    let census = State::On { hook: "iter.s/task", cost: "nothing between censuses" };
    features.list.push(Feature::of("census", census, Vec::new()));
    let mut sources = Sources {
        waits: None,
        exact_waits: None,
        mapped: None,
        growth: None,
        lifecycle: None,
        allocations: None,
    };
    // First, while all maps are there to be found.
    let mut refused = Vec::new();
    let state = match options.allocations {
        None => State::Off { how: "ask for it with --allocations" },
        Some(sample_bytes) => {
            sources.allocations = Allocations::load(ebpf, object, sample_bytes, &mut refused)?;
            match &sources.allocations {
                Some(allocations) => State::On { hook: allocations.hook(), cost: ALLOCATIONS_COST },
                None => State::Unavailable { instead: "allocations are not tracked (that wants Linux 6.6)" },
            }
        }
    };
    let allocations =
        Feature { only_with: Some("--allocations"), ..Feature::of("allocations", state, refused) };

    let mut refused = Vec::new();
    let state = if options.waits || options.exact {
        match switches(ebpf, btf) {
            Ok((hook, cost)) => {
                sources.waits = Some(WaitsMap(take_map(ebpf, "WAITS", PerCpuArray::try_from)?));
                State::On { hook, cost }
            }
            Err(refusal) => {
                refused.push(refusal);
                State::Unavailable { instead: "the time of futex waits is not measured" }
            }
        }
    } else {
        State::Off { how: "not asked for" }
    };
    features.list.push(Feature::of("waits", state, refused));

    let mut refused = Vec::new();
    let state = if options.growth {
        match page_faults(ebpf, btf) {
            Ok(growth) => {
                sources.growth = Some(growth);
                State::On { hook: PAGE_FAULTS, cost: "page faults a few percent dearer, of every process" }
            }
            Err(refusal) => {
                refused.push(refusal);
                State::Unavailable { instead: "memory that grows has no stacks" }
            }
        }
    } else {
        State::Off { how: "not asked for" }
    };
    features.list.push(Feature::of("growth", state, refused));

    let (state, refused) = match processes(ebpf, btf) {
        Ok((hook, cost)) => {
            sources.lifecycle = Some(Lifecycle {
                events: take_map(ebpf, "EVENTS", RingBuf::try_from)?,
                threads: take_map(ebpf, "THREADS", PerCpuArray::try_from)?,
            });
            (State::On { hook, cost }, Vec::new())
        }
        Err(refusal) => (
            State::Unavailable { instead: "exec and exit are noticed at the next sample only" },
            vec![refusal],
        ),
    };
    features.list.push(Feature::of("lifecycle", state, refused));

    let mut refused = Vec::new();
    let hook = calls(ebpf, btf, options, &mut refused);
    let state = |wanted: bool, instead| match hook {
        Some((hook, cost)) if wanted => State::On { hook, cost },
        None if options.exact => State::Unavailable { instead },
        _ => State::Off { how: "ask for it with --exact" },
    };
    let mapped = state(true, "mapped bytes are differences of the memory map");
    let exact_waits = state(options.exact, "only futex waits that really slept are counted");
    if matches!(mapped, State::On { .. }) {
        sources.mapped = Some(MappedMap(take_map(ebpf, "MAPPED", PerCpuArray::try_from)?));
    }
    if matches!(exact_waits, State::On { .. }) {
        sources.exact_waits = Some(ExactWaitsMap(take_map(ebpf, "EXACT_WAITS", PerCpuArray::try_from)?));
    }
    features.list.push(Feature::of("mapped", mapped, refused.clone()));
    features.list.push(Feature::of("exact_waits", exact_waits, refused));
    features.list.push(allocations);
    Ok((sources, features))
}

/// The program of that name as the type it has.
fn program<'e, P>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut P, ProgramError>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

fn tracepoint(ebpf: &mut Ebpf, btf: &Btf, name: &str, event: &str) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    program.load(event, btf)?;
    program.attach()?;
    Ok(())
}

fn switches(ebpf: &mut Ebpf, btf: &Btf) -> Result<Hook, Refusal> {
    tracepoint(ebpf, btf, "waits", "sched_switch").map_err(|error| features::refusal(SWITCH, &error))?;
    Ok((SWITCH, "context switches of the target a few percent dearer"))
}

fn processes(ebpf: &mut Ebpf, btf: &Btf) -> Result<Hook, Refusal> {
    for (name, event) in [
        ("lifecycle_exec", "sched_process_exec"),
        ("lifecycle_exit", "sched_process_exit"),
        ("lifecycle_fork", "sched_process_fork"),
    ] {
        tracepoint(ebpf, btf, name, event).map_err(|error| features::refusal(PROCESS, &error))?;
    }
    Ok((PROCESS, "a test at each start and end of a thread"))
}

fn page_faults(ebpf: &mut Ebpf, btf: &Btf) -> Result<Growth, Refusal> {
    let refusal = |error: ProgramError| features::refusal(PAGE_FAULTS, &error);
    let loaded: &mut PerfEvent = program(ebpf, "growth").map_err(refusal)?;
    loaded.load().map_err(refusal)?;
    let fd = loaded.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(refusal)?;
    let no_map = |error: KernelError| features::refused(PAGE_FAULTS, error.to_string(), None);
    let ring = take_map(ebpf, "FAULTS", RingBuf::try_from).map_err(no_map)?;
    let seen = take_map(ebpf, "FAULTS_SEEN", PerCpuArray::try_from).map_err(no_map)?;
    // Without it, memory that `mremap` moved counts as gone: all else is as right as with it.
    if let Err(error) = tracepoint(ebpf, btf, "growth_moves", "vm_unmapped_area") {
        tracing::debug!(%error, "mappings that move are not followed");
    }
    Growth::attach(fd.as_fd(), ring, seen).map_err(|error| {
        let number = error.raw_os_error();
        features::refused(PAGE_FAULTS, format!("perf_event_open: {error}"), number)
    })
}

/// Every futex and mapping call: by fexit, which costs others nothing, for mapping calls even unasked; by
/// tracepoints only with `--exact`.
fn calls(ebpf: &mut Ebpf, btf: &Btf, options: &KernelOptions, refused: &mut Vec<Refusal>) -> Option<Hook> {
    if !options.exact && !options.growth {
        return None;
    }
    let names: &[&str] =
        if options.exact { &[&MAPPING_CALLS[..], &["futex"]].concat() } else { &MAPPING_CALLS };
    match fexit(ebpf, btf, names) {
        Ok(()) => return Some((FEXIT, "about 0.1 µs a call, mapping and futex calls only")),
        Err(error) => refused.push(features::refusal(FEXIT, &error)),
    }
    if !options.exact {
        return None;
    }
    if let Err(error) = features::tracefs() {
        refused.push(Refusal {
            hook: SYSCALL_TRACEPOINTS,
            reason: format!("tracefs: {error}"),
            remedy: "mount -t tracefs tracefs /sys/kernel/tracing (reading it as non-root needs CAP_DAC_READ_SEARCH)"
                .into(),
        });
    } else {
        match syscall_tracepoints(ebpf) {
            Ok(()) => return Some((SYSCALL_TRACEPOINTS, "every system call of every process")),
            Err(error) => refused.push(features::refusal(SYSCALL_TRACEPOINTS, &error)),
        }
    }
    match tracepoint(ebpf, btf, "exact_btf", "sys_exit") {
        Ok(()) => Some((SYS_EXIT, "every system call of every process")),
        Err(error) => {
            refused.push(features::refusal(SYS_EXIT, &error));
            None
        }
    }
}

fn fexit(ebpf: &mut Ebpf, btf: &Btf, names: &[&str]) -> Result<(), ProgramError> {
    let prefix = if cfg!(target_arch = "aarch64") { "__arm64_sys_" } else { "__x64_sys_" };
    let attached = names.iter().try_for_each(|name| {
        let loaded: &mut FExit = program(ebpf, &format!("exact_fexit_{name}"))?;
        loaded.load(&format!("{prefix}{name}"), btf)?;
        loaded.attach().map(drop)
    });
    if attached.is_err() {
        // All or none: half of the calls would be a wrong number.
        for name in names {
            if let Ok(loaded) = program::<FExit>(ebpf, &format!("exact_fexit_{name}")) {
                let _ = loaded.unload();
            }
        }
    }
    attached
}

fn syscall_tracepoints(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let loaded: &mut TracePoint = program(ebpf, "exact_tracepoint")?;
    loaded.load()?;
    for name in MAPPING_CALLS {
        loaded.attach("syscalls", &format!("sys_exit_{name}"))?;
    }
    for name in FUTEX_CALLS {
        // Kernels before 5.16 and 6.7 lack the newer two.
        let attached = loaded.attach("syscalls", &format!("sys_exit_{name}"));
        if name == "futex" {
            attached?;
        }
    }
    Ok(())
}
