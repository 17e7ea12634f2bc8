//! The names of wait reasons, from the target's own table (`runtime.waitReasonStrings`).
//!
//! An array of strings in its data, found by how it begins; so it fits whatever version it is.

use super::addresses::RuntimeAddresses;
use crate::process::memory::RemoteMemory;

/// Lengths of the first names: none, `GC assist marking`, `IO wait`.
const FIRST_LENGTHS: [u64; 3] = [0, 17, 7];
const FIRST_NAMES: [&str; 3] = ["", "GC assist marking", "IO wait"];
const MAX_NAMES: usize = 128;
const MAX_LENGTH: u64 = 64;
const CHUNK: u64 = 1 << 20;
const HEADER_BYTES: u64 = 16;

/// The names by number, or none where the table was not found.
pub(super) fn find(memory: RemoteMemory, anchors: &RuntimeAddresses) -> Option<Vec<String>> {
    for module in &anchors.modules {
        for range in [&module.data, &module.noptrdata] {
            let mut at = range.start.next_multiple_of(8);
            while at < range.end {
                let mut bytes =
                    vec![0; (range.end - at).min(CHUNK + MAX_NAMES as u64 * HEADER_BYTES) as usize];
                let read = memory.read(at, &mut bytes).unwrap_or(0);
                let words: Vec<u64> = bytes
                    .get(..read)
                    .unwrap_or_default()
                    .chunks_exact(8)
                    .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
                    .collect();
                let names = words
                    .windows(6)
                    .enumerate()
                    .filter(|(_, window)| {
                        window.get(1).is_some_and(|&length| length == FIRST_LENGTHS[0])
                            && window.get(3).is_some_and(|&length| length == FIRST_LENGTHS[1])
                            && window.get(5).is_some_and(|&length| length == FIRST_LENGTHS[2])
                    })
                    .find_map(|(index, _)| read_names(memory, words.get(index..)?));
                if names.is_some() {
                    return names;
                }
                at += CHUNK;
            }
        }
    }
    None
}

fn read_names(memory: RemoteMemory, words: &[u64]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for header in words.chunks_exact(2).take(MAX_NAMES) {
        let &[address, length] = header else { break };
        if length == 0 && names.is_empty() {
            names.push(String::new());
            continue;
        }
        let Some(name) = read_name(memory, address, length) else { break };
        names.push(name);
    }
    names.iter().map(String::as_str).take(FIRST_NAMES.len()).eq(FIRST_NAMES).then_some(names)
}

fn read_name(memory: RemoteMemory, address: u64, length: u64) -> Option<String> {
    if length == 0 || length > MAX_LENGTH {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    memory.read_exact(address, &mut bytes).ok()?;
    let is_text = bytes.iter().all(|&byte| byte.is_ascii_graphic() || byte == b' ');
    if is_text { String::from_utf8(bytes).ok() } else { None }
}
