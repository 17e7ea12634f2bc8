//! The identity of a group over samples and restarts: a hash of what its members have in common, no address in it.

use crate::sample::{Frame, GroupId, GroupKind};

/// The id of a group, the same in every build.
pub(crate) fn of_group(kind: GroupKind, reason: &str, frames: &[Frame]) -> GroupId {
    let mut hash = Parts(Fnv::new());
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
    GroupId(hash.0.finish())
}

struct Parts(Fnv);

impl Parts {
    /// Each part with its length, so that parts cannot run into each other.
    fn add(&mut self, part: &[u8]) {
        self.0.write(&(part.len() as u64).to_le_bytes());
        self.0.write(part);
    }
}

/// FNV-1a of 64 bits: the same in every release and on every machine. Ids rest on it, and recordings and histories on
/// ids: what is written, and in which order, must never change.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Fnv {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change() {
        // Of the published test vectors of FNV-1a.
        let mut hash = Fnv::new();
        assert_eq!(hash.finish(), 0xcbf2_9ce4_8422_2325);
        hash.write(b"foobar");
        assert_eq!(hash.finish(), 0x8594_4171_f739_67e8);
        let frame = Frame {
            function: "take".to_owned(),
            file: Some("/src/shop.c".to_owned()),
            line: Some(3),
            module: Some("shop".to_owned()),
            ..Frame::default()
        };
        assert_eq!(of_group(GroupKind::Thread, "mutex lock", &[frame]), GroupId(0xa149_523f_abc8_bb6b));
    }

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
