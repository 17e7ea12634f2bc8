//! Names of threads, as the kernel has them: 15 bytes, given by the program or its runtime.
//!
//! Takes the names of a group's members, gives a few: `worker-1` and `worker-2` are `worker-#`, and a number that is
//! the same in all of them stays. The names are the target's, and so may be anything.

use crate::sample::ThreadName;

/// Names of a group that are shown, most members first.
const SHOWN: usize = 8;
/// Names told apart while they are counted.
const MOST: usize = 64;
/// As in the kernel, with the closing zero.
const BYTES: usize = 16;

/// The name of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comm([u8; BYTES]);

impl Comm {
    pub fn new(comm: &[u8]) -> Self {
        let mut name = [0; BYTES];
        for (to, from) in name.iter_mut().zip(comm.iter().take(BYTES - 1).take_while(|&&byte| byte != 0)) {
            *to = *from;
        }
        Self(name)
    }

    /// Pieces of digits and of anything else, in turn.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let length = self.0.iter().position(|&byte| byte == 0).unwrap_or(BYTES);
        self.0[..length].chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
    }

    /// The same but for the numbers in it.
    fn is_like(&self, other: &Self) -> bool {
        let is_number = |piece: &[u8]| piece[0].is_ascii_digit();
        self == other
            || self
                .pieces()
                .map(|piece| if is_number(piece) { b"#" } else { piece })
                .eq(other.pieces().map(|piece| if is_number(piece) { b"#" } else { piece }))
    }
}

/// The names of a group's members.
#[derive(Debug, Default)]
pub(crate) struct Comms {
    likes: Vec<Alike>,
}

#[derive(Debug)]
struct Alike {
    first: Comm,
    /// A bit for each piece that is not the same in all.
    varies: u16,
    count: u64,
}

impl Comms {
    /// Names beyond the bound are not counted; the count of the group tells that there are more.
    pub(crate) fn add(&mut self, name: Comm) {
        if name == Comm::default() {
            return;
        }
        let known = self.likes.iter_mut().find(|alike| alike.first.is_like(&name));
        if let Some(alike) = known {
            alike.count += 1;
            if alike.first != name {
                for (place, (one, other)) in alike.first.pieces().zip(name.pieces()).enumerate() {
                    alike.varies |= u16::from(one != other) << place;
                }
            }
        } else if self.likes.len() < MOST {
            self.likes.push(Alike { first: name, varies: 0, count: 1 });
        }
    }

    /// Most members first.
    pub(crate) fn shown(mut self) -> Vec<ThreadName> {
        self.likes.sort_by(|a, b| b.count.cmp(&a.count).then(a.first.0.cmp(&b.first.0)));
        self.likes.iter().take(SHOWN).map(Alike::show).collect()
    }
}

impl Alike {
    fn show(&self) -> ThreadName {
        let mut name = Vec::with_capacity(BYTES);
        for (place, piece) in self.first.pieces().enumerate() {
            name.extend_from_slice(if self.varies >> place & 1 == 1 { b"#" } else { piece });
        }
        ThreadName { name: String::from_utf8_lossy(&name).into_owned(), count: self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &[&[u8]]) -> Vec<(String, u64)> {
        let mut all = Comms::default();
        for name in names {
            all.add(Comm::new(name));
        }
        all.shown().into_iter().map(|shown| (shown.name, shown.count)).collect()
    }

    #[test]
    fn numbers_that_differ_are_folded_and_others_stay() {
        let names: [&[u8]; 4] = [b"pool-1-thread-1", b"pool-1-thread-9", b"main", b"pool-1-thread-12"];
        assert_eq!(shown(&names), [("pool-1-thread-#".to_owned(), 3), ("main".to_owned(), 1)]);
        assert_eq!(shown(&[b"w7x1", b"w8x1"]), [("w#x1".to_owned(), 2)]);
        assert_eq!(shown(&[b"7", b"a7", b"7a"]).len(), 3, "the same numbers in other places");
    }

    #[test]
    fn what_a_target_calls_its_threads_is_bounded() {
        let many: Vec<String> = (0..1000)
            .map(|i: u32| format!("{}x", "a".repeat(i as usize % 13 + 1) + &i.to_string()))
            .collect();
        let many: Vec<&[u8]> = many.iter().map(String::as_bytes).collect();
        assert_eq!(shown(&many).len(), SHOWN);
        assert_eq!(shown(&[b"", b"\xff\xfe1", b"\xff\xfe2"]), [("\u{fffd}\u{fffd}#".to_owned(), 2)]);
        assert_eq!(shown(&[b"0123456789abcdefgh"])[0].0, "0123456789abcde");
        // Sixteen pieces at most: a bit for each.
        assert_eq!(shown(&[b"1a1a1a1a1a1a1a1", b"2b2b2b2b2b2b2b2"]).len(), 2);
        assert_eq!(shown(&[b"1a1a1a1a1a1a1a1", b"2a2a2a2a2a2a2a2"])[0].0, "#a#a#a#a#a#a#a#");
    }
}
