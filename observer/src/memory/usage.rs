//! Memory of one process: what is resident, what is anonymous, and the limit it runs into.
//!
//! Reads `/proc/PID/status` and the limit files of the process's cgroups; gives a [`Memory`] (without its Go part).
//! All files stay open: a sample is a handful of `pread`s, some 20 µs.

use std::fs::File;
use std::io;

use thiserror::Error;

use crate::process::files::read_at_start;
use crate::sample::Memory;

pub(crate) mod cgroup;

/// `status` has some 60 short lines; a longer one is cut, and what we need stands in its first half.
const STATUS_BYTES: usize = 16 << 10;

#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("cannot read /proc/{pid}/status: {source} (is the process still there, and may you see it?)")]
    Unreadable { pid: u32, source: io::Error },
    #[error("process {0} has exited")]
    Exited(u32),
    #[error("process {0} has no memory of its own: it is a kernel thread or a zombie")]
    NoMemory(u32),
}

/// Reads the memory figures of one process again and again.
#[derive(Debug)]
pub struct ProcessReader {
    pid: u32,
    status: File,
    limits: cgroup::Limits,
    buffer: Vec<u8>,
}

impl ProcessReader {
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        let status = File::open(format!("/proc/{pid}/status")).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProcessError::Exited(pid),
            _ => ProcessError::Unreadable { pid, source },
        })?;
        Ok(Self { pid, status, limits: cgroup::Limits::of(pid), buffer: Vec::new() })
    }

    /// The figures now. The open file belongs to this process for good: a new one with the same pid reads as exited.
    pub fn memory(&mut self) -> Result<Memory, ProcessError> {
        let pid = self.pid;
        let text =
            read_at_start(&self.status, &mut self.buffer, STATUS_BYTES).map_err(|source| {
                match source.raw_os_error() {
                    Some(libc::ESRCH) => ProcessError::Exited(pid),
                    _ => ProcessError::Unreadable { pid, source },
                }
            })?;
        let status = Status::parse(text);
        if matches!(status.state, Some(b'Z' | b'X' | b'x')) {
            return Err(ProcessError::Exited(pid));
        }
        let resident = status.resident_bytes.ok_or(ProcessError::NoMemory(pid))?;
        let limit = self.limits.lowest();
        Ok(Memory {
            resident_bytes: resident,
            // Before Linux 4.5 there is no such line: then all that is resident is the nearest figure.
            anonymous_bytes: status
                .anonymous_bytes
                .unwrap_or(resident)
                .saturating_add(status.swapped_bytes.unwrap_or(0)),
            limit_bytes: limit.map(|limit| limit.bytes),
            limit_usage_bytes: limit.and_then(|limit| limit.usage_bytes),
            heap: None,
        })
    }
}

/// What `/proc/PID/status` says about memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    state: Option<u8>,
    resident_bytes: Option<u64>,
    anonymous_bytes: Option<u64>,
    swapped_bytes: Option<u64>,
}

impl Status {
    /// The kernel escapes line ends in `Name:`, so that a process cannot add lines of its own.
    fn parse(text: &[u8]) -> Self {
        let mut status = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            match name {
                b"State" => status.state = value.first().copied(),
                b"VmRSS" => status.resident_bytes = kibibytes(value),
                b"RssAnon" => status.anonymous_bytes = kibibytes(value),
                b"VmSwap" => status.swapped_bytes = kibibytes(value),
                _ => {}
            }
        }
        status
    }
}

/// `1234 kB`, in bytes.
fn kibibytes(value: &[u8]) -> Option<u64> {
    let number = str::from_utf8(value.strip_suffix(b"kB")?).ok()?;
    number.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_it_needs_and_no_others() {
        let text = b"Name:\tVmRSS:\\n99 kB\nState:\tS (sleeping)\nVmPeak:\t 10 kB\nVmRSS:\t  123456 kB\n\
            RssAnon:\t    2048 kB\nRssFile:\t 1 kB\nVmSwap:\t       4 kB\nThreads:\t3\n";
        assert_eq!(
            Status::parse(text),
            Status {
                state: Some(b'S'),
                resident_bytes: Some(123_456 << 10),
                anonymous_bytes: Some(2 << 20),
                swapped_bytes: Some(4096),
            }
        );
        let hostile =
            b"VmRSS:\t99999999999999999999 kB\nVmSwap: 18446744073709551615 kB\nRssAnon: -1 kB\n:\n\n";
        assert_eq!(Status::parse(hostile), Status::default());
    }

    #[test]
    fn sees_its_own_memory_grow() {
        let mut reader = ProcessReader::open(std::process::id()).unwrap();
        let before = reader.memory().unwrap();
        let held = vec![7u8; 48 << 20];
        let after = reader.memory().unwrap();
        let grown = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
        assert!(std::hint::black_box(&held)[1 << 20] == 7 && grown > 40 << 20, "grew by {grown}");
        assert!(after.resident_bytes >= after.anonymous_bytes / 2);
    }

    #[test]
    fn a_process_that_ends_reads_as_exited() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut reader = ProcessReader::open(child.id()).unwrap();
        assert!(reader.memory().is_ok());
        child.kill().unwrap();
        // First a zombie, then gone: both are an exit.
        while reader.memory().is_ok() {
            std::thread::yield_now();
        }
        assert!(matches!(reader.memory(), Err(ProcessError::Exited(_))));
        child.wait().unwrap();
        assert!(matches!(reader.memory(), Err(ProcessError::Exited(_))));
        assert!(matches!(ProcessReader::open(child.id()), Err(ProcessError::Exited(_))));
    }
}
