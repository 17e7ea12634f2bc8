//! Names of code that is made at run time, from the map that a virtual machine writes: `/tmp/perf-PID.map`.
//!
//! Node writes one with `--perf-basic-prof`, Java with `jcmd PID Compiler.perfmap`. The file is the target's, in its
//! mount namespace and under its pid there: it is read only when it is a regular file of the target's own user, up
//! to [`MAX_BYTES`] from its end, once a batch of new addresses. Nothing of it is kept but the names asked for. Code
//! moves and its place is used again: of the entries that hold an address the last one wins. Some 10 ms for 5 MB.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{Symbolizer, bounded_name};
use crate::process::maps::{self, Mapping};
use crate::process::status;
use crate::sample::Frame;

/// Of a longer map only the end is read: what was compiled last.
const MAX_BYTES: u64 = 64 << 20;
/// A longer line is no entry; its rest is passed over.
const MAX_LINE: u64 = 4096;
/// A function is not larger than this.
const MAX_FUNCTION: u64 = 64 << 20;

/// Names the code that one process made at run time.
pub(crate) struct PerfMap {
    pid: u32,
    namespace_pid: u32,
}

impl PerfMap {
    pub(crate) fn new(pid: u32) -> Self {
        let namespace_pid = status::innermost_pid(Path::new("/proc"), pid).unwrap_or(pid);
        Self { pid, namespace_pid }
    }

    fn open(&self) -> Option<File> {
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(format!("/proc/{}/root", self.pid))
            .ok()?;
        // Links in the target's directories lead to where they would lead the target, and a FIFO does not hang us.
        let how = OpenHow::new()
            .flags(
                OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            )
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = format!("tmp/perf-{}.map", self.namespace_pid);
        let file = File::from(openat2(root.as_fd(), Path::new(&path), how).ok()?);
        let found = file.metadata().ok()?;
        (found.is_file() && Some(found.uid()) == status::effective_user(Path::new("/proc"), self.pid))
            .then_some(file)
    }
}

impl Symbolizer for PerfMap {
    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>> {
        let mut answers = vec![None; addresses.len()];
        let Ok(maps) = maps::read(self.pid) else { return answers };
        let mut asked: Vec<u64> =
            addresses.iter().copied().filter(|&address| is_made_at_run_time(&maps, address)).collect();
        asked.sort_unstable();
        asked.dedup();
        if asked.is_empty() {
            return answers;
        }
        let Some(names) = self.open().and_then(|file| names(file, &asked)) else { return answers };
        for (answer, address) in answers.iter_mut().zip(addresses) {
            *answer = names
                .get(address)
                .map(|name| [Frame { function: name.clone(), address: *address, ..Frame::default() }].into());
        }
        answers
    }
}

/// Executable memory that no file stands behind.
fn is_made_at_run_time(maps: &[Mapping], address: u64) -> bool {
    maps::at(maps, address)
        .is_some_and(|mapping| mapping.executable && !mapping.is_file() && !mapping.path.starts_with("[v"))
}

/// The names of these addresses, which are in ascending order.
fn names(mut file: File, asked: &[u64]) -> Option<HashMap<u64, String>> {
    let length = file.metadata().ok()?.len();
    let skipped = length.saturating_sub(MAX_BYTES);
    file.seek(SeekFrom::Start(skipped)).ok()?;
    let mut lines = BufReader::with_capacity(256 << 10, file.take(MAX_BYTES));
    let mut names = HashMap::new();
    let mut line = Vec::new();
    // What a cut begins with is the end of a line.
    let mut broken = skipped > 0;
    loop {
        line.clear();
        if lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).ok()? == 0 {
            return Some(names);
        }
        let ends = line.ends_with(b"\n");
        let whole = ends && !broken;
        broken = !ends;
        let Some((start, size, name)) = whole.then(|| entry(&line)).flatten() else { continue };
        let first = asked.partition_point(|&address| address < start);
        for &address in asked.iter().skip(first).take_while(|&&address| address - start < size) {
            names.insert(address, bounded_name(String::from_utf8_lossy(name).into_owned()));
        }
    }
}

/// `START SIZE name`, the numbers in hexadecimal.
fn entry(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let line = line.trim_ascii_end();
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let mut number = || {
        let word = str::from_utf8(words.next()?).ok()?;
        u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
    };
    let (start, size) = (number()?, number()?);
    let name = words.next().filter(|name| !name.is_empty())?;
    (size > 0 && size <= MAX_FUNCTION).then_some((start, size, name))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn look_up(text: &[u8], asked: &[u64]) -> HashMap<u64, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        names(file, asked).unwrap()
    }

    #[test]
    fn the_last_entry_that_holds_an_address_wins() {
        let text = b"1000 100 old\n2000 10 other name with spaces\n1000 80 new\n0x3000 0x10 prefixed\n";
        let found = look_up(text, &[0xfff, 0x1000, 0x1080, 0x1100, 0x200f, 0x2010, 0x3000]);
        let name = |address| found.get(&address).map(String::as_str);
        assert_eq!((name(0x1000), name(0x1080)), (Some("new"), Some("old")));
        assert_eq!((name(0xfff), name(0x1100), name(0x2010)), (None, None, None));
        assert_eq!((name(0x200f), name(0x3000)), (Some("other name with spaces"), Some("prefixed")));
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let mut text = b"\n1000\n1000 10\n1000 10 \nzz 10 a\n1000 0 a\n1000 ffffffffffffffff all\n".to_vec();
        text.extend([0xff, 0xfe, b'\n']);
        // The rest of an endless line is not taken for a line of its own.
        text.extend(vec![b'x'; MAX_LINE as usize]);
        text.extend(b"1000 10 hidden\nffffffffffffffff 10 top\n1000 10 cut off");
        assert!(look_up(&text, &[0x1000]).is_empty());
        assert_eq!(look_up(&text, &[u64::MAX])[&u64::MAX], "top");
        let long = format!("1000 10 {}\n", "n".repeat(3000));
        assert!(look_up(long.as_bytes(), &[0x1000])[&0x1000].len() < 1100);
    }

    #[test]
    fn only_a_file_of_the_targets_own_is_read() {
        let pid = std::process::id();
        let missing = PerfMap { pid, namespace_pid: 0 };
        assert!(missing.open().is_none());
        assert_eq!(PerfMap::new(pid).namespace_pid, pid);
        assert_eq!(status::effective_user(Path::new("/proc"), pid), Some(nix::unistd::geteuid().as_raw()));
    }
}
