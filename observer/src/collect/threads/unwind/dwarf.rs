//! Whole stacks without frame pointers, by the call frame information that ships with every C, C++ and Rust binary.
//!
//! Reads the target's files once a module that a stack leads into (0.3 ms for libc) and its stacks through a
//! window; some 10 µs a new stack, 3 µs once the rules of its places are known. Code without such information
//! (Go, compilers at run time) is crossed by frame pointers, from a C call of a Go program into its goroutine too.
//! An end is called the root only when the information itself says so, or when a chain of frame pointers ends.

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::rules::{Rule, Rules, Section, Values, register};
use super::{End, MAX_FRAME_BYTES, MAX_FRAMES, Registers, Stack, Unwinder, Window, code_ranges, is_code};
use crate::symbol::native::elf;
use crate::symbol::native::module::{Module, ModuleKey};
use crate::target::maps::Mapping;
use crate::target::memory::RemoteMemory;

/// A table larger than this is not read: its module is crossed by frame pointers.
const MAX_TABLE_BYTES: u64 = 24 << 20;
/// All tables of a process together.
const MAX_TABLES_BYTES: u64 = 48 << 20;
/// Places whose rule is remembered.
const MAX_RULES: usize = 1 << 16;
/// Signal handlers on one stack; each may change to another stack once.
const MAX_INTERRUPTIONS: u32 = 8;

/// Unwinds by call frame information, and by frame pointers where there is none.
pub struct CallFrames {
    pid: u32,
    window: Window,
    maps: Vec<Mapping>,
    code: Vec<std::ops::Range<u64>>,
    modules: HashMap<ModuleKey, Option<Arc<Table>>>,
    tables_bytes: u64,
    rules: HashMap<u64, Option<Arc<Rule>>>,
}

/// The tables of one file.
struct Table {
    elf: elf::Elf,
    rules: Rules,
}

impl CallFrames {
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            window: Window::new(RemoteMemory::new(pid)),
            maps: Vec::new(),
            code: Vec::new(),
            modules: HashMap::new(),
            tables_bytes: 0,
            rules: HashMap::new(),
        }
    }

    fn rule(&mut self, address: u64) -> Option<Arc<Rule>> {
        if let Some(known) = self.rules.get(&address) {
            return known.clone();
        }
        if self.rules.len() >= MAX_RULES {
            self.rules.clear();
        }
        let rule = self.find_rule(address).map(Arc::new);
        self.rules.insert(address, rule.clone());
        rule
    }

    fn find_rule(&mut self, address: u64) -> Option<Rule> {
        let after = self.maps.partition_point(|mapping| mapping.start <= address);
        let mapping = self.maps.get(after.checked_sub(1)?).filter(|mapping| address < mapping.end)?;
        let key = ModuleKey::of(mapping)?;
        let offset = (address - mapping.start).checked_add(mapping.offset)?;
        let table = match self.modules.get(&key) {
            Some(known) => known.clone(),
            None => {
                let room = MAX_TABLES_BYTES.saturating_sub(self.tables_bytes);
                let table = load(self.pid, &key, mapping, room);
                self.tables_bytes =
                    self.tables_bytes.saturating_add(table.as_ref().map_or(0, |(_, bytes)| *bytes));
                let table = table.map(|(table, _)| Arc::new(table));
                self.modules.insert(key, table.clone());
                table
            }
        }?;
        let address = table.elf.address_of(offset)?;
        // The bytes are the target's, and a library parses them: a fault in it costs one frame, not the program.
        catch_unwind(AssertUnwindSafe(|| table.rules.at(address))).ok().flatten()
    }
}

/// Reads the tables of a module, within so many bytes.
fn load(pid: u32, key: &ModuleKey, mapping: &Mapping, room: u64) -> Option<(Table, u64)> {
    let module = Module::open(pid, key, mapping)?;
    let limit = room.min(MAX_TABLE_BYTES);
    let read = |file: &File, part: elf::Part| {
        let bytes = (part.size <= limit).then(|| elf::read_at(file, part.file_offset, part.size).ok())??;
        Some(Section { bytes, address: part.address })
    };
    let index = module.elf.unwind_index.and_then(|part| read(module.file(), part));
    let frames = match module.elf.unwind_table {
        Some(part) => part,
        None => module.elf.unwind_table_behind(index.as_ref()?.bytes.as_slice())?,
    };
    let frames = read(module.file(), frames)?;
    let bytes = (frames.bytes.len() + index.as_ref().map_or(0, |index| index.bytes.len())) as u64;
    let rules = catch_unwind(AssertUnwindSafe(|| Rules::new(frames, index))).ok()?;
    Some((Table { elf: module.elf, rules }, bytes))
}

impl Unwinder for CallFrames {
    fn unwind(&mut self, registers: &Registers) -> Stack {
        self.window.reset();
        self.walk(registers)
    }

    fn unwind_copied(&mut self, registers: &Registers, stack: &[u8]) -> Stack {
        self.window.show(registers.sp, stack);
        self.walk(registers)
    }

    fn remap(&mut self, maps: &[Mapping]) {
        let same_code = |one: &Mapping, other: &Mapping| {
            (one.start, one.end, one.offset, one.inode) == (other.start, other.end, other.offset, other.inode)
        };
        let code =
            |maps: &[Mapping]| maps.iter().filter(|mapping| mapping.executable).cloned().collect::<Vec<_>>();
        let (old, new) = (&self.maps, code(maps));
        if old.len() != new.len() || !old.iter().zip(&new).all(|(one, other)| same_code(one, other)) {
            self.rules.clear();
            self.code = code_ranges(&new);
            self.maps = new;
        }
    }
}

impl CallFrames {
    fn same_mapping(&self, one: u64, other: u64) -> bool {
        let of = |address: u64| self.maps.partition_point(|mapping| mapping.start <= address);
        of(one) == of(other) && is_code(&self.code, one) && is_code(&self.code, other)
    }

    fn walk(&mut self, registers: &Registers) -> Stack {
        let mut stack = Stack { addresses: vec![registers.ip], end: End::Unknown, guessed: false };
        let mut values: Values = [None; register::COUNT];
        values[usize::from(register::RETURN)] = Some(registers.ip);
        values[usize::from(register::STACK)] = Some(registers.sp);
        values[usize::from(register::FRAME)] = registers.bp;
        // What to look up: the instruction itself, for a caller the one before its return address.
        let mut lookup = registers.ip;
        let mut interruptions = 0;
        let mut switched = false;
        while stack.addresses.len() < MAX_FRAMES {
            let sp = values[usize::from(register::STACK)].unwrap_or(0);
            let rule = self.rule(lookup);
            let window = &mut self.window;
            let (caller, interrupted) = match rule.as_deref() {
                Some(Rule::Root) => {
                    stack.end = End::Root;
                    return stack;
                }
                Some(rule @ Rule::Caller { interrupted, .. }) => {
                    let caller = catch_unwind(AssertUnwindSafe(|| {
                        rule.apply(&values, |address| window.read_u64(address))
                    }));
                    (caller.ok().flatten(), *interrupted)
                }
                None if values[usize::from(register::FRAME)] == Some(0) && stack.addresses.len() > 1 => {
                    // Where only frame pointers lead on, the first frame has none.
                    stack.end = End::Root;
                    return stack;
                }
                None => {
                    stack.guessed = true;
                    (by_frame_pointer(&values, window), false)
                }
            };
            let Some(caller) = caller else { return stack };
            let Some(address) = caller[usize::from(register::RETURN)] else { return stack };
            let above = caller[usize::from(register::STACK)].unwrap_or(0);
            if address == 0 {
                stack.end = End::Root;
                return stack;
            }
            interruptions += u32::from(interrupted);
            // Only a signal handler runs on another stack than what it interrupted.
            let further_up = above.checked_sub(sp).is_some_and(|bytes| bytes > 0 && bytes < MAX_FRAME_BYTES);
            let here = lookup;
            lookup = if interrupted { address } else { address.saturating_sub(1) };
            // Go leaves the thread's stack for the goroutine's once, within its own code, which has no tables.
            let switches = !further_up && !switched && rule.is_none() && self.same_mapping(here, lookup);
            switched |= switches;
            if !(further_up || switches || interrupted && interruptions <= MAX_INTERRUPTIONS) {
                return stack;
            }
            if !is_code(&self.code, lookup) {
                return stack;
            }
            // An exact address is told as if it were a return address behind it.
            stack.addresses.push(if interrupted { address.saturating_add(1) } else { address });
            values = caller;
        }
        stack.end = End::Truncated;
        stack
    }
}

/// The caller by the frame pointer, where nothing else is known.
fn by_frame_pointer(values: &Values, window: &mut Window) -> Option<Values> {
    let frame = values[usize::from(register::FRAME)]?;
    if !frame.is_multiple_of(8) {
        return None;
    }
    let mut caller: Values = [None; register::COUNT];
    caller[usize::from(register::FRAME)] = Some(window.read_u64(frame)?);
    caller[usize::from(register::RETURN)] = Some(window.read_u64(frame.checked_add(8)?)?);
    caller[usize::from(register::STACK)] = Some(frame.checked_add(16)?);
    Some(caller)
}
