//! Threads that sleep on a futex: where, on what, since when; also those that slept before observer came.
//!
//! Reads a census of the threads (the kernel's iterator, or `/proc` without it) and the stacks of those that are
//! new or have moved; gives groups of threads with one stack and one reason. A thread that did not move costs a
//! hash lookup, a new one some 10 µs, a new place in the code its symbolization.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use thiserror::Error;

use super::pagemap::{self, Pagemap};
use crate::kernel::census::ThreadRecord;
use crate::sample::{Degraded, Frame, Group, GroupId, GroupKind, Losses, WaitsOn};
use crate::symbol::cache::Cache;
use crate::symbol::{self, Symbolizer};
use crate::target::maps::{self, Mapping};
use crate::target::memory::RemoteMemory;

pub mod futex;
pub mod identity;
pub mod procfs;
pub mod unwind;

use unwind::{End, Registers, Unwinder};

/// Groups in a sample; the smallest beyond that are only counted.
pub const MAX_GROUPS: usize = 4000;
/// Different stacks that are remembered with their frames.
const CACHED_STACKS: usize = 1 << 12;
/// Different stacks that are told apart at one time.
const MAX_PLACES: usize = 1 << 13;
/// Stacks read in one sample; those that are left get their turn in the next one.
const MAX_NEW_STACKS: usize = 1 << 16;
/// Threads whose resident stack is measured in one sample; the others get the mean of their group.
const MAX_MEASURED_STACKS: usize = 1024;
/// A stack mapping larger than this is measured so far from its top.
const MAX_STACK_PAGES: u64 = 4096;

#[derive(Debug, Error)]
pub enum ThreadError {
    #[error("process {0} has exited")]
    Exited(u32),
    #[error("cannot read /proc/{pid}/task: {source} (needs CAP_SYS_PTRACE, or the target's own user)")]
    Unreadable { pid: u32, source: io::Error },
}

/// One thread in a census.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    /// In observer's PID namespace.
    pub tid: u32,
    /// Start time in any unit: with the tid it is the thread's identity.
    pub started: u64,
    pub voluntary_switches: u64,
    /// Negative outside a syscall, and when the thread is awake.
    pub syscall: i64,
    pub arguments: [u64; 6],
    pub ip: u64,
    pub sp: u64,
    pub bp: Option<u64>,
}

impl Visit {
    /// `None` for a thread that is awake: where it entered the kernel last says nothing.
    fn of_sleeper(record: &ThreadRecord) -> Option<Self> {
        record.is_sleeping().then(|| Self {
            tid: record.tid,
            started: record.started,
            voluntary_switches: record.voluntary_switches,
            syscall: record.syscall.and_then(|number| i64::try_from(number).ok()).unwrap_or(-1),
            arguments: record.arguments,
            ip: record.ip,
            sp: record.sp,
            bp: Some(record.bp),
        })
    }
}

/// What the reader must know about the target.
#[derive(Clone, Debug, Default)]
pub struct ThreadOptions {
    /// The executable is a Go program: threads that wait inside of it are idle, whatever their stack says.
    pub go: bool,
}

/// The threads of one moment.
#[derive(Clone, Debug, Default)]
pub struct ThreadSample {
    /// Largest first.
    pub groups: Vec<Group>,
    /// All threads of the process.
    pub threads: u64,
    /// Threads of the Go scheduler that wait for work: in no group.
    pub idle_runtime_threads: u64,
    pub groups_total: u64,
    pub members_left_out: u64,
    pub losses: Losses,
    pub degraded: Vec<Degraded>,
}

/// Groups the sleeping threads of one process image, sample after sample.
pub struct ThreadReader {
    pid: u32,
    symbolizer: Box<dyn Symbolizer>,
    unwinder: Box<dyn Unwinder>,
    /// For code that has no call frame information and keeps frame pointers.
    frame_pointers: unwind::FramePointers,
    maps: Vec<Mapping>,
    /// Path and inode of the executable of a Go program.
    go_file: Option<(String, u64)>,
    pagemap: Option<Pagemap>,
    threads: HashMap<u32, Tracked>,
    stacks: Cache<StackKey, (GroupId, Arc<[Frame]>)>,
    places: HashMap<GroupId, Arc<[Frame]>>,
    first: bool,
}

type StackKey = (&'static str, Box<[u64]>);

/// A thread that slept at the last sample.
#[derive(Clone, Debug)]
struct Tracked {
    started: u64,
    voluntary_switches: u64,
    sp: u64,
    ip: u64,
    address: u64,
    reason: &'static str,
    timed: bool,
    first_seen: f64,
    group: GroupId,
    /// The stack was walked to its root, or further than is kept.
    whole: bool,
    stack_bytes: Option<u64>,
}

impl Tracked {
    /// Whether a thread still is in the very wait that it was in.
    fn has_not_moved(&self, visit: &Visit, wait: Option<futex::Wait>) -> bool {
        self.is(visit)
            && (self.sp, self.ip) == (visit.sp, visit.ip)
            && match wait {
                Some(wait) => {
                    self.voluntary_switches == visit.voluntary_switches
                        && (self.address, self.reason) == (wait.address, wait.reason)
                }
                // A signal woke it, and the kernel took the same wait up again under another number.
                None => true,
            }
    }

    fn is(&self, visit: &Visit) -> bool {
        self.started == visit.started
    }
}

impl ThreadReader {
    /// Prepares to read a process; nothing is read of it yet. `symbolizer` is asked for each new place in its code.
    pub fn open(pid: u32, options: &ThreadOptions, symbolizer: Box<dyn Symbolizer>) -> Self {
        let exe = format!("/proc/{pid}/exe");
        let path = || fs::read_link(&exe).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let go_file = options.go.then(|| (path(), fs::metadata(&exe).map_or(0, |file| file.ino())));
        Self {
            pid,
            symbolizer,
            unwinder: Box::new(unwind::dwarf::CallFrames::new(pid)),
            frame_pointers: unwind::FramePointers::new(RemoteMemory::new(pid)),
            maps: Vec::new(),
            go_file,
            pagemap: Pagemap::open(pid).ok(),
            threads: HashMap::new(),
            stacks: Cache::new(CACHED_STACKS),
            places: HashMap::new(),
            first: true,
        }
    }

    /// The sleeping threads now, at `at_seconds` on the caller's clock, by the kernel's census or else by `/proc`.
    pub fn sample(
        &mut self,
        at_seconds: f64,
        census: Option<&[ThreadRecord]>,
    ) -> Result<ThreadSample, ThreadError> {
        let mut sample = ThreadSample::default();
        let (converted, walked): (Vec<Visit>, procfs::Census);
        let visits: &[Visit] = match census {
            Some(records) => {
                sample.threads = records.len() as u64;
                converted = records.iter().filter_map(Visit::of_sleeper).collect();
                &converted
            }
            None => {
                walked = procfs::census(self.pid).map_err(|source| self.error(source))?;
                sample.threads = walked.threads;
                count(&mut sample.losses, "threads_unreadable", walked.refused);
                count(&mut sample.losses, "threads_left_out", walked.left_out);
                if walked.refused > 0 && walked.visits.is_empty() {
                    sample.degraded.push(Degraded {
                        feature: "threads".to_owned(),
                        reason: format!("/proc/{}/task/*/syscall may not be read", self.pid),
                        remedy: "give observer CAP_SYS_PTRACE, or run it as the target's user".to_owned(),
                    });
                }
                &walked.visits
            }
        };
        let mut sleepers = self.sleepers(visits, at_seconds, &mut sample);
        self.measure_stacks(&mut sleepers);
        tell_of_cut_stacks(&sleepers, census.is_some(), &mut sample);
        self.group(at_seconds, sleepers, &mut sample);
        self.first = false;
        Ok(sample)
    }

    fn error(&self, source: io::Error) -> ThreadError {
        match source.kind() {
            io::ErrorKind::NotFound => ThreadError::Exited(self.pid),
            _ if source.raw_os_error() == Some(libc::ESRCH) => ThreadError::Exited(self.pid),
            _ => ThreadError::Unreadable { pid: self.pid, source },
        }
    }

    /// Brings what is known about each sleeping thread up to date; the thread ids with what they were before.
    fn sleepers(&mut self, visits: &[Visit], now: f64, sample: &mut ThreadSample) -> Vec<Sleeper> {
        let mut sleepers = Vec::new();
        let mut moved = Vec::new();
        for visit in visits {
            let wait = futex::wait(visit.syscall, &visit.arguments);
            let known = self.threads.get(&visit.tid).filter(|known| known.is(visit));
            if let Some(known) = known.filter(|known| {
                (wait.is_some() || futex::restarted(visit.syscall)) && known.has_not_moved(visit, wait)
            }) {
                sleepers.push(Sleeper {
                    tid: visit.tid,
                    now: known.clone(),
                    before: Some(known.group),
                    ran: false,
                });
            } else if let Some(wait) = wait {
                moved.push((visit, wait, known.map(|known| known.group)));
            }
        }
        if !moved.is_empty() {
            self.remap();
            moved.retain(|(visit, ..)| {
                let idle = self.is_go_code(visit.ip);
                sample.idle_runtime_threads += u64::from(idle);
                !idle
            });
            let over = moved.len().saturating_sub(MAX_NEW_STACKS);
            moved.truncate(MAX_NEW_STACKS);
            count(&mut sample.losses, "thread_stacks_postponed", over as u64);
            self.read_stacks(moved, now, &mut sleepers, sample);
        }
        sleepers
    }

    fn remap(&mut self) {
        if let Ok(maps) = maps::read(self.pid)
            && !maps.is_empty()
            && maps != self.maps
        {
            self.unwinder.remap(&maps);
            self.frame_pointers.remap(&maps);
            self.maps = maps;
        }
    }

    /// Whether an instruction is in the Go program itself: then the thread belongs to Go's scheduler.
    fn is_go_code(&self, ip: u64) -> bool {
        self.go_file.as_ref().is_some_and(|(path, inode)| {
            self.mapping(ip).is_some_and(|mapping| mapping.inode == *inode || mapping.path == *path)
        })
    }

    fn mapping(&self, address: u64) -> Option<&Mapping> {
        let after = self.maps.partition_point(|mapping| mapping.start <= address);
        self.maps.get(after.checked_sub(1)?).filter(|mapping| address < mapping.end)
    }

    fn read_stacks(
        &mut self,
        moved: Vec<(&Visit, futex::Wait, Option<GroupId>)>,
        now: f64,
        sleepers: &mut Vec<Sleeper>,
        sample: &mut ThreadSample,
    ) {
        let mut read = Vec::with_capacity(moved.len());
        let (mut torn, mut truncated) = (0, 0);
        for (visit, wait, before) in moved {
            let registers = Registers { ip: visit.ip, sp: visit.sp, bp: visit.bp };
            let mut stack = self.unwinder.unwind(&registers);
            if stack.end != End::Root {
                let chain = self.frame_pointers.unwind(&registers);
                if chain.addresses.len() > stack.addresses.len() {
                    stack.addresses = chain.addresses;
                }
            }
            // It slept when the census came by; the stack is that sleep's only if it sleeps it still.
            if !procfs::still_there(self.pid, visit) {
                torn += 1;
                continue;
            }
            truncated += u64::from(stack.end == End::Truncated);
            let whole = stack.end != End::Unknown;
            let key: StackKey = (wait.reason, stack.addresses.into());
            read.push((visit, wait, before, whole, key));
        }
        count(&mut sample.losses, "threads_moved_while_read", torn);
        count(&mut sample.losses, "thread_stacks_truncated", truncated);
        let keys: Vec<&StackKey> = read.iter().map(|(.., key)| key).collect();
        let groups = self.identify(&keys, &mut sample.losses);
        for ((visit, wait, before, whole, _), group) in read.into_iter().zip(groups) {
            let tracked = Tracked {
                started: visit.started,
                voluntary_switches: visit.voluntary_switches,
                sp: visit.sp,
                ip: visit.ip,
                address: wait.address,
                reason: wait.reason,
                timed: wait.timed,
                first_seen: now,
                group,
                whole,
                // It may have grown since it was measured.
                stack_bytes: None,
            };
            sleepers.push(Sleeper { tid: visit.tid, now: tracked, before, ran: true });
        }
    }

    /// The group of each stack; what is new is symbolized in one go.
    fn identify(&mut self, keys: &[&StackKey], losses: &mut Losses) -> Vec<GroupId> {
        let mut new = HashSet::new();
        let mut known = HashMap::new();
        for &key in keys {
            if known.contains_key(key) || new.contains(key) {
                continue;
            }
            match self.stacks.get(key) {
                Some((id, frames)) => {
                    self.places.entry(id).or_insert(frames);
                    known.insert(key, id);
                }
                None => {
                    new.insert(key);
                }
            }
        }
        let mut new: Vec<&StackKey> = new.into_iter().collect();
        // Beyond that many different stacks at a time, those of one reason are one group without a stack.
        new.sort_unstable();
        new.truncate(MAX_PLACES.saturating_sub(self.places.len()));
        let stacks: Vec<&[u64]> = new.iter().map(|(_, addresses)| &**addresses).collect();
        for (key, frames) in new.iter().zip(symbol::stacks(&mut *self.symbolizer, &stacks)) {
            let id = identity::of_group(GroupKind::Thread, key.0, &frames);
            self.stacks.insert((*key).clone(), (id, Arc::clone(&frames)));
            self.places.entry(id).or_insert(frames);
            known.insert(key, id);
        }
        keys.iter()
            .map(|key| {
                known.get(*key).copied().unwrap_or_else(|| {
                    let id = identity::of_group(GroupKind::Thread, key.0, &[]);
                    self.places.entry(id).or_insert_with(|| Arc::new([]));
                    count(losses, "thread_stacks_left_out", 1);
                    id
                })
            })
            .collect()
    }

    /// Measures the resident stack of some threads that have not been measured since they came here.
    fn measure_stacks(&mut self, sleepers: &mut [Sleeper]) {
        let unmeasured = sleepers.iter_mut().filter(|sleeper| sleeper.now.stack_bytes.is_none());
        for sleeper in unmeasured.take(MAX_MEASURED_STACKS) {
            let Some(mapping) = self.mapping(sleeper.now.sp) else { continue };
            let (start, end) = (mapping.start, mapping.end);
            let Some(pagemap) = self.pagemap.as_mut() else { return };
            let page = pagemap::page_bytes();
            // A mapping beyond the bound is measured from its top, where a stack begins.
            let start = start.max(end.saturating_sub(MAX_STACK_PAGES * page));
            sleeper.now.stack_bytes =
                pagemap.resident_pages(start, end, MAX_STACK_PAGES).ok().map(|n| n * page);
        }
    }

    /// Makes the groups, and remembers this moment for the next.
    fn group(&mut self, now: f64, sleepers: Vec<Sleeper>, sample: &mut ThreadSample) {
        let mut groups: BTreeMap<GroupId, Members> = BTreeMap::new();
        let mut threads = HashMap::with_capacity(sleepers.len());
        for sleeper in sleepers {
            groups.entry(sleeper.now.group).or_default().add(&sleeper);
            threads.insert(sleeper.tid, sleeper.now);
        }
        for (tid, before) in &self.threads {
            let stayed = threads
                .get(tid)
                .is_some_and(|now| (now.started, now.group) == (before.started, before.group));
            if !stayed {
                groups.entry(before.group).or_default().left += 1;
            }
        }
        self.threads = threads;
        let mut all: Vec<Group> = groups
            .into_iter()
            .filter_map(|(id, members)| members.into_group(id, self.places.get(&id)?, now, self.first))
            .collect();
        let present: HashSet<GroupId> = all.iter().map(|group| group.id).collect();
        self.places.retain(|id, _| present.contains(id));
        all.sort_by(|a, b| b.count.cmp(&a.count).then(a.id.cmp(&b.id)));
        sample.groups_total = all.len() as u64;
        sample.members_left_out = all.iter().skip(MAX_GROUPS).map(|group| group.count).sum();
        all.truncate(MAX_GROUPS);
        count(&mut sample.losses, "thread_groups_left_out", sample.groups_total - all.len() as u64);
        sample.groups = all;
    }
}

/// A thread asleep at this moment, and where it was at the last one.
struct Sleeper {
    tid: u32,
    now: Tracked,
    before: Option<GroupId>,
    /// It is not the wait that it was in before.
    ran: bool,
}

/// What is summed up over the members of a group.
#[derive(Default)]
struct Members {
    count: u64,
    joined: u64,
    left: u64,
    moved: u64,
    timed: u64,
    reason: &'static str,
    first_seen: Option<f64>,
    measured: u64,
    measured_bytes: u64,
    objects: HashSet<u64>,
}

impl Members {
    fn add(&mut self, sleeper: &Sleeper) {
        let now = &sleeper.now;
        self.count += 1;
        if sleeper.before != Some(now.group) {
            self.joined += 1;
        } else if sleeper.ran {
            self.moved += 1;
        }
        self.timed += u64::from(now.timed);
        self.reason = now.reason;
        self.first_seen = Some(self.first_seen.map_or(now.first_seen, |first| first.min(now.first_seen)));
        self.objects.insert(now.address);
        if let Some(bytes) = now.stack_bytes {
            self.measured += 1;
            self.measured_bytes = self.measured_bytes.saturating_add(bytes);
        }
    }

    /// `None` for a group that all have left.
    fn into_group(self, id: GroupId, frames: &Arc<[Frame]>, now: f64, first: bool) -> Option<Group> {
        let objects = self.objects.len() as u64;
        let note = match self.timed {
            0 => None,
            timed if timed == self.count => Some("with a timeout".to_owned()),
            timed => Some(format!("{timed} of them with a timeout")),
        };
        // Members that were not measured count as the mean of those that were.
        let scaled =
            u128::from(self.measured_bytes) * u128::from(self.count) / u128::from(self.measured.max(1));
        (self.count > 0).then(|| Group {
            id,
            kind: GroupKind::Thread,
            state: "sleeping".to_owned(),
            wait_reason: self.reason.to_owned(),
            count: self.count,
            joined: if first { 0 } else { self.joined },
            left: self.left,
            moved: self.moved,
            oldest_wait_seconds: self.first_seen.map(|first| (now - first).max(0.0)),
            stack_bytes: u64::try_from(scaled).unwrap_or(u64::MAX),
            frames: Arc::clone(frames),
            waits_on: Some(WaitsOn {
                kind: "futex".to_owned(),
                objects,
                address: self.objects.iter().next().copied().filter(|_| objects == 1),
                note,
                ..WaitsOn::default()
            }),
            ..Group::default()
        })
    }
}

fn tell_of_cut_stacks(sleepers: &[Sleeper], by_kernel: bool, sample: &mut ThreadSample) {
    let cut = sleepers.iter().filter(|sleeper| !sleeper.now.whole).count();
    if cut == 0 {
        return;
    }
    let (why, remedy) = if by_kernel {
        (
            "code without call frame information or frame pointers",
            "build the target with -fasynchronous-unwind-tables or -fno-omit-frame-pointer",
        )
    } else {
        (
            "/proc does not tell the frame pointer, which the code there needs",
            "run observer with its eBPF part (CAP_BPF and CAP_PERFMON)",
        )
    };
    sample.degraded.push(Degraded {
        feature: "thread stacks".to_owned(),
        reason: format!("{cut} of {} thread stacks end early: {why}", sleepers.len()),
        remedy: remedy.to_owned(),
    });
}

fn count(losses: &mut Losses, name: &str, lost: u64) {
    if lost > 0 {
        *losses.entry(name.to_owned()).or_default() += lost;
    }
}
