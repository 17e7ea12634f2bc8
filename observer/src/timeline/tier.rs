//! A series of moments of one resolution, each kept as its difference to the one before: 2 to 4 bytes a group.
//!
//! Moments go in at the back and are forgotten at the front; what was forgotten is handed back, so that nobody keeps
//! the groups that only it named. Reading walks the whole series; nothing is decoded otherwise.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::slice;

use super::groups::{GROUPS, Number, PREFERRED};

/// What a moment says of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Member {
    pub number: Number,
    pub count: u64,
    pub bytes: u64,
}

/// A moment as it goes in and comes out: whole milliseconds, groups in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moment {
    pub at_millis: u64,
    pub generation: u32,
    pub resident: u64,
    pub anonymous: u64,
    pub heap: Option<u64>,
    pub limit: Option<u64>,
    pub groups: Vec<Member>,
}

/// Moments, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Tier {
    first: Option<Moment>,
    last: Moment,
    /// All but the first.
    differences: VecDeque<u8>,
    length: usize,
}

impl Tier {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of the series on the heap.
    pub(super) fn bytes(&self) -> usize {
        let members = self.first.as_ref().map_or(0, |first| first.groups.capacity());
        self.differences.capacity() + (members + self.last.groups.capacity()) * size_of::<Member>()
    }

    /// Bytes that a bound counts.
    pub(super) fn used(&self) -> usize {
        self.differences.len()
    }

    pub(super) fn first(&self) -> Option<&Moment> {
        self.first.as_ref()
    }

    pub(super) fn last(&self) -> Option<&Moment> {
        self.first.as_ref().map(|_| &self.last)
    }

    pub(super) fn push(&mut self, moment: Moment) {
        if self.first.is_none() {
            self.first = Some(moment.clone());
        } else {
            encode(&mut self.differences, &self.last, &moment);
        }
        self.last = moment;
        self.length += 1;
    }

    /// Forgets the oldest moment.
    pub(super) fn pop(&mut self) -> Option<Moment> {
        let first = self.first.take()?;
        self.length -= 1;
        if self.length > 0 {
            let mut bytes = self.differences.iter().copied();
            let before = bytes.len();
            let second = decode(&mut bytes, &first);
            let read = before - bytes.len();
            self.differences.drain(..read);
            self.first = Some(second);
        }
        Some(first)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Moment> {
        let mut bytes = self.differences.iter().copied();
        let mut next = self.first.clone();
        let mut left = self.length;
        std::iter::from_fn(move || {
            let moment = next.take()?;
            left = left.saturating_sub(1);
            if left > 0 {
                next = Some(decode(&mut bytes, &moment));
            }
            Some(moment)
        })
    }
}

/// A moment that stands alone.
pub(super) fn write_moment(moment: &Moment) -> Vec<u8> {
    let mut out = VecDeque::new();
    encode(&mut out, &Moment::default(), moment);
    out.into()
}

/// Whatever the bytes are: a torn moment reads as one with less in it.
pub(super) fn read_moment(bytes: &[u8]) -> Moment {
    decode(&mut bytes.iter().copied(), &Moment::default())
}

fn encode(out: &mut VecDeque<u8>, before: &Moment, moment: &Moment) {
    write(out, zigzag(before.at_millis, moment.at_millis));
    write(out, zigzag(before.generation.into(), moment.generation.into()));
    write(out, zigzag(before.resident, moment.resident));
    write(out, zigzag(before.anonymous, moment.anonymous));
    write_option(out, before.heap, moment.heap);
    write_option(out, before.limit, moment.limit);
    write(out, moment.groups.len() as u64);
    let mut earlier = before.groups.iter().peekable();
    let mut previous: Number = 0;
    for group in &moment.groups {
        let same = same_group(&mut earlier, group.number);
        write(out, u64::from(group.number.wrapping_sub(previous)));
        write(out, zigzag(same.count, group.count));
        write(out, zigzag(same.bytes, group.bytes));
        previous = group.number;
    }
}

/// The group as the moment before has it; nothing where it does not name it.
fn same_group(earlier: &mut Peekable<slice::Iter<'_, Member>>, number: Number) -> Member {
    while earlier.next_if(|member| member.number < number).is_some() {}
    earlier.next_if(|member| member.number == number).copied().unwrap_or_default()
}

fn decode(bytes: &mut impl Iterator<Item = u8>, before: &Moment) -> Moment {
    let at_millis = unzigzag(before.at_millis, read(bytes));
    let generation = unzigzag(before.generation.into(), read(bytes)) as u32;
    let resident = unzigzag(before.resident, read(bytes));
    let anonymous = unzigzag(before.anonymous, read(bytes));
    let heap = read_option(bytes, before.heap);
    let limit = read_option(bytes, before.limit);
    let length = (read(bytes) as usize).min(GROUPS + PREFERRED);
    let mut groups = Vec::with_capacity(length);
    let mut earlier = before.groups.iter().peekable();
    let mut number: Number = 0;
    for _ in 0..length {
        number = number.wrapping_add(read(bytes) as Number);
        let same = same_group(&mut earlier, number);
        let count = unzigzag(same.count, read(bytes));
        let bytes = unzigzag(same.bytes, read(bytes));
        groups.push(Member { number, count, bytes });
    }
    Moment { at_millis, generation, resident, anonymous, heap, limit, groups }
}

/// A difference in either direction as a small number.
fn zigzag(before: u64, now: u64) -> u64 {
    let difference = now.wrapping_sub(before).cast_signed();
    (difference.wrapping_shl(1) ^ (difference >> 63)).cast_unsigned()
}

fn unzigzag(before: u64, written: u64) -> u64 {
    before.wrapping_add((written >> 1) ^ (written & 1).wrapping_neg())
}

/// 7 bits a byte, the lowest first.
fn write(out: &mut VecDeque<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push_back(value as u8 | 0x80);
        value >>= 7;
    }
    out.push_back(value as u8);
}

fn read(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some(byte) = bytes.next() else { break };
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// 0 for none, else one more than the difference would be; the one difference that has no successor is not one that
/// figures of memory have.
fn write_option(out: &mut VecDeque<u8>, before: Option<u64>, now: Option<u64>) {
    write(out, now.map_or(0, |now| zigzag(before.unwrap_or(0), now).saturating_add(1)));
}

fn read_option(bytes: &mut impl Iterator<Item = u8>, before: Option<u64>) -> Option<u64> {
    let written = read(bytes);
    (written > 0).then(|| unzigzag(before.unwrap_or(0), written - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, so that the series is the same each time.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn moments(count: u64) -> Vec<Moment> {
        let mut state = 7;
        (0..count)
            .map(|at| {
                let length = random(&mut state) % 20;
                let mut member = |i: u64| Member {
                    number: (i * 3 + random(&mut state) % 3) as Number,
                    count: random(&mut state) >> (random(&mut state) % 64),
                    bytes: random(&mut state) >> (random(&mut state) % 64),
                };
                let groups = (0..length).map(&mut member).collect();
                Moment {
                    at_millis: 1_700_000_000_000 + at * 1_000,
                    generation: (at / 40) as u32,
                    resident: random(&mut state) % (1 << 40),
                    anonymous: u64::MAX - at,
                    heap: random(&mut state).is_multiple_of(2).then_some(at << 20),
                    limit: random(&mut state).is_multiple_of(3).then_some(1 << 30),
                    groups,
                }
            })
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let moments = moments(200);
        let mut tier = Tier::default();
        for moment in &moments {
            tier.push(moment.clone());
        }
        assert_eq!(tier.iter().collect::<Vec<_>>(), moments);
        for popped in 0..150 {
            assert_eq!(tier.pop().as_ref(), moments.get(popped));
        }
        assert_eq!(tier.iter().collect::<Vec<_>>(), moments[150..]);
        assert_eq!((tier.len(), tier.last()), (50, moments.last()));
        while tier.pop().is_some() {}
        assert_eq!((tier.len(), tier.used(), tier.first(), tier.last()), (0, 0, None, None));
    }

    #[test]
    fn any_difference_survives() {
        let edges = [0, 1, 63, 64, 127, 128, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX];
        for before in edges {
            for now in edges {
                let mut out = VecDeque::new();
                write(&mut out, zigzag(before, now));
                assert_eq!(unzigzag(before, read(&mut out.into_iter())), now, "{before} to {now}");
            }
        }
    }
}
