//! Reads another process's memory: bounded, batched, never written to, never stopped.
//!
//! Reads `process_vm_readv(2)`; needs ptrace access (CAP_SYS_PTRACE, or the same uid and Yama's leave).
//! Costs about 0.2 µs a range in a batch, plus the copy. What is read can be torn or malicious.

pub(crate) mod huge;
pub mod truncated;

use std::io::{self, IoSliceMut};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// The kernel's limit of ranges in one call (`UIO_MAXIOV`).
pub const MAX_RANGES: usize = 1024;

/// The lowest and highest addresses worth asking for.
pub const USER_ADDRESSES: std::ops::Range<u64> =
    0x1000..if cfg!(target_arch = "aarch64") { 1 << 48 } else { 0x7fff_ffff_f000 };

/// The memory of one process, by its pid in observer's PID namespace.
///
/// Holds no lock on the process: after it exits every read fails with `ESRCH`, and whoever keeps a
/// `RemoteMemory` must know by other means (a pidfd) that the pid still names the same process.
#[derive(Clone, Copy, Debug)]
pub struct RemoteMemory {
    pid: Pid,
}

impl RemoteMemory {
    pub fn new(pid: u32) -> Self {
        Self { pid: Pid::from_raw(pid.cast_signed()) }
    }

    /// Fills `buffer` from `address`, or fails; `EFAULT` when a part is not mapped.
    pub fn read_exact(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.read(address, buffer)? == buffer.len() { Ok(()) } else { Err(Errno::EFAULT.into()) }
    }

    /// Fills `buffer` from `address` as far as memory is mapped there; the length that was read.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(end) = address.checked_add(buffer.len() as u64) else { return Err(Errno::EFAULT.into()) };
        if !USER_ADDRESSES.contains(&address) || end > USER_ADDRESSES.end {
            return Err(Errno::EFAULT.into());
        }
        let remote = [RemoteIoVec { base: address as usize, len: buffer.len() }];
        Ok(process_vm_readv(self.pid, &mut [IoSliceMut::new(buffer)], &remote)?)
    }

    pub fn read_u64(&self, address: u64) -> io::Result<u64> {
        let mut word = [0; 8];
        self.read_exact(address, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Reads many ranges, `MAX_RANGES` a call, into one buffer, one after the other.
    ///
    /// `buffer` must hold the sum of the lengths. `done(i, bytes)` is called for each range in order;
    /// `bytes` is `None` where the range could not be read whole. Fails only when the process is gone
    /// or may not be read.
    pub fn read_many<'b>(
        &self,
        ranges: &[(u64, usize)],
        buffer: &'b mut [u8],
        mut done: impl FnMut(usize, Option<&'b [u8]>),
    ) -> io::Result<()> {
        let mut rest = buffer;
        let mut first = 0;
        let mut remote = Vec::with_capacity(MAX_RANGES.min(ranges.len()));
        while first < ranges.len() {
            remote.clear();
            let mut bytes = 0usize;
            for &(address, length) in ranges[first..].iter().take(MAX_RANGES) {
                let end = address.saturating_add(length as u64);
                if !USER_ADDRESSES.contains(&address) || end > USER_ADDRESSES.end {
                    break;
                }
                remote.push(RemoteIoVec { base: address as usize, len: length });
                bytes += length;
            }
            if remote.is_empty() {
                done(first, None);
                first += 1;
                continue;
            }
            let (chunk, tail) = rest.split_at_mut(bytes);
            let read = match process_vm_readv(self.pid, &mut [IoSliceMut::new(chunk)], &remote) {
                Ok(read) => read,
                // The very first range is not mapped.
                Err(Errno::EFAULT) => 0,
                Err(error) => return Err(error.into()),
            };
            // The call stops at the first byte it cannot read; go on behind the range that holds it.
            let mut whole = 0;
            let mut offset = 0;
            for range in &remote {
                if offset + range.len > read {
                    break;
                }
                offset += range.len;
                whole += 1;
            }
            let (good, unread) = chunk.split_at_mut(offset);
            let mut good: &'b [u8] = good;
            for (index, range) in remote[..whole].iter().enumerate() {
                let (bytes, after) = good.split_at(range.len);
                done(first + index, Some(bytes));
                good = after;
            }
            first += whole;
            if whole < remote.len() {
                done(first, None);
                first += 1;
            }
            // Space that this call did not fill serves the next ones.
            rest = rejoin(unread, tail);
        }
        Ok(())
    }
}

/// Two slices that `split_at_mut` just parted, as one again.
fn rejoin<'b>(left: &'b mut [u8], right: &'b mut [u8]) -> &'b mut [u8] {
    debug_assert_eq!(left.as_ptr_range().end, right.as_ptr());
    // SAFETY: both are exclusive borrows for 'b of adjoining parts of one slice.
    unsafe { std::slice::from_raw_parts_mut(left.as_mut_ptr(), left.len() + right.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_around_what_is_not_mapped() {
        let memory = RemoteMemory::new(std::process::id());
        let words: Vec<u64> = (0..3000).collect();
        let mut ranges: Vec<(u64, usize)> =
            words.iter().map(|word| (std::ptr::from_ref(word) as u64, 8)).collect();
        ranges[0].0 = 0x1000;
        ranges[7].0 = 1;
        ranges[1500].0 = u64::MAX - 3;
        ranges[2999].0 = 0x2000;
        let mut buffer = vec![0; 8 * 3000];
        let mut seen = vec![None; 3000];
        memory
            .read_many(&ranges, &mut buffer, |index, bytes| {
                seen[index] = bytes.map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            })
            .unwrap();
        for (index, value) in seen.into_iter().enumerate() {
            let expected = if [0, 7, 1500, 2999].contains(&index) { None } else { Some(index as u64) };
            assert_eq!(value, expected, "range {index}");
        }
    }

    #[test]
    fn a_dead_process_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let memory = RemoteMemory::new(child.id());
        child.wait().unwrap();
        assert_eq!(memory.read_u64(0x10000).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
