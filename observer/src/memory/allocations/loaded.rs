//! The files that a process has loaded, in the order in which the dynamic linker looks into them for a symbol.
//!
//! Reads the target's auxiliary vector, its dynamic section and the linker's own list; gives mappings. What cannot be
//! read (a static program, a linker that is not done yet) leaves the executable and the order of addresses.

use std::fs;

use crate::process::maps::{self, Mapping};
use crate::process::memory::RemoteMemory;

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
const DT_DEBUG: u64 = 21;
const MAX_SEGMENTS: u64 = 64;
const MAX_ENTRIES: u64 = 512;
const MAX_LOADED: usize = 4096;

/// Executable mappings, one a file, the first to be asked first.
pub(crate) fn in_order(pid: u32, maps: &[Mapping]) -> Vec<&Mapping> {
    let mut files: Vec<&Mapping> = Vec::new();
    let mut add = |address: u64| {
        let Some(found) = maps::at(maps, address).filter(|found| found.is_file()) else { return };
        let same = |map: &&Mapping| (map.device, map.inode) == (found.device, found.inode);
        if let Some(code) = maps.iter().filter(same).find(|map| map.executable)
            && !files.iter().any(same)
        {
            files.push(code);
        }
    };
    let auxiliary = fs::read(format!("/proc/{pid}/auxv")).unwrap_or_default();
    let headers = value(&auxiliary, AT_PHDR);
    if let Some(headers) = headers {
        add(headers);
    }
    for address in list(pid, &auxiliary).unwrap_or_default() {
        add(address);
    }
    for map in maps.iter().filter(|map| map.executable) {
        add(map.start);
    }
    files
}

fn value(auxiliary: &[u8], key: u64) -> Option<u64> {
    let (words, _) = auxiliary.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().find(|pair| u64::from_ne_bytes(pair[0]) == key).map(|pair| u64::from_ne_bytes(pair[1]))
}

/// The dynamic sections of what is loaded, in the linker's order.
fn list(pid: u32, auxiliary: &[u8]) -> Option<Vec<u64>> {
    let memory = RemoteMemory::new(pid);
    let headers = value(auxiliary, AT_PHDR)?;
    let count = value(auxiliary, AT_PHNUM)?.min(MAX_SEGMENTS);
    let (mut dynamic, mut bias) = (None, 0u64);
    for index in 0..count {
        let mut header = [0; 56];
        memory.read_exact(headers.checked_add(56 * index)?, &mut header).ok()?;
        let kind = u32::from_le_bytes(*header.first_chunk()?);
        let address = u64::from_le_bytes(*header.get(16..)?.first_chunk()?);
        match kind {
            PT_PHDR => bias = headers.wrapping_sub(address),
            PT_DYNAMIC => dynamic = Some(address),
            _ => {}
        }
    }
    let dynamic = dynamic?.wrapping_add(bias);
    let debug = (0..MAX_ENTRIES).find_map(|index| {
        let entry = dynamic.checked_add(16 * index)?;
        (memory.read_u64(entry).ok()? == DT_DEBUG).then(|| memory.read_u64(entry + 8).ok())?
    })?;
    // `struct r_debug`: a version, then the first of `struct link_map`.
    let mut next = memory.read_u64(debug.checked_add(8)?).ok()?;
    let mut sections = Vec::new();
    while next != 0 && sections.len() < MAX_LOADED {
        sections.push(memory.read_u64(next.checked_add(16)?).ok()?);
        next = memory.read_u64(next.checked_add(24)?).ok()?;
    }
    Some(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_comes_first_and_libc_before_the_linker() {
        let pid = std::process::id();
        let maps = maps::read(pid).unwrap();
        let files = in_order(pid, &maps);
        let exe = fs::read_link("/proc/self/exe").unwrap();
        assert_eq!(files[0].path, exe.to_str().unwrap());
        let place = |name: &str| files.iter().position(|map| map.path.contains(name));
        assert!(place("/libc.so") < place("/ld-linux"), "{files:?}");
        assert!(list(pid, &fs::read("/proc/self/auxv").unwrap()).unwrap().len() > 2);
    }

    #[test]
    fn garbage_is_no_list() {
        assert_eq!(value(&[1, 2, 3], AT_PHDR), None);
        assert_eq!(list(std::process::id(), &[0xff; 64]), None);
        let mut words = Vec::new();
        for word in [AT_PHDR, 0x1000, AT_PHNUM, u64::MAX] {
            words.extend(word.to_ne_bytes());
        }
        assert_eq!(list(std::process::id(), &words), None);
    }
}
