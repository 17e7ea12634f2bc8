//! Sampled allocations of targets: breakpoints in their allocator, from the moment that [`Allocations::track`] is
//! asked for one until its links are dropped. The kernel takes them out then, also when we are killed.
//!
//! aya has no door to probes of many functions, so the program is loaded here: aya's reader of objects resolves it
//! against the maps that aya made. A session (Linux 6.13) stops at the return of sampled calls only; before that
//! every call stops twice. Which it is, is tried and not assumed.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, RingBuf};
use aya_obj::Object;
use observer_common::allocations::{AllocationHeader, FreeRecord, cookie};

use super::error::KernelError;
use super::events::{Allocation, Made};
use super::features::{self, Feature, Refusal, State};
use super::maps::take_map;
use super::options::KernelOptions;
use super::source::{Drained, Object as Loaded, Source};
use super::sys::{self, ProbeKind};
use super::targets::{TargetHandle, Targets};

pub(crate) use observer_common::allocations::kind;

/// Its maps as small as they can be, where nobody asks for it.
pub(super) const LEAST: [(&str, u32); 4] =
    [("ALLOCATIONS", 4096), ("ALLOCATION_FREES", 4096), ("ALLOCATION_LIVE", 1), ("ALLOCATION_PENDING", 1)];

const SESSION: &str = "uprobe session";
const ENTRY_AND_RETURN: &str = "uprobes at entry and return";
const COST: &str = "touches the target: breakpoints in its allocator's code, some 1 µs each call of it, none elsewhere; the kernel takes them out again";

/// Records taken from the rings in one go; the rest waits for the next.
const MAX_ALLOCATIONS: usize = 1 << 13;
const MAX_FREES: usize = 1 << 16;
/// Samples a second, of all targets together, above which half as many are taken.
const MANY: f64 = 1000.0;
/// And below which twice as many are, down to what was asked for.
const FEW: f64 = 200.0;
/// At most this much rarer than asked for.
const MAX_RAISED: u32 = 6;

/// A function of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// Where in its file its breakpoint goes: where it begins or a little behind, with all as it was at the call.
    pub offset: u64,
    /// Of its code from there on.
    pub bytes: u64,
    /// One of [`kind`].
    pub kind: u32,
}

pub(super) struct Allocations {
    program: OwnedFd,
    session: bool,
    made: RingBuf<MapData>,
    freed: RingBuf<MapData>,
    period: Array<MapData, u64>,
    /// As asked for, and by how many doublings it is rarer now.
    wanted: u64,
    raised: u32,
    drained: Instant,
    /// By the target's slot.
    links: BTreeMap<u32, Vec<OwnedFd>>,
}

impl Allocations {
    pub(super) fn hook(&self) -> &'static str {
        if self.session { SESSION } else { ENTRY_AND_RETURN }
    }

    /// Puts breakpoints on functions of a file that the process has mapped; all of the target's or none.
    pub(super) fn track(
        &mut self,
        target: &TargetHandle,
        file: &Path,
        functions: &[Function],
    ) -> io::Result<()> {
        let linked = self.link(target.pid(), file, functions);
        match linked {
            Ok(links) => self.links.entry(target.slot()).or_default().extend(links),
            Err(error) => {
                self.leave(target.slot());
                return Err(error);
            }
        }
        Ok(())
    }

    fn link(&self, pid: u32, file: &Path, functions: &[Function]) -> io::Result<Vec<OwnedFd>> {
        let path = CString::new(file.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
        let all: Vec<(u64, u64)> = functions.iter().map(probe).collect();
        let program = self.program.as_fd();
        let mut links = Vec::new();
        if self.session {
            links.push(sys::link_functions(program, ProbeKind::Session, &path, &all, pid)?);
        } else {
            // Returns first: a call that was seen to begin must be seen to end.
            let makers: Vec<_> =
                functions.iter().filter(|function| function.kind != kind::FREE).map(probe).collect();
            if !makers.is_empty() {
                links.push(sys::link_functions(program, ProbeKind::Return, &path, &makers, pid)?);
            }
            links.push(sys::link_functions(program, ProbeKind::Entry, &path, &all, pid)?);
        }
        Ok(links)
    }

    /// Takes the breakpoints out.
    fn leave(&mut self, slot: u32) {
        self.links.remove(&slot);
    }

    /// Mean bytes to a sample now.
    pub(super) fn period(&self) -> u64 {
        self.wanted.saturating_mul(1 << self.raised)
    }

    /// Each sample says what it was drawn with, so that they may mix.
    fn adapt(&mut self, rate: f64) {
        let raised = match self.raised {
            raised if rate > MANY && raised < MAX_RAISED => raised + 1,
            raised if rate < FEW && raised > 0 => raised - 1,
            _ => return,
        };
        if self.period.set(0, self.wanted.saturating_mul(1 << raised), 0).is_ok() {
            self.raised = raised;
        }
    }
}

impl Source for Allocations {
    /// Nothing is touched yet. To be called before any map is taken out of the object.
    fn load(from: &mut Loaded<'_>, options: &KernelOptions) -> Result<(Option<Self>, Feature), KernelError> {
        let feature = |state, refused| Feature {
            only_with: Some("--allocations"),
            ..Feature::of("allocations", state, refused)
        };
        let Some(wanted) = options.allocations else {
            let state = State::Off { how: "ask for it with --allocations" };
            return Ok((None, feature(state, Vec::new())));
        };
        let mut refused = Vec::new();
        let chosen = match resolve(from.ebpf, from.bytes) {
            Ok(function) => choose(&function, &mut refused),
            Err(reason) => {
                refused.push(features::refused(SESSION, reason, None));
                None
            }
        };
        let Some((program, session)) = chosen else {
            let state = State::Unavailable { instead: "allocations are not tracked (that wants Linux 6.6)" };
            return Ok((None, feature(state, refused)));
        };
        let mut period: Array<MapData, u64> = take_map(from.ebpf, "ALLOCATION_PERIOD", Array::try_from)?;
        period.set(0, wanted, 0).map_err(|error| KernelError::Map { map: "ALLOCATION_PERIOD", error })?;
        let source = Self {
            program,
            session,
            made: take_map(from.ebpf, "ALLOCATIONS", RingBuf::try_from)?,
            freed: take_map(from.ebpf, "ALLOCATION_FREES", RingBuf::try_from)?,
            period,
            wanted,
            raised: 0,
            drained: Instant::now(),
            links: BTreeMap::new(),
        };
        let state = State::On { hook: source.hook(), cost: COST };
        Ok((Some(source), feature(state, refused)))
    }

    fn drain(&mut self, targets: &Targets, into: &mut Drained) {
        let pid_of = |slot, tgid| targets.pid_of(slot, tgid);
        // What was freed is read first: then all of it was made before what is read of that.
        let mut freed = Vec::new();
        while freed.len() < MAX_FREES
            && let Some(item) = self.freed.next()
        {
            freed.extend(parse_freed(&item, pid_of));
        }
        let all = &mut into.allocations;
        while all.len() < MAX_ALLOCATIONS
            && let Some(item) = self.made.next()
        {
            all.extend(parse_made(&item, pid_of));
        }
        let seconds = self.drained.elapsed().as_secs_f64();
        if seconds >= 0.2 {
            self.drained = Instant::now();
            self.adapt(all.len() as f64 / seconds);
        }
        all.extend(freed);
    }

    fn remove(&mut self, target: &TargetHandle) {
        self.leave(target.slot());
    }
}

fn probe(function: &Function) -> (u64, u64) {
    (function.offset, cookie(function.kind, function.bytes))
}

/// The program's instructions with its maps in place.
fn resolve(ebpf: &Ebpf, bytes: &[u8]) -> Result<aya_obj::Function, String> {
    let mut object = Object::parse(bytes).map_err(|error| error.to_string())?;
    let key = {
        let program = object.programs.get("allocation").ok_or("the object has no such program")?;
        (program.section_index, program.address)
    };
    let sections: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
    // What is not ours would want its own maps.
    object.programs.retain(|name, _| name == "allocation");
    object.functions.retain(|&place, _| place == key);
    let maps = object.maps.clone();
    let maps: Vec<(&str, RawFd, &aya_obj::Map)> =
        maps.iter().filter_map(|(name, map)| Some((name.as_str(), fd(ebpf.map(name)?)?, map))).collect();
    object.relocate_maps(maps.into_iter(), &sections).map_err(|error| error.to_string())?;
    object.relocate_calls(&sections).map_err(|error| error.to_string())?;
    object.functions.remove(&key).ok_or_else(|| "the object has no such function".to_owned())
}

fn fd(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}

/// The cheapest kind of probe that this kernel knows, with the program loaded for it.
fn choose(function: &aya_obj::Function, refused: &mut Vec<Refusal>) -> Option<(OwnedFd, bool)> {
    for (probes, hook) in [(ProbeKind::Session, SESSION), (ProbeKind::Entry, ENTRY_AND_RETURN)] {
        let verbose = log::max_level() >= log::LevelFilter::Debug;
        let loaded = sys::load_probe(&function.instructions, c"Dual MIT/GPL", probes, verbose)
            .map_err(|(error, words)| {
                log::debug!("{hook}: {words}");
                (format!("the kernel does not load it: {error}"), error.raw_os_error())
            })
            .and_then(|program| match known(program.as_fd(), probes) {
                Ok(()) => Ok(program),
                Err(error) => Err((format!("BPF_LINK_CREATE: {error}"), error.raw_os_error())),
            });
        match loaded {
            Ok(program) => return Some((program, probes == ProbeKind::Session)),
            Err((reason, number)) => refused.push(features::refused(hook, reason, number)),
        }
    }
    None
}

/// Whether the kernel links such probes: those of a directory, which has no functions, it refuses only after it has
/// understood what is asked.
fn known(program: BorrowedFd<'_>, probes: ProbeKind) -> io::Result<()> {
    const DIRECTORY: &CStr = c"/";
    match sys::link_functions(program, probes, DIRECTORY, &[(0, 0)], std::process::id()) {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("a directory was taken for a program")),
    }
}

fn parse_made(bytes: &[u8], pid_of: impl Fn(u32, u32) -> Option<u32>) -> Option<Allocation> {
    let stack = bytes.get(size_of::<AllocationHeader>()..)?;
    // SAFETY: the slice holds a whole header, which is plain integers; the read needs no alignment.
    let header = unsafe { bytes.as_ptr().cast::<AllocationHeader>().read_unaligned() };
    Some(Allocation::Made(Made {
        pid: pid_of(header.slot, header.global_tgid)?,
        global_tid: header.global_tid,
        time: header.time,
        address: header.address,
        size: header.size,
        period: header.period,
        ip: header.ip,
        sp: header.sp,
        bp: header.bp,
        stack: stack.get(..header.stack_bytes as usize)?.to_vec(),
    }))
}

fn parse_freed(bytes: &[u8], pid_of: impl Fn(u32, u32) -> Option<u32>) -> Option<Allocation> {
    if bytes.len() < size_of::<FreeRecord>() {
        return None;
    }
    // SAFETY: the slice holds a whole record, which is plain integers; the read needs no alignment.
    let record = unsafe { bytes.as_ptr().cast::<FreeRecord>().read_unaligned() };
    let pid = pid_of(record.slot, record.global_tgid)?;
    Some(Allocation::Freed { pid, address: record.address, born: record.born })
}
