//! The words at and around futexes, read in batches.
//!
//! Reads the target's memory, 64 bytes a futex; where a page ends near by, what is mapped of them. Some 0.3 µs each
//! and the pinning of its page.

use std::collections::HashMap;
use std::io;

use crate::process::memory::RemoteMemory;

/// Bytes before and behind the futex word that are looked at.
const BEFORE: u64 = 16;
const BEHIND: u64 = 48;
const SPAN: usize = (BEFORE + BEHIND) as usize;
/// What is tried in turn: all of it, a mutex, the word alone.
const TRIES: [(u64, u64); 3] = [(BEFORE, BEHIND), (0, 24), (0, 4)];

/// What lies around one futex; it may have been torn or made up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    bytes: [u8; SPAN],
    before: usize,
    behind: usize,
}

impl Words {
    fn new(before: u64, behind: u64, read: &[u8]) -> Self {
        let mut bytes = [0; SPAN];
        let start = (BEFORE - before) as usize;
        for (to, from) in bytes.iter_mut().skip(start).zip(read) {
            *to = *from;
        }
        Self { bytes, before: before as usize, behind: behind as usize }
    }

    /// The word so many bytes from the futex, if it was read.
    pub(super) fn at(&self, offset: i64) -> Option<u32> {
        let within = offset >= -(self.before as i64) && offset + 4 <= self.behind as i64;
        let index = usize::try_from(offset + BEFORE as i64).ok().filter(|_| within)?;
        Some(u32::from_le_bytes(*self.bytes.get(index..)?.first_chunk()?))
    }

    #[cfg(test)]
    pub(super) fn of(before: &[u32], behind: &[u32]) -> Self {
        let bytes: Vec<u8> = before.iter().chain(behind).flat_map(|word| word.to_le_bytes()).collect();
        Self::new(4 * before.len() as u64, 4 * behind.len() as u64, &bytes)
    }
}

/// Reads what lies around each address. Fails only when the process is gone or may not be read.
pub(super) fn read(memory: RemoteMemory, addresses: &[u64]) -> io::Result<HashMap<u64, Words>> {
    let mut found = HashMap::with_capacity(addresses.len());
    let mut left: Vec<u64> = addresses.to_vec();
    for (before, behind) in TRIES {
        let length = (before + behind) as usize;
        let ranges: Vec<(u64, usize)> =
            left.iter().map(|address| (address.saturating_sub(before), length)).collect();
        let mut buffer = vec![0; length * ranges.len()];
        let mut unread = Vec::new();
        memory.read_many(&ranges, &mut buffer, |index, bytes| {
            let Some(&address) = left.get(index) else { return };
            match bytes {
                Some(bytes) => {
                    found.insert(address, Words::new(before, behind, bytes));
                }
                None => unread.push(address),
            }
        })?;
        if unread.is_empty() {
            break;
        }
        left = unread;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_read_is_told() {
        let words = Words::of(&[7, 8], &[1, 2, 3]);
        let told: Vec<_> = [-12, -8, -4, 0, 4, 8, 12, 9].iter().map(|&offset| words.at(offset)).collect();
        assert_eq!(told, [None, Some(7), Some(8), Some(1), Some(2), Some(3), None, None]);
        for odd in [i64::MIN + 16, -17, 45, 48, i64::from(i32::MAX)] {
            assert_eq!(words.at(odd), None, "{odd}");
        }
    }

    #[test]
    fn reads_around_the_ends_of_what_is_mapped() {
        let memory = RemoteMemory::new(std::process::id());
        let words: Vec<u32> = (0..64).collect();
        let at = &raw const words[32] as u64;
        let found = read(memory, &[at, 0x1000, u64::MAX, 0, at + 8]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[&at].at(-16), found[&at].at(44)), (Some(28), Some(43)));
        assert_eq!(found[&(at + 8)].at(0), Some(34));
    }
}
