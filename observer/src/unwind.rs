//! Stacks of sleeping threads, read from outside.
//!
//! An [`Unwinder`] belongs to one process image. [`dwarf::CallFrames`] reads what compilers write for exceptions and
//! debuggers, then what the instructions themselves say, then frame pointers. One read of 4 KiB a stack, 2 µs.

pub mod dwarf;
mod instructions;
pub(crate) mod rules;
mod tables;

use crate::process::maps::Mapping;
use crate::process::memory::RemoteMemory;
use crate::sample::StackEnd;

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
    /// Where arm64 has the return address of a function that calls nobody; not known there either.
    pub lr: Option<u64>,
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

/// The executable ranges, in order.
pub fn code_ranges(maps: &[Mapping]) -> Vec<std::ops::Range<u64>> {
    maps.iter().filter(|mapping| mapping.executable).map(|mapping| mapping.start..mapping.end).collect()
}

pub fn is_code(code: &[std::ops::Range<u64>], address: u64) -> bool {
    let after = code.partition_point(|range| range.start <= address);
    after.checked_sub(1).and_then(|index| code.get(index)).is_some_and(|range| address < range.end)
}
