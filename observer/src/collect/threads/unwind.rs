//! Stacks of sleeping threads, read from outside.
//!
//! An [`Unwinder`] belongs to one process image. [`dwarf::CallFrames`] reads what compilers write for exceptions and
//! debuggers, and is the usual one. [`FramePointers`] follows the chain that code built with frame
//! pointers keeps; libc and most distributions' code is built without, and then the chain starts at the caller
//! that has one, or nowhere. One read of 4 KiB a stack, 2 µs.

pub mod dwarf;
pub mod rules;

use crate::sample::StackEnd;
use crate::target::maps::Mapping;
use crate::target::memory::RemoteMemory;

/// Frames kept of a stack.
pub const MAX_FRAMES: usize = 256;
/// A frame further up than this from the one before is no frame.
const MAX_FRAME_BYTES: u64 = 64 << 20;

/// Registers of a thread at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub ip: u64,
    pub sp: u64,
    /// Not known where only `/proc` tells the registers.
    pub bp: Option<u64>,
}

/// Code addresses, innermost first: the first is exact, the others are return addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    pub addresses: Vec<u64>,
    pub end: End,
    /// A caller was found by its frame pointer where nothing says that there is one: frames may be missing there.
    pub guessed: bool,
}

impl Stack {
    /// What it lacks.
    pub fn lacks(&self) -> Option<StackEnd> {
        match self.end {
            End::Unknown => Some(StackEnd::Unknown),
            _ if self.guessed => Some(StackEnd::Gap),
            End::Truncated => Some(StackEnd::Truncated),
            End::Root => None,
        }
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// At the thread's first frame.
    Root,
    /// There are more frames than are kept.
    Truncated,
    /// What comes next is not known: no frame pointer, or memory that is no stack.
    #[default]
    Unknown,
}

/// Walks stacks of one process.
pub trait Unwinder: Send {
    /// The stack of a thread that sleeps.
    fn unwind(&mut self, registers: &Registers) -> Stack;
    /// The stack of a thread that has long gone on, from a copy made at its stack pointer.
    fn unwind_copied(&mut self, registers: &Registers, stack: &[u8]) -> Stack;
    /// The process has other mappings than before.
    fn remap(&mut self, maps: &[Mapping]);
}

/// Memory of the target through a window, so that a stack is read once and not word by word.
#[derive(Debug)]
pub struct Window {
    memory: RemoteMemory,
    start: u64,
    bytes: Vec<u8>,
    reads: u32,
}

/// Bytes read at a time: almost every sleeping stack lies within so many of its pointer.
const WINDOW_BYTES: usize = 4096;
/// Reads for one stack: 1 MiB of stack is walked, not more.
const MAX_READS: u32 = 256;

impl Window {
    pub fn new(memory: RemoteMemory) -> Self {
        Self { memory, start: 0, bytes: Vec::new(), reads: 0 }
    }

    /// Forgets what was read: the next stack is another one.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.reads = 0;
    }

    /// Shows a copy from `start` up and nothing else.
    pub fn show(&mut self, start: u64, copy: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(copy);
        self.start = start;
        self.reads = MAX_READS;
    }

    pub fn read_u64(&mut self, address: u64) -> Option<u64> {
        if let Some(word) = self.cached(address) {
            return Some(word);
        }
        self.reads += 1;
        if self.reads > MAX_READS {
            return None;
        }
        self.bytes.resize(WINDOW_BYTES, 0);
        let read = self.memory.read(address, &mut self.bytes).unwrap_or(0);
        self.bytes.truncate(read);
        self.start = address;
        self.cached(address)
    }

    fn cached(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.start)?).ok()?;
        Some(u64::from_le_bytes(*self.bytes.get(offset..)?.first_chunk()?))
    }
}

/// Follows the chain of frame pointers.
pub struct FramePointers {
    window: Window,
    code: Vec<std::ops::Range<u64>>,
}

impl FramePointers {
    pub fn new(memory: RemoteMemory) -> Self {
        Self { window: Window::new(memory), code: Vec::new() }
    }
}

impl Unwinder for FramePointers {
    fn unwind(&mut self, registers: &Registers) -> Stack {
        self.window.reset();
        let window = &mut self.window;
        walk(registers, &self.code, |address| window.read_u64(address))
    }

    fn unwind_copied(&mut self, registers: &Registers, stack: &[u8]) -> Stack {
        self.window.show(registers.sp, stack);
        let window = &mut self.window;
        walk(registers, &self.code, |address| window.read_u64(address))
    }

    fn remap(&mut self, maps: &[Mapping]) {
        self.code = code_ranges(maps);
    }
}

/// The executable ranges, in order.
pub fn code_ranges(maps: &[Mapping]) -> Vec<std::ops::Range<u64>> {
    maps.iter().filter(|mapping| mapping.executable).map(|mapping| mapping.start..mapping.end).collect()
}

pub fn is_code(code: &[std::ops::Range<u64>], address: u64) -> bool {
    let after = code.partition_point(|range| range.start <= address);
    after.checked_sub(1).and_then(|index| code.get(index)).is_some_and(|range| address < range.end)
}

/// The chain from `registers.bp`: pairs of the next frame pointer and a return address, each further up.
fn walk(
    registers: &Registers,
    code: &[std::ops::Range<u64>],
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Stack {
    let mut stack = Stack { addresses: vec![registers.ip], end: End::Unknown, guessed: false };
    let (mut above, Some(mut frame)) = (registers.sp, registers.bp) else { return stack };
    while stack.addresses.len() < MAX_FRAMES {
        if frame == 0 && stack.addresses.len() > 1 {
            stack.end = End::Root;
            return stack;
        }
        let reach = frame.checked_sub(above);
        if frame % 8 != 0 || reach.is_none_or(|reach| reach > MAX_FRAME_BYTES) {
            return stack;
        }
        let (Some(next), Some(address)) = (read(frame), frame.checked_add(8).and_then(&mut read)) else {
            return stack;
        };
        if address == 0 {
            stack.end = End::Root;
            return stack;
        }
        if !is_code(code, address.saturating_sub(1)) {
            return stack;
        }
        stack.addresses.push(address);
        // Strictly further up each time, so a cycle ends.
        (above, frame) = (frame.saturating_add(16), next);
    }
    stack.end = End::Truncated;
    stack
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const CODE: &[std::ops::Range<u64>] = &[0x1000..0x1900, 0x1900..0x2000];

    fn walk_words(bp: u64, words: &[(u64, u64)]) -> Stack {
        let words: HashMap<u64, u64> = words.iter().copied().collect();
        let registers = Registers { ip: 0x1001, sp: 0x7000, bp: Some(bp) };
        walk(&registers, CODE, |address| words.get(&address).copied())
    }

    #[test]
    fn follows_a_chain_to_its_root() {
        let words = [(0x7010, 0x7100), (0x7018, 0x1100), (0x7100, 0), (0x7108, 0x1200)];
        let stack = walk_words(0x7010, &words);
        assert_eq!(stack, Stack { addresses: vec![0x1001, 0x1100, 0x1200], end: End::Root, guessed: false });
    }

    #[test]
    fn stops_at_what_is_no_frame() {
        let only_top = Stack { addresses: vec![0x1001], end: End::Unknown, guessed: false };
        // A register that code without frame pointers uses for something else.
        for bp in [0, 1, 0x6ff8, 0x7011, u64::MAX, u64::MAX - 7, 0x7000 + (65 << 20)] {
            assert_eq!(walk_words(bp, &[(0x7010, 0x7020), (0x7018, 0x9999)]), only_top, "{bp:#x}");
        }
        // A frame that names itself.
        let stack = walk_words(0x7010, &[(0x7010, 0x7010), (0x7018, 0x1100)]);
        assert_eq!(stack, Stack { addresses: vec![0x1001, 0x1100], end: End::Unknown, guessed: false });
    }

    #[test]
    fn an_endless_stack_is_cut() {
        let registers = Registers { ip: 0x1001, sp: 0x7000, bp: Some(0x7000) };
        let stack =
            walk(&registers, CODE, |address| Some(if address % 16 == 0 { address + 16 } else { 0x1800 }));
        assert_eq!((stack.addresses.len(), stack.end), (MAX_FRAMES, End::Truncated));
    }
}
