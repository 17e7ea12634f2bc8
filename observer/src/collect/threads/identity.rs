//! The identity of a group over samples and restarts: a hash of what its members have in common, no address in it.

use crate::sample::{Frame, GroupId, GroupKind};

/// FNV-1a, so that an id means the same in every build.
pub fn of_group(kind: GroupKind, reason: &str, frames: &[Frame]) -> GroupId {
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    hash.add(match kind {
        GroupKind::Goroutine => b"goroutine",
        GroupKind::Thread => b"thread",
    });
    hash.add(reason.as_bytes());
    for frame in frames {
        hash.add(frame.function.as_bytes());
        hash.add(frame.module.as_deref().unwrap_or_default().as_bytes());
        if let Some(id) = &frame.build_id {
            hash.add(id.as_bytes());
        }
        match (&frame.file, frame.line) {
            // The line says it, and still does after a change elsewhere in the file's module.
            (Some(file), Some(line)) => {
                hash.add(file.as_bytes());
                hash.add(&line.to_le_bytes());
            }
            // Relative to its file, or made at run time: then the plain address is all there is.
            _ => hash.add(&frame.address.to_le_bytes()),
        }
    }
    GroupId(hash.0)
}

struct Hash(u64);

impl Hash {
    /// Each part with its length, so that parts cannot run into each other.
    fn add(&mut self, part: &[u8]) {
        for &byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_by_reason_and_place_and_by_nothing_else() {
        let frame = |function: &str, line: Option<u32>, address| Frame {
            function: function.to_owned(),
            file: line.map(|_| "a.c".to_owned()),
            line,
            module: Some("a".to_owned()),
            address,
            inlined: false,
            tail_call: false,
            build_id: None,
        };
        let id = |reason: &str, frames: &[Frame]| of_group(GroupKind::Thread, reason, frames);
        let base = id("futex wait", &[frame("f", Some(3), 1)]);
        assert_eq!(base, id("futex wait", &[frame("f", Some(3), 2)]));
        assert_ne!(base, id("futex wait", &[frame("f", Some(4), 1)]));
        assert_ne!(base, id("futex wait bitset", &[frame("f", Some(3), 1)]));
        assert_ne!(id("", &[frame("f", None, 1)]), id("", &[frame("f", None, 2)]));
        assert_ne!(id("", &[frame("ab", None, 1)]), id("a", &[frame("b", None, 1)]));
    }
}
