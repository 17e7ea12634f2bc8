//! The memory map of a process: `/proc/PID/maps`, parsed from bytes, bounded.

use std::fs::File;
use std::io::{self, Read as _};

/// A process with more mappings than this is read only so far (`vm.max_map_count` is 65,530 by default).
pub const MAX_MAPPINGS: usize = 1 << 18;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    pub shared: bool,
    /// Offset of `start` in the file.
    pub offset: u64,
    pub device: (u32, u32),
    pub inode: u64,
    /// As the kernel prints it: a path, `[heap]`, `[stack]`, ..., or empty.
    pub path: String,
}

impl Mapping {
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Whether a file stands behind it (not `[heap]` and the like).
    pub fn is_file(&self) -> bool {
        self.inode != 0
    }
}

/// Where in the mappings, which are in order, the one that holds an address stands.
pub fn index_of(maps: &[Mapping], address: u64) -> Option<usize> {
    let index = maps.partition_point(|mapping| mapping.start <= address).checked_sub(1)?;
    maps.get(index).filter(|mapping| address < mapping.end).map(|_| index)
}

/// The mapping that holds an address.
pub fn at(maps: &[Mapping], address: u64) -> Option<&Mapping> {
    maps.get(index_of(maps, address)?)
}

/// The mappings of a process, by its pid in observer's namespace, in order of address.
pub fn read(pid: u32) -> io::Result<Vec<Mapping>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/maps"))?.take(64 << 20).read_to_end(&mut text)?;
    Ok(parse(&text))
}

/// Parses the text of a maps file; a line that is none is left out.
pub fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).take(MAX_MAPPINGS).collect()
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let line = String::from_utf8_lossy(line);
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.as_bytes();
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?;
    let path = fields.next().unwrap_or("").trim_start();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    (start <= end && permissions.len() == 4).then_some(())?;
    Some(Mapping {
        start,
        end,
        readable: permissions[0] == b'r',
        writable: permissions[1] == b'w',
        executable: permissions[2] == b'x',
        shared: permissions[3] == b's',
        offset: hex(offset)?,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: inode.parse().ok()?,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_the_kernel_prints_and_leaves_out_the_rest() {
        let text = b"55d0c0a00000-55d0c0a28000 r--p 00001000 fe:00 1234                       /usr/bin/a b (deleted)\n\
            7ffd1000-7ffd2000 rw-p 00000000 00:00 0 \n\
            garbage\nzz-11 r--p 0 0:0 0\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]";
        let maps = parse(text);
        assert_eq!(maps.len(), 3);
        assert_eq!(maps[0].path, "/usr/bin/a b (deleted)");
        assert_eq!((maps[0].start, maps[0].offset, maps[0].inode), (0x55d0_c0a0_0000, 0x1000, 1234));
        assert!(maps[0].is_file() && !maps[1].is_file());
        assert!(maps[1].path.is_empty() && maps[1].writable);
        assert!(maps[2].executable && !maps[2].readable);
    }
}
