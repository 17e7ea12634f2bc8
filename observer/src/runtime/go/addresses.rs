//! Where the Go runtime's tables lie in a process: pclntab, moduledata, allgs.
//!
//! Found by content in the mapped files, so that a stripped, relocated or section-less program and a Go
//! library in a C program are all the same. Section headers and symbols are not asked. Reads each file
//! that looks like ELF once, in chunks, from the file where it can (so that the target's pages stay
//! where they are). Costs some 10 ms for an ordinary program, once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::bytes::{u32_at, u64_at};
use super::layout::{GLayout, Layout, ModuledataLayout};
use super::{status, version};
use crate::process::maps::Mapping;
use crate::process::memory::RemoteMemory;
use crate::runtime::go::symbol::pclntab::{HEADER_BYTES, Header, Table, is_magic};

const CHUNK: usize = 1 << 20;
/// Bytes of mapped files that are searched; the rest is counted as not Go.
const MAX_SEARCHED: u64 = 2 << 30;
const MAX_TABLES: usize = 64;
const MAX_MODULES: usize = 64;
/// Global variables beyond this are not searched for allgs.
const MAX_DATA: u64 = 1 << 30;
/// More goroutines than a process has addresses for stacks.
const MAX_GOROUTINES: u64 = 1 << 26;
const MODULEDATA_BYTES: usize = 640;

/// One Go module: the program, or a plugin or library with its own tables.
#[derive(Clone, Debug)]
pub struct Module {
    /// Where its moduledata lies.
    pub moduledata: u64,
    pub pclntab: u64,
    pub header: Header,
    pub text: std::ops::Range<u64>,
    /// Global variables without and with pointers: noptrdata, data, bss, noptrbss.
    pub noptrdata: std::ops::Range<u64>,
    pub data: std::ops::Range<u64>,
    pub bss: std::ops::Range<u64>,
    pub noptrbss: std::ops::Range<u64>,
    /// Type descriptors; 0..0 where the layout does not say.
    pub types: std::ops::Range<u64>,
    /// `go:func.*`; 0 where the layout does not say.
    pub gofunc: u64,
    /// The raw bytes, for fields that only some versions have.
    bytes: Vec<u8>,
}

impl Module {
    /// Parses what lies at `address`; fields that move between versions come with [`Module::complete`].
    fn parse(address: u64, bytes: &[u8], header: Header) -> Option<Self> {
        // These have stayed where they are from 1.18 to 1.27.
        let range = |offset: u32| Some(u64_at(bytes, offset)?..u64_at(bytes, offset + 8)?);
        let pclntab = u64_at(bytes, 0)?;
        let module = Self {
            moduledata: address,
            pclntab,
            header,
            text: range(176)?,
            noptrdata: range(192)?,
            data: range(208)?,
            bss: range(224)?,
            noptrbss: range(240)?,
            types: 0..0,
            gofunc: 0,
            bytes: bytes.to_vec(),
        };
        let ordered = [&module.noptrdata, &module.data, &module.bss, &module.noptrbss, &module.text]
            .iter()
            .all(|range| range.start <= range.end && range.end - range.start <= MAX_DATA);
        let named = u64_at(bytes, 8)? == pclntab.checked_add(header.name_offset)?;
        (ordered && named && module.text.start < module.text.end).then_some(module)
    }

    /// Fills in what only the version's layout tells.
    fn complete(&mut self, layout: &ModuledataLayout) {
        let (types, etypes) = (u64_at(&self.bytes, layout.types), u64_at(&self.bytes, layout.etypes));
        if let (Some(start), Some(end)) = (types, etypes)
            && start <= end
        {
            self.types = start..end;
        }
        self.gofunc = u64_at(&self.bytes, layout.gofunc).unwrap_or(0);
    }

    pub fn table(&self) -> Table {
        Table {
            address: self.pclntab,
            header: self.header,
            text: self.text.start,
            text_end: self.text.end,
            gofunc: self.gofunc,
        }
    }

    /// The ranges of global variables, those with pointers first.
    pub fn globals(&self) -> [std::ops::Range<u64>; 4] {
        [self.bss.clone(), self.data.clone(), self.noptrbss.clone(), self.noptrdata.clone()]
    }
}

/// What is known of the runtime before its version's layout is.
#[derive(Clone, Debug)]
pub struct Image {
    pub modules: Vec<Module>,
    /// As the program writes it: `go1.27.3`.
    pub version: Option<String>,
}

/// The runtime's tables in one process.
#[derive(Clone, Debug)]
pub struct RuntimeAddresses {
    pub modules: Vec<Module>,
    /// Where the slice header of `runtime.allgs` lies.
    pub allgs: u64,
}

impl Image {
    /// Searches the mapped files of a process; `None` when there is no Go in it.
    pub fn find(pid: u32, memory: RemoteMemory, maps: &[Mapping]) -> io::Result<Option<Self>> {
        let mut found = Found::default();
        let mut searched = 0;
        for file in files(maps) {
            // Cheaper to ask than to search: what is mapped and executable and no ELF is no Go.
            let is_elf =
                file.iter().any(|mapping| mapping.offset == 0 && begins_with_elf(memory, mapping.start));
            if !is_elf {
                continue;
            }
            let handle = open(pid, file);
            for mapping in file.iter().filter(|mapping| mapping.readable) {
                searched += mapping.len();
                if searched > MAX_SEARCHED {
                    break;
                }
                found.search(memory, handle.as_ref(), mapping)?;
            }
            if found.tables.len() >= MAX_TABLES {
                break;
            }
        }
        if found.tables.is_empty() {
            return Ok(None);
        }
        let modules = modules(memory, maps, &found.tables)?;
        if modules.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { modules, version: found.version }))
    }

    /// Finds the list of goroutines, with the offsets that the version has.
    pub fn anchor(&self, memory: RemoteMemory, layout: &Layout) -> io::Result<Option<RuntimeAddresses>> {
        let mut modules = self.modules.clone();
        for module in &mut modules {
            module.complete(&layout.moduledata);
        }
        let mut best: Option<(u64, u64)> = None;
        for module in &modules {
            for range in module.globals() {
                for (address, length) in find_allgs(memory, range, &layout.g)? {
                    if best.is_none_or(|(_, most)| length > most) {
                        best = Some((address, length));
                    }
                }
            }
        }
        Ok(best.map(|(allgs, _)| RuntimeAddresses { modules, allgs }))
    }
}

/// Mappings of one file each, in order of address. Anonymous memory belongs to none.
fn files(maps: &[Mapping]) -> impl Iterator<Item = &[Mapping]> {
    maps.chunk_by(|left, right| left.is_file() && left.inode == right.inode && left.device == right.device)
        .filter(|chunk| chunk.first().is_some_and(Mapping::is_file))
}

fn begins_with_elf(memory: RemoteMemory, address: u64) -> bool {
    let mut magic = [0; 4];
    memory.read_exact(address, &mut magic).is_ok() && &magic == b"\x7fELF"
}

/// The file behind a mapping, also when it was deleted or lies in another mount namespace.
fn open(pid: u32, file: &[Mapping]) -> Option<File> {
    use std::os::unix::fs::MetadataExt as _;
    let first = file.first()?;
    let same = |handle: &File| {
        handle.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.ino() == first.inode)
    };
    let paths = [
        format!("/proc/{pid}/map_files/{:x}-{:x}", first.start, first.end),
        format!("/proc/{pid}/exe"),
        format!("/proc/{pid}/root{}", first.path),
    ];
    // map_files wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; the others are checked to be the same file.
    // A FIFO in the target's root must not hang us: what is no regular file is not opened for long.
    paths.iter().filter_map(|path| open_nonblocking(path)).find(same)
}

fn open_nonblocking(path: &str) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()
}

#[derive(Default)]
struct Found {
    /// Where a pclntab lies, and its header.
    tables: Vec<(u64, Header)>,
    version: Option<String>,
}

impl Found {
    fn search(&mut self, memory: RemoteMemory, file: Option<&File>, mapping: &Mapping) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut at = mapping.start;
        while at < mapping.end {
            let length = CHUNK.min((mapping.end - at) as usize);
            let Some(chunk) = buffer.get_mut(..length) else { return Ok(()) };
            // Written pages differ from the file; the build information of a program in C style linking
            // lies there too, but is never written.
            let from_file =
                file.and_then(|file| file.read_at(chunk, mapping.offset + (at - mapping.start)).ok());
            let read = match from_file {
                Some(read) if read > 0 => read,
                _ => match memory.read(at, chunk) {
                    Ok(read) => read,
                    Err(error) if error.raw_os_error() == Some(libc::EFAULT) => 0,
                    Err(error) => return Err(error),
                },
            };
            let bytes = chunk.get(..read).unwrap_or_default();
            self.search_tables(memory, at, bytes)?;
            if self.version.is_none() {
                for offset in version::find(bytes) {
                    let mut blob = vec![0; version::BLOB_BYTES];
                    let read = memory.read(at + offset as u64, &mut blob).unwrap_or(0);
                    self.version = blob.get(..read).and_then(version::parse);
                    if self.version.is_some() {
                        break;
                    }
                }
            }
            at += length as u64;
        }
        Ok(())
    }

    fn search_tables(&mut self, memory: RemoteMemory, start: u64, bytes: &[u8]) -> io::Result<()> {
        for (index, word) in bytes.chunks_exact(8).enumerate() {
            if !is_magic(u64::from_le_bytes(word.try_into().unwrap_or_default())) {
                continue;
            }
            let address = start + index as u64 * 8;
            let mut header = [0; HEADER_BYTES];
            match memory.read_exact(address, &mut header) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => continue,
                Err(error) => return Err(error),
            }
            if let Some(header) = Header::parse(&header)
                && self.tables.len() < MAX_TABLES
                && !self.tables.iter().any(|&(known, _)| known == address)
            {
                self.tables.push((address, header));
            }
        }
        Ok(())
    }
}

/// Every moduledata: a word that is the address of a pclntab, followed by that of its names.
fn modules(memory: RemoteMemory, maps: &[Mapping], tables: &[(u64, Header)]) -> io::Result<Vec<Module>> {
    let mut modules: Vec<Module> = Vec::new();
    let mut buffer = vec![0; CHUNK];
    // Relocated, so it is read from memory: writable, or read-only after relocation.
    for file in files(maps) {
        for mapping in
            file.iter().filter(|mapping| mapping.readable && !mapping.executable && !mapping.shared)
        {
            let mut at = mapping.start;
            while at < mapping.end {
                let length = CHUNK.min((mapping.end - at) as usize);
                let Some(chunk) = buffer.get_mut(..length) else { break };
                let read = match memory.read(at, chunk) {
                    Ok(read) => read,
                    Err(error) if error.raw_os_error() == Some(libc::EFAULT) => break,
                    Err(error) => return Err(error),
                };
                for (index, word) in chunk.get(..read).unwrap_or_default().chunks_exact(8).enumerate() {
                    let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
                    let Some(&(_, header)) = tables.iter().find(|&&(address, _)| address == word) else {
                        continue;
                    };
                    let address = at + index as u64 * 8;
                    let mut bytes = vec![0; MODULEDATA_BYTES];
                    let read = memory.read(address, &mut bytes).unwrap_or(0);
                    bytes.truncate(read);
                    if let Some(module) = Module::parse(address, &bytes, header)
                        && modules.len() < MAX_MODULES
                        && !modules.iter().any(|known| known.pclntab == module.pclntab)
                    {
                        modules.push(module);
                    }
                }
                at += length as u64;
            }
        }
        // The tables and the data that points to them are in one file.
        if modules.len() == tables.len() {
            break;
        }
    }
    Ok(modules)
}

/// Slices of valid goroutines in a range of global variables: where, and how long.
fn find_allgs(memory: RemoteMemory, range: std::ops::Range<u64>, g: &GLayout) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = range.start.next_multiple_of(8);
    while at < range.end {
        let length = CHUNK.min((range.end - at) as usize) & !7;
        if length < 24 {
            break;
        }
        let Some(chunk) = buffer.get_mut(..length) else { break };
        let read = match memory.read(at, chunk) {
            Ok(read) => read,
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => 0,
            Err(error) => return Err(error),
        };
        if read < 24 {
            at += 4096 - at % 4096;
            continue;
        }
        let words: Vec<u64> = chunk
            .get(..read)
            .unwrap_or_default()
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let slices: Vec<(u64, u64, u64)> = words
            .windows(3)
            .enumerate()
            .filter(|(_, window)| is_slice(window))
            .filter_map(|(index, window)| Some((at + index as u64 * 8, *window.first()?, *window.get(1)?)))
            .collect();
        for (address, array, length) in first_goroutine(memory, &slices, g)? {
            if all_goroutines(memory, array, length, g) {
                found.push((address, length));
            }
        }
        // A slice header may lie across the border of two chunks.
        at += (read as u64 & !7) - 16;
        if range.end - at < 24 || read < length {
            at = if read < length { (at + 16).next_multiple_of(4096) } else { range.end };
        }
    }
    Ok(found)
}

fn is_slice(window: &[u64]) -> bool {
    let &[array, length, capacity] = window else { return false };
    array >= 0x1000
        && array % 8 == 0
        && array < 1 << 56
        && length >= 1
        && length <= capacity
        && capacity <= MAX_GOROUTINES
}

/// Of many slices, those whose first element is goroutine 1.
fn first_goroutine(
    memory: RemoteMemory,
    slices: &[(u64, u64, u64)],
    g: &GLayout,
) -> io::Result<Vec<(u64, u64, u64)>> {
    let ranges: Vec<(u64, usize)> = slices.iter().map(|&(_, array, _)| (array, 8)).collect();
    let mut buffer = vec![0; ranges.len() * 8];
    let mut heads = Vec::new();
    memory.read_many(&ranges, &mut buffer, |index, bytes| {
        let head = bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        if let (Some(head), Some(&slice)) = (head, slices.get(index))
            && head % 8 == 0
        {
            heads.push((head, slice));
        }
    })?;
    let bytes = g.waitreason as usize + 8;
    let ranges: Vec<(u64, usize)> = heads.iter().map(|&(head, _)| (head, bytes)).collect();
    let mut buffer = vec![0; ranges.len() * bytes];
    let mut found = Vec::new();
    memory.read_many(&ranges, &mut buffer, |index, bytes| {
        if let (Some(bytes), Some(&(head, slice))) = (bytes, heads.get(index))
            && is_goroutine(head, bytes, g)
            && u64_at(bytes, g.goid) == Some(1)
            && u64_at(bytes, g.sched_g) == Some(head)
        {
            found.push(slice);
        }
    })?;
    Ok(found)
}

/// Whether elements over the whole slice are goroutines: other globals too hold the address of the first.
fn all_goroutines(memory: RemoteMemory, array: u64, length: u64, g: &GLayout) -> bool {
    const LOOKED_AT: u64 = 64;
    let step = (length / LOOKED_AT).max(1);
    let indices = (0..length).step_by(step as usize).chain([length - 1]);
    indices.into_iter().all(|index| {
        let Some(slot) = array.checked_add(index * 8) else { return false };
        let Ok(address) = memory.read_u64(slot) else { return false };
        let mut bytes = vec![0; g.waitreason as usize + 8];
        address % 8 == 0 && memory.read_exact(address, &mut bytes).is_ok() && is_goroutine(address, &bytes, g)
    })
}

/// The runtime's invariants of a `g`, for what was read at `address`.
pub fn is_goroutine(address: u64, bytes: &[u8], g: &GLayout) -> bool {
    let (Some(own), Some(low), Some(high)) =
        (u64_at(bytes, g.sched_g), u64_at(bytes, g.stack_lo), u64_at(bytes, g.stack_hi))
    else {
        return false;
    };
    let Some(status) = u32_at(bytes, g.atomicstatus).map(|word| word & !status::SCAN) else { return false };
    // A dead one may have no stack any more, and one that never ran no `sched`.
    (own == address || own == 0)
        && status <= status::LAST
        && (low < high || low == 0 && high == 0 && status::is_dead(status))
}
