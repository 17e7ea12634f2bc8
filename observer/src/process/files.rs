//! Files of `/proc` and cgroups, read with a bound.
//!
//! One system call for each buffer; a file that is longer than its bound is read so far.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The first 64 KiB of a file in `/proc`.
pub(crate) fn read_some(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(64 << 10).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a /proc or cgroup file from its start, at most `limit` bytes, into a buffer that is used again.
pub(crate) fn read_at_start<'b>(file: &File, buffer: &'b mut Vec<u8>, limit: usize) -> io::Result<&'b [u8]> {
    buffer.resize(limit, 0);
    let mut length = 0;
    while length < limit {
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..length])
}
