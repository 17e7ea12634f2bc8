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
    let nameless = |frame: &Frame| frame.function.is_empty() && frame.module.is_none();
    for (place, frame) in frames.iter().enumerate() {
        if nameless(frame) {
            // Made at run time, and made anew as it becomes hot: its addresses and how many frames there are say
            // nothing that lasts.
            if place == 0 || !nameless(&frames[place - 1]) {
                hash.add(b"nameless");
            }
            continue;
        }
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
            // Made at run time, with a name: it moves whenever it is compiled again.
            _ if frame.module.is_none() => {}
            // Relative to its file.
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
        // What a machine compiles at run time moves, and comes in other numbers as it becomes hot.
        let made = |address| Frame { address, ..Frame::default() };
        let park = || frame("park", None, 1);
        assert_eq!(id("", &[park(), made(1), made(2)]), id("", &[park(), made(9)]));
        assert_ne!(id("", &[park(), made(1)]), id("", &[park()]));
        let named = |address| Frame { function: "LShop;.book".to_owned(), ..made(address) };
        assert_eq!(id("", &[park(), named(1)]), id("", &[park(), named(2)]));
        assert_ne!(id("", &[frame("ab", None, 1)]), id("a", &[frame("b", None, 1)]));
    }
}
