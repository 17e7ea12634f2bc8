//! What single members of a group hold: their objects followed side by side, so that an object which two of
//! them reach is nobody's own.
//!
//! Works on the marks: an object that something outside reaches ends a member's own, and is followed a little
//! further only to say how much of it this member reaches alone. Bounded by objects and by the marker's budget.

use std::collections::HashMap;
use std::io;

use super::heap::Object;
use super::mark::{Limit, Marker, Reached};
use crate::process::memory::{MAX_RANGES, RemoteMemory};

/// Objects that are remembered for all members together.
const MAX_OBJECTS: usize = 1 << 21;
/// Objects that are also reached from outside, a member.
const MAX_GLOBAL_OBJECTS: u32 = 2048;
const BUFFER: usize = 1 << 20;
const PIECE: u64 = 256 << 10;
const SHARED: u32 = u32::MAX;

/// What one member holds in the heap, its `g` left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holding {
    /// Bytes of objects that only this member reaches.
    pub own: u64,
    /// Bytes of objects that of the members only this one reaches, but something outside does too.
    pub also_global: u64,
    /// A bound ended the walk.
    pub is_truncated: bool,
    /// It found a way into what everything shares, and `also_global` means nothing.
    pub is_astray: bool,
}

/// Which objects are the group's and not the outside's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Own {
    /// The marks say: those of this group alone.
    Group(usize),
    /// The marks of this group were not made or not finished: all that nothing outside was seen to reach.
    Unmarked,
}

pub(super) struct Members<'m, 'h> {
    memory: RemoteMemory,
    marker: &'m Marker<'h>,
    own: Own,
    limit: Limit,
    /// By object number, who reaches it: a member's index, or `SHARED`.
    reached_by: HashMap<u32, u32>,
    holdings: Vec<Holding>,
    objects: Vec<u32>,
    global_objects: Vec<u32>,
    max_objects: u32,
    bytes_read: u64,
}

/// Words to read: address, bytes, and for which member.
type Task = (u64, u64, u32);

impl<'m, 'h> Members<'m, 'h> {
    pub(super) fn new(
        memory: RemoteMemory,
        marker: &'m Marker<'h>,
        own: Own,
        members: usize,
        limit: Limit,
    ) -> Self {
        Self {
            memory,
            marker,
            own,
            limit,
            reached_by: HashMap::new(),
            holdings: vec![Holding::default(); members],
            objects: vec![0; members],
            global_objects: vec![0; members],
            max_objects: u32::try_from(MAX_OBJECTS / members.max(1)).unwrap_or(u32::MAX),
            bytes_read: 0,
        }
    }

    /// Follows every member from its pointers.
    pub(super) fn follow(mut self, pointers: &[(u64, u32)]) -> io::Result<(Vec<Holding>, u64)> {
        let mut frontier = Vec::new();
        for &(pointer, member) in pointers {
            if let Some(object) = self.marker.heap().find(pointer) {
                self.reach(object, member, &mut frontier);
            }
        }
        while !frontier.is_empty() {
            if self.is_over() {
                self.holdings.iter_mut().for_each(|holding| holding.is_truncated = true);
                break;
            }
            frontier = self.read(&frontier, Self::reach)?;
        }
        let heap = self.marker.heap();
        let mut has_globals = false;
        for (&number, &member) in &self.reached_by {
            let Some(holding) = self.holdings.get_mut(member as usize) else { continue };
            if is_own(self.own, self.marker.reached(number)) {
                holding.own += heap.size_of(number);
            } else {
                has_globals = true;
            }
        }
        if has_globals {
            // A second time, only along what a single member reaches: now all that is shared is known.
            let mut seen = HashMap::new();
            std::mem::swap(&mut seen, &mut self.reached_by);
            let mut frontier = Vec::new();
            for &(pointer, member) in pointers {
                if let Some(object) = self.marker.heap().find(pointer) {
                    self.reach_alone(&mut seen, object, member, &mut frontier);
                }
            }
            while !frontier.is_empty() && !self.is_over() {
                frontier = self.read(&frontier, |members, object, member, next| {
                    members.reach_alone(&mut seen, object, member, next);
                })?;
            }
        }
        Ok((self.holdings, self.bytes_read))
    }

    fn is_over(&self) -> bool {
        self.limit.is_reached(self.bytes_read)
    }

    /// Reads the tasks' words and calls `reach` for each object that they point to; what is to be read next.
    fn read(
        &mut self,
        tasks: &[Task],
        mut reach: impl FnMut(&mut Self, Object, u32, &mut Vec<Task>),
    ) -> io::Result<Vec<Task>> {
        let heap = self.marker.heap();
        let memory = self.memory;
        let mut next = Vec::new();
        let mut buffer = vec![0; BUFFER];
        let mut ranges = Vec::new();
        let mut owners = Vec::new();
        let mut bytes = 0;
        let mut rest = tasks.iter().copied();
        let mut task = rest.next();
        while task.is_some() || !ranges.is_empty() {
            if let Some((address, left, member)) = task
                && ranges.len() < MAX_RANGES
                && bytes + left.min(PIECE) as usize <= BUFFER
            {
                let piece = left.min(PIECE);
                ranges.push((address, piece as usize));
                owners.push(member);
                bytes += piece as usize;
                task = if left > piece {
                    Some((address.saturating_add(piece), left - piece, member))
                } else {
                    rest.next()
                };
                continue;
            }
            memory.read_many(&ranges, &mut buffer, |index, words| {
                let (Some(words), Some(&member)) = (words, owners.get(index)) else { return };
                if self.marker.is_sudog(words) {
                    return;
                }
                for word in words.as_chunks::<8>().0 {
                    if let Some(object) = heap.find(u64::from_le_bytes(*word)) {
                        reach(self, object, member, &mut next);
                    }
                }
            })?;
            self.bytes_read += bytes as u64;
            ranges.clear();
            owners.clear();
            bytes = 0;
            if self.is_over() {
                break;
            }
        }
        Ok(next)
    }

    fn reach(&mut self, object: Object, member: u32, next: &mut Vec<Task>) {
        let heap = self.marker.heap();
        let number = heap.number(object);
        let reached = self.marker.reached(number);
        if reached == Reached::Barrier {
            return;
        }
        let is_own = is_own(self.own, reached);
        match self.reached_by.get_mut(&number) {
            Some(by) if *by == member || *by == SHARED => return,
            Some(by) => {
                *by = SHARED;
                // What lies behind is shared too. Behind something global it does not matter.
                if !is_own {
                    return;
                }
                self.push(object, SHARED, next);
                return;
            }
            None => {}
        }
        if let Some(holding) = self.holdings.get_mut(member as usize) {
            let (count, most) = if is_own {
                (&mut self.objects[member as usize], self.max_objects)
            } else {
                (&mut self.global_objects[member as usize], MAX_GLOBAL_OBJECTS)
            };
            if *count >= most || self.reached_by.len() >= MAX_OBJECTS {
                holding.is_truncated |= is_own;
                holding.is_astray |= !is_own;
                return;
            }
            *count += 1;
        } else if !is_own || self.reached_by.len() >= MAX_OBJECTS {
            return;
        }
        self.reached_by.insert(number, member);
        self.push(object, member, next);
    }

    /// As `reach`, along objects that `member` alone was found to reach; what it meets it takes out of `alone`.
    fn reach_alone(
        &mut self,
        alone: &mut HashMap<u32, u32>,
        object: Object,
        member: u32,
        next: &mut Vec<Task>,
    ) {
        let number = self.marker.heap().number(object);
        if alone.get(&number) != Some(&member) {
            return;
        }
        alone.remove(&number);
        if !is_own(self.own, self.marker.reached(number))
            && let Some(holding) = self.holdings.get_mut(member as usize)
        {
            holding.also_global += self.marker.heap().span(object.span).elemsize;
        }
        self.push(object, member, next);
    }

    fn push(&self, object: Object, member: u32, next: &mut Vec<Task>) {
        let span = self.marker.heap().span(object.span);
        if !span.noscan {
            next.push((self.marker.heap().address(object), span.elemsize, member));
        }
    }
}

fn is_own(own: Own, reached: Reached) -> bool {
    match own {
        Own::Group(group) => reached == Reached::Group(group),
        Own::Unmarked => !matches!(reached, Reached::Outside | Reached::Barrier),
    }
}
