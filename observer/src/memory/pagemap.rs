//! Which pages of a process are really there: `/proc/PID/pagemap`.
//!
//! Eight bytes a page, some 2 ns each in a run of pages; needs the same leave as reading its memory, no more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

use crate::process::memory::huge;

/// The size of a page on this machine.
pub(crate) fn page_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let asked = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        asked.ok().flatten().and_then(|bytes| bytes.try_into().ok()).unwrap_or(4096)
    })
}

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// Entries read at a time.
const CHUNK: usize = 2048;

/// The page map of one process.
#[derive(Debug)]
pub(crate) struct Pagemap {
    file: File,
    buffer: Vec<u8>,
}

impl Pagemap {
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/pagemap"))?, buffer: vec![0; CHUNK * 8] })
    }

    /// Pages from `start` to `end` that are in memory or in swap; of at most `most` pages, from `start` on.
    pub(crate) fn resident_pages(&mut self, start: u64, end: u64, most: u64) -> io::Result<u64> {
        let first = start / page_bytes();
        let last = end.div_ceil(page_bytes()).min(first.saturating_add(most));
        let mut page = first;
        let mut resident = 0;
        while page < last {
            let entries = usize::try_from(last - page).unwrap_or(CHUNK).min(CHUNK);
            let read = self.read(page, entries)?;
            resident += read.iter().filter(|&&there| there).count() as u64;
            page += entries as u64;
        }
        Ok(resident)
    }

    /// Whether the page at an address is a huge one; absent where the kernel does not tell (before Linux 6.7).
    pub(crate) fn is_huge(&self, address: u64) -> Option<bool> {
        huge::is_huge(&self.file, address)
    }

    /// For each of these page numbers, in ascending order, whether it is in memory or in swap.
    pub(crate) fn are_resident(&mut self, pages: &[u64]) -> io::Result<Vec<bool>> {
        let mut answers = Vec::with_capacity(pages.len());
        let mut rest = pages;
        while let Some(&first) = rest.first() {
            // One read serves all pages in a stretch that costs less than a second read.
            let run = rest.iter().take_while(|&&page| page >= first && page - first < 64).count().max(1);
            let (now, later) = rest.split_at(run);
            let length = now.last().map_or(1, |&last| (last - first) as usize + 1);
            let there = self.read(first, length)?;
            answers.extend(
                now.iter().map(|&page| there.get((page - first) as usize).is_some_and(|&there| there)),
            );
            rest = later;
        }
        Ok(answers)
    }

    fn read(&mut self, page: u64, entries: usize) -> io::Result<Vec<bool>> {
        // No address reaches so far up.
        let Some(offset) = page.checked_mul(8).filter(|&offset| offset <= 1 << 62) else {
            return Ok(Vec::new());
        };
        let buffer = &mut self.buffer[..entries.min(CHUNK) * 8];
        // The file ends with the address space.
        let read = self.file.read_at(buffer, offset)?;
        let entries = buffer[..read].chunks_exact(8).filter_map(|entry| entry.try_into().ok());
        Ok(entries.map(|entry| u64::from_le_bytes(entry) & (PRESENT | SWAPPED) != 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_touched_pages_from_untouched_ones() {
        let bytes = page_bytes();
        // Beyond 32 MiB every allocation is a mapping of its own, never touched before.
        let pages = (40 << 20) / bytes;
        let mut memory: Vec<u8> = Vec::with_capacity((pages * bytes) as usize);
        let start = (memory.as_ptr() as u64).next_multiple_of(bytes);
        let skip = (start - memory.as_ptr() as u64) as usize;
        let spare = memory.spare_capacity_mut();
        let whole = (spare.len() - skip) as u64 / bytes;
        for page in (0..whole).step_by(3) {
            spare[skip + (page * bytes) as usize].write(1);
        }
        let mut pagemap = Pagemap::open(std::process::id()).unwrap();
        let numbers: Vec<u64> = (0..whole).map(|page| start / bytes + page).collect();
        let answers = pagemap.are_resident(&numbers).unwrap();
        assert!(answers.iter().step_by(3).all(|&there| there));
        // With huge pages for everything, touching one page brings its neighbours.
        let huge = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        if !huge.contains("[always]") {
            assert_eq!(answers.iter().filter(|&&there| there).count() as u64, whole.div_ceil(3));
        }
        let resident = pagemap.resident_pages(start, start + whole * bytes, u64::MAX).unwrap();
        assert_eq!(resident, answers.iter().filter(|&&there| there).count() as u64);
        assert!(pagemap.resident_pages(start, start + whole * bytes, 30).unwrap() <= 30);
        assert_eq!(pagemap.are_resident(&[1, u64::MAX / 8, u64::MAX]).unwrap(), [false; 3]);
        std::hint::black_box(&memory);
    }
}
