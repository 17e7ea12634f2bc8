//! The file behind a mapping, opened so that it is the very file that is mapped.
//!
//! Tries `/proc/PID/map_files` (always right, wants CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN), then `/proc/PID/exe`,
//! then the path below `/proc/PID/root`. Only regular files are opened: a FIFO or a device that the target put
//! in the place would hang or act.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::elf::Elf;
use crate::process::maps::Mapping;
use crate::process::memory::RemoteMemory;
use crate::symbol::bounded_name;

/// As the kernel calls it: it is mapped from no file.
const VDSO: &str = "[vdso]";
/// It has some 8 KiB.
const MAX_VDSO_BYTES: u64 = 256 << 10;

/// Which file, so that answers about it hold wherever and however often it is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleKey {
    device: (u32, u32),
    inode: u64,
    path: String,
}

impl ModuleKey {
    /// `None` for memory without a file; the kernel's own library in the process counts as one.
    pub fn of(mapping: &Mapping) -> Option<Self> {
        (mapping.is_file() || mapping.path == VDSO).then(|| Self {
            device: mapping.device,
            inode: mapping.inode,
            path: mapping.path.clone(),
        })
    }

    /// The file's name without its directory, and without what the kernel adds to a deleted one.
    pub fn name(&self) -> String {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        bounded_name(path.rsplit('/').next().unwrap_or(path).to_owned())
    }
}

/// An open ELF file of the target.
#[derive(Debug)]
pub struct Module {
    pub name: String,
    pub elf: Elf,
    file: File,
}

impl Module {
    pub fn open(pid: u32, key: &ModuleKey, mapping: &Mapping) -> Option<Self> {
        if mapping.path == VDSO && !mapping.is_file() {
            let file = copy_of_memory(pid, mapping)?;
            let elf = Elf::read(&file).ok()??;
            return Some(Self { name: key.name(), elf, file });
        }
        let process = PathBuf::from(format!("/proc/{pid}"));
        let mapped = process.join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
        let file = open_regular(&mapped).or_else(|| {
            // Not by its number: layered file systems have others, and a new file gets that of a deleted one.
            let same = |file: &File| has_the_code(pid, file, mapping);
            let exe = process.join("exe");
            let by_name = || {
                let inside = key.path.trim_start_matches('/');
                open_regular(&process.join("root").join(inside))
            };
            open_regular(&exe).filter(same).or_else(|| by_name().filter(same))
        })?;
        let elf = Elf::read(&file).ok()??;
        Some(Self { name: key.name(), elf, file })
    }

    /// A file that nobody has mapped.
    #[cfg(test)]
    pub fn of_file(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let elf = Elf::read(&file).unwrap().unwrap();
        Self { name: path.display().to_string(), elf, file }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// A path that leads to the open file, whatever becomes of the one it was opened by.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Bytes of a mapping's code that are compared with its file's: all of an ordinary library.
const MAX_COMPARED: u64 = 4 << 20;

/// Whether the file has the code that the target's memory has.
fn has_the_code(pid: u32, file: &File, mapping: &Mapping) -> bool {
    const PIECE: usize = 64 << 10;
    const BREAKPOINT: u8 = 0xcc;
    let (mut mapped, mut stored) = (vec![0; PIECE], vec![0; PIECE]);
    let memory = RemoteMemory::new(pid);
    let length = mapping.len().min(MAX_COMPARED);
    let same = |offset: u64| {
        let size = PIECE.min(usize::try_from(length - offset).unwrap_or(PIECE));
        let read = memory.read(mapping.start + offset, &mut mapped[..size]).unwrap_or(0);
        // The last page is filled up behind the end of the file.
        let there = file.read_at(&mut stored[..size], mapping.offset.saturating_add(offset)).unwrap_or(0);
        // Where a debugger or a probe stops, memory has a breakpoint.
        let alike = |(mapped, stored): (&u8, &u8)| mapped == stored || *mapped == BREAKPOINT;
        read == size
            && there > 0
            && there.next_multiple_of(4096) >= size
            && mapped.iter().zip(&stored[..there]).all(alike)
    };
    mapping.executable && length > 0 && (0..length).step_by(PIECE).all(same)
}

/// A file of our own with what a mapping holds.
fn copy_of_memory(pid: u32, mapping: &Mapping) -> Option<File> {
    let size = usize::try_from(mapping.len().min(MAX_VDSO_BYTES)).ok()?;
    let mut bytes = vec![0; size];
    RemoteMemory::new(pid).read_exact(mapping.start, &mut bytes).ok()?;
    let file = File::from(memfd_create(c"vdso", MFdFlags::MFD_CLOEXEC).ok()?);
    file.write_all_at(&bytes, 0).ok()?;
    Some(file)
}

/// Opens a file only when it is a regular one.
fn open_regular(path: &Path) -> Option<File> {
    // First a handle that does nothing, then through it the very same file.
    let handle =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).ok()?;
    if !handle.metadata().ok()?.is_file() {
        return None;
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps;

    #[test]
    fn knows_its_own_code_by_content_and_takes_no_other_file_for_it() {
        let pid = std::process::id();
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        let maps = maps::read(pid).unwrap();
        let code = maps.iter().find(|mapping| mapping.executable && Path::new(&mapping.path) == exe).unwrap();
        assert!(has_the_code(pid, &File::open(&exe).unwrap(), code));
        let other = maps.iter().find(|mapping| mapping.executable && mapping.path.contains("/libc")).unwrap();
        assert!(!has_the_code(pid, &File::open(&other.path).unwrap(), code));
        // Another number, as on a layered file system, is the same file by its content.
        let renumbered = ModuleKey { inode: 1, ..ModuleKey::of(code).unwrap() };
        let unmapped = Mapping { end: code.end + 4096, ..code.clone() };
        assert!(Module::open(pid, &renumbered, &unmapped).is_some_and(|module| module.elf.symbols));
    }

    #[test]
    fn a_fifo_in_the_place_of_a_file_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lib.so");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_regular(&path).is_none());
        assert!(open_regular(Path::new("/dev/zero")).is_none());
        assert!(open_regular(directory.path()).is_none());
    }
}
