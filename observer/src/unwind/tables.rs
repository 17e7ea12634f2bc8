//! The call frame information of the files that a process has mapped, each read once however many processes map it.
//!
//! Reads a file when a stack first leads into it (0.3 ms for libc) and keeps its tables while anybody uses them:
//! bounded a file, a process and altogether. A file is known by what the open file says it is, and stays open, so
//! that its number is not given to another one meanwhile.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use super::rules::{Rule, Rules, Section};
use crate::process::maps::Mapping;
use crate::symbol::native::elf;
use crate::symbol::native::module::{Module, ModuleKey};

/// A table larger than this is not read: its module is crossed by what its instructions say.
const MAX_TABLE_BYTES: u64 = 32 << 20;
/// All tables of a process together.
const MAX_PROCESS_BYTES: u64 = 48 << 20;
/// All tables of all processes.
const MAX_BYTES: u64 = 96 << 20;
/// Files of one process: more have no tables until others are unmapped.
const MAX_MODULES: usize = 2048;

/// Bytes of tables in use.
static BYTES: AtomicU64 = AtomicU64::new(0);
/// Those in use by any process.
static SHARED: LazyLock<Mutex<HashMap<FileId, Weak<Table>>>> = LazyLock::new(Mutex::default);

/// Which file, and whether it is still what it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileId {
    fn of(file: &File) -> Option<Self> {
        let found = file.metadata().ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The tables of one file.
pub(super) struct Table {
    module: Module,
    rules: Option<Rules>,
    bytes: u64,
}

impl Drop for Table {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes after the entry point in which the first function of a program returns to.
const ENTRY_BYTES: u64 = 96;

impl Table {
    /// The rule at a place in the file; `None` where the file tells none.
    pub(super) fn rule(&self, offset: u64) -> Option<Rule> {
        let address = self.module.elf.address_of(offset)?;
        // The bytes are the target's, and a library parses them: a fault in it costs one frame, not the program.
        catch_unwind(AssertUnwindSafe(|| self.rules.as_ref()?.at(address))).ok().flatten()
    }

    /// Whether a place in the file is in the code that the kernel starts a program with.
    pub(super) fn is_entry(&self, offset: u64) -> bool {
        let entry = self.module.elf.entry;
        let inside = self.module.elf.address_of(offset).and_then(|address| address.checked_sub(entry));
        entry != 0 && inside.is_some_and(|inside| inside < ENTRY_BYTES)
    }
}

/// The tables of one process.
pub(super) struct Tables {
    pid: u32,
    modules: HashMap<ModuleKey, Option<Arc<Table>>>,
    bytes: u64,
}

impl Tables {
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, modules: HashMap::new(), bytes: 0 }
    }

    /// The tables of the file behind a mapping.
    pub(super) fn of(&mut self, mapping: &Mapping) -> Option<Arc<Table>> {
        let key = ModuleKey::of(mapping)?;
        if let Some(known) = self.modules.get(&key) {
            return known.clone();
        }
        if self.modules.len() >= MAX_MODULES {
            return None;
        }
        let table = self.find(&key, mapping);
        self.bytes = self.bytes.saturating_add(table.as_ref().map_or(0, |table| table.bytes));
        self.modules.insert(key, table.clone());
        table
    }

    /// Lets go of the tables of what is mapped no longer.
    pub(super) fn keep(&mut self, maps: &[Mapping]) {
        let mapped: HashSet<ModuleKey> = maps.iter().filter_map(ModuleKey::of).collect();
        self.modules.retain(|key, _| mapped.contains(key));
        self.bytes = self.modules.values().flatten().map(|table| table.bytes).sum();
    }

    fn find(&self, key: &ModuleKey, mapping: &Mapping) -> Option<Arc<Table>> {
        let module = Module::open(self.pid, key, mapping)?;
        let id = FileId::of(module.file())?;
        let known = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared.retain(|_, table| table.strong_count() > 0);
            shared.get(&id).and_then(Weak::upgrade)
        };
        if let Some(known) = known {
            return Some(known);
        }
        // Without the lock: a file may lie on a disk that does not answer.
        let everybody = MAX_BYTES.saturating_sub(BYTES.load(Ordering::Relaxed));
        let limit = MAX_PROCESS_BYTES.saturating_sub(self.bytes).min(everybody).min(MAX_TABLE_BYTES);
        let table = Arc::new(load(module, limit));
        SHARED.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::downgrade(&table));
        Some(table)
    }
}

/// Reads the tables of a module, within so many bytes.
fn load(module: Module, limit: u64) -> Table {
    let read = || {
        let read = |part: elf::Part| {
            let bytes = (part.size <= limit)
                .then(|| elf::read_at(module.file(), part.file_offset, part.size).ok())??;
            Some(Section { bytes, address: part.address })
        };
        let index = module.elf.unwind_index.and_then(read);
        let frames = match module.elf.unwind_table {
            Some(part) => part,
            None => module.elf.unwind_table_behind(index.as_ref()?.bytes.as_slice())?,
        };
        let frames = read(frames)?;
        let bytes = (frames.bytes.len() + index.as_ref().map_or(0, |index| index.bytes.len())) as u64;
        let rules = catch_unwind(AssertUnwindSafe(|| Rules::new(frames, index))).ok()?;
        Some((rules, bytes))
    };
    let (rules, bytes) = read().unzip();
    let bytes = bytes.unwrap_or(0);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
    Table { module, rules, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps;

    fn code(maps: &[Mapping], name: &str) -> Mapping {
        maps.iter().find(|mapping| mapping.executable && mapping.path.contains(name)).unwrap().clone()
    }

    #[test]
    fn two_processes_share_a_file_and_what_is_unmapped_is_let_go() {
        let pid = std::process::id();
        let maps = maps::read(pid).unwrap();
        let libc = code(&maps, "/libc.so");
        let (mut one, mut other) = (Tables::new(pid), Tables::new(pid));
        let (first, second) = (one.of(&libc).unwrap(), other.of(&libc).unwrap());
        assert!(Arc::ptr_eq(&first, &second) && first.bytes > 0 && one.bytes == first.bytes);
        assert!(BYTES.load(Ordering::Relaxed) >= first.bytes);
        one.keep(&maps);
        assert!(one.bytes == first.bytes);
        one.keep(&[]);
        assert!(one.bytes == 0 && one.modules.is_empty());
    }

    #[test]
    fn the_vdso_is_read_from_memory() {
        let pid = std::process::id();
        let maps = maps::read(pid).unwrap();
        let table = Tables::new(pid).of(&code(&maps, "[vdso]")).unwrap();
        assert!(table.rules.is_some());
    }
}
