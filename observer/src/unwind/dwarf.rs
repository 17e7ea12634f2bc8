//! Whole stacks without frame pointers, by the call frame information that ships with every C, C++ and Rust binary.
//!
//! Reads the target's files once a module that a stack leads into (0.3 ms for libc) and its stacks through a
//! window; some 10 µs a new stack, 3 µs once the rules of its places are known. Code without such information is
//! crossed by what its instructions say (musl, assembly, much of what is compiled at run time), else by frame
//! pointers, from a C call of a Go program into its goroutine too. Where nothing says that there is a frame pointer
//! the stack says so. An end is called the root only where it is one: the information or the code itself say it.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::instructions::{self, Base, Epilogue, Preserved};
use super::rules::{Rule, Values, register};
use super::tables::{Table, Tables};
use super::{End, MAX_FRAME_BYTES, MAX_FRAMES, Registers, Stack, Unwinder, Window, code_ranges, is_code};
use crate::process::code::RuntimeCode;
use crate::process::maps::{self, Mapping};
use crate::process::memory::RemoteMemory;

/// Places whose rule is remembered.
const MAX_RULES: usize = 1 << 16;
/// Places without one that are remembered with what their instructions say.
const MAX_PLACES: usize = 1 << 14;
/// Signal handlers on one stack; each may change to another stack once.
const MAX_INTERRUPTIONS: u32 = 8;
/// Bytes looked at behind a return address: enough for the end of a thread and a signal's return.
const CODE_BEHIND: usize = 32;
/// Words looked at above a function that never returns.
const MAX_WORDS: u64 = 32;
/// Bytes looked at before one: the longest call.
const CODE_BEFORE: usize = 7;

/// Unwinds by call frame information, and by what else there is where there is none.
pub struct CallFrames {
    memory: RemoteMemory,
    window: Window,
    maps: Vec<Mapping>,
    code: Vec<Range<u64>>,
    tables: Tables,
    rules: HashMap<u64, Option<Arc<Rule>>>,
    /// Places without a rule.
    places: HashMap<u64, Arc<Place>>,
    /// Code that keeps frame pointers, all of it.
    framed: Vec<Range<u64>>,
}

/// Marks a place that is no return address; code addresses leave the bit free.
const EXACT: u64 = 1 << 63;

/// What the instructions at a place say.
struct Place {
    ways: Vec<Epilogue>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    /// It returns from a signal handler to what that interrupted.
    SignalReturn,
    /// A thread or the program begins here.
    First,
}

/// How a caller was found.
struct Found {
    values: Values,
    interrupted: bool,
    guessed: bool,
    by_frame_pointer: bool,
}

impl CallFrames {
    pub fn new(pid: u32) -> Self {
        Self::beside(pid, &RuntimeCode::default())
    }

    /// For a process with code of runtimes.
    pub fn beside(pid: u32, code: &RuntimeCode) -> Self {
        let framed = if code.keeps_frame_pointers { code.text.ranges() } else { &[] };
        let memory = RemoteMemory::new(pid);
        Self {
            memory,
            window: Window::new(memory),
            maps: Vec::new(),
            code: Vec::new(),
            tables: Tables::new(pid),
            rules: HashMap::new(),
            places: HashMap::new(),
            framed: framed.to_vec(),
        }
    }

    fn rule(&mut self, address: u64) -> Option<Arc<Rule>> {
        if let Some(known) = self.rules.get(&address) {
            return known.clone();
        }
        if self.rules.len() >= MAX_RULES {
            self.rules.clear();
        }
        let rule = self.table(address).and_then(|(table, offset)| table.rule(offset)).map(Arc::new);
        self.rules.insert(address, rule.clone());
        rule
    }

    fn mapping(&self, address: u64) -> Option<&Mapping> {
        maps::at(&self.maps, address)
    }

    fn table(&mut self, address: u64) -> Option<(Arc<Table>, u64)> {
        let mapping = self.mapping(address)?.clone();
        let offset = (address - mapping.start).checked_add(mapping.offset)?;
        Some((self.tables.of(&mapping)?, offset))
    }

    /// What the instructions say at a place; `exact` where it is no return address.
    fn place(&mut self, address: u64, exact: bool) -> Arc<Place> {
        let key = if exact { address | EXACT } else { address };
        if let Some(known) = self.places.get(&key) {
            return Arc::clone(known);
        }
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
        let memory = self.memory;
        let mut behind = [0; CODE_BEHIND];
        let read = memory.read(address, &mut behind).unwrap_or(0);
        let behind = &behind[..read];
        let entry = self.table(address).is_some_and(|(table, offset)| table.is_entry(offset));
        let kind = if instructions::returns_from_a_signal(behind) {
            Kind::SignalReturn
        } else if !exact && (entry || instructions::exits_the_thread(address, behind)) {
            Kind::First
        } else {
            Kind::Function
        };
        let ways = if kind == Kind::Function && !self.keeps_frame_pointers(address) {
            let read = |address, bytes: &mut [u8]| memory.read(address, bytes).unwrap_or(0);
            catch_unwind(AssertUnwindSafe(|| instructions::ways_out(address, read))).unwrap_or_default()
        } else {
            Vec::new()
        };
        let place = Arc::new(Place { ways, kind });
        self.places.insert(key, Arc::clone(&place));
        place
    }

    fn keeps_frame_pointers(&self, address: u64) -> bool {
        self.framed.iter().any(|text| text.contains(&address))
    }

    /// Whether the code there is of a file, and so stays what it is.
    fn is_of_file(&self, address: u64) -> bool {
        self.mapping(address).is_some_and(Mapping::is_file)
    }

    /// Whether a call may return there.
    fn may_return_to(&self, address: u64) -> bool {
        if !is_code(&self.code, address.saturating_sub(1)) {
            return false;
        }
        // Virtual machines jump to a function with a return address of their choice, and Go puts one below the first
        // function of a goroutine.
        let mut before = [0; CODE_BEFORE];
        !self.is_of_file(address.saturating_sub(1))
            || self.keeps_frame_pointers(address)
            || self.memory.read_exact(address.saturating_sub(CODE_BEFORE as u64), &mut before).is_err()
            || instructions::follows_a_call(&before)
    }
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
        let of_file = |mapping: &&Mapping| mapping.executable && mapping.is_file();
        if !maps.iter().filter(of_file).eq(self.maps.iter().filter(of_file)) {
            self.rules.clear();
            self.tables.keep(maps);
            self.places.clear();
        }
        self.code = code_ranges(maps);
        self.maps = maps.iter().filter(|mapping| mapping.executable).cloned().collect();
        // What is compiled at run time may be other code by now.
        let mut places = std::mem::take(&mut self.places);
        places.retain(|key, _| self.is_of_file(key & !EXACT));
        self.places = places;
    }
}

impl CallFrames {
    fn walk(&mut self, registers: &Registers) -> Stack {
        let mut stack = Stack { addresses: vec![registers.ip], end: End::Unknown, guessed: false };
        let mut values: Values = [None; register::COUNT];
        // On arm64 this is the link register, which the innermost function may not have saved.
        values[usize::from(register::RETURN)] =
            if cfg!(target_arch = "aarch64") { registers.lr } else { Some(registers.ip) };
        values[usize::from(register::STACK)] = Some(registers.sp);
        values[usize::from(register::FRAME)] = registers.bp;
        // The instruction itself, for a caller its return address.
        let (mut address, mut exact) = (registers.ip, true);
        let mut interruptions = 0;
        let mut switched = false;
        while stack.addresses.len() < MAX_FRAMES {
            let lookup = if exact { address } else { address.saturating_sub(1) };
            let sp = values[usize::from(register::STACK)].unwrap_or(0);
            let found = match self.caller(&values, address, exact) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    stack.end = End::Root;
                    return stack;
                }
                Err(Unknown) => return stack,
            };
            let caller = found.values;
            let Some(next) = caller[usize::from(register::RETURN)].map(code_address) else { return stack };
            let above = caller[usize::from(register::STACK)].unwrap_or(0);
            interruptions += u32::from(found.interrupted);
            // Only a signal handler runs on another stack than what it interrupted.
            // And only what holds its return address in a register can do without a frame.
            let least = u64::from(!(cfg!(target_arch = "aarch64") && exact));
            let further_up =
                above.checked_sub(sp).is_some_and(|bytes| (least..MAX_FRAME_BYTES).contains(&bytes));
            let next_lookup = if found.interrupted { next } else { next.saturating_sub(1) };
            // Go leaves the thread's stack for the goroutine's once, within its own code.
            let switches = !further_up
                && !switched
                && found.by_frame_pointer
                && self.keeps_frame_pointers(lookup)
                && self.keeps_frame_pointers(next_lookup);
            switched |= switches;
            if !(further_up || switches || found.interrupted && interruptions <= MAX_INTERRUPTIONS) {
                return stack;
            }
            if !is_code(&self.code, next_lookup) {
                return stack;
            }
            stack.guessed |= found.guessed;
            // An exact address is told as if it were a return address behind it.
            stack.addresses.push(if found.interrupted { next.saturating_add(1) } else { next });
            values = caller;
            (address, exact) = (next, found.interrupted);
        }
        stack.end = End::Truncated;
        stack
    }

    /// The caller of what is at `address`; `None` where there is none.
    fn caller(&mut self, values: &Values, address: u64, exact: bool) -> Result<Option<Found>, Unknown> {
        let lookup = if exact { address } else { address.saturating_sub(1) };
        let rule = self.rule(lookup);
        match rule.as_deref() {
            Some(Rule::Root) => return Ok(None),
            Some(rule @ Rule::Caller { interrupted, .. }) => {
                let window = &mut self.window;
                let caller =
                    catch_unwind(AssertUnwindSafe(|| rule.apply(values, |address| window.read_u64(address))));
                if let Some(caller) = caller.ok().flatten()
                    && caller[usize::from(register::RETURN)].is_some()
                {
                    return Ok(Some(Found {
                        values: caller,
                        interrupted: *interrupted,
                        guessed: false,
                        by_frame_pointer: false,
                    }));
                }
            }
            None => {}
        }
        let place = self.place(address, exact);
        match place.kind {
            Kind::First => return Ok(None),
            Kind::SignalReturn => {
                let values = interrupted(values, &mut self.window).ok_or(Unknown)?;
                return Ok(Some(Found {
                    values,
                    interrupted: true,
                    guessed: false,
                    by_frame_pointer: false,
                }));
            }
            Kind::Function => {}
        }
        if let Some(found) = self.by_instructions(&place.ways, values, lookup) {
            return Ok(Some(found));
        }
        if let Some(found) = self.below_the_first(values, lookup) {
            return Ok(Some(found));
        }
        let framed = self.keeps_frame_pointers(lookup);
        if framed && values[usize::from(register::FRAME)] == Some(0) {
            // The first function of a goroutine has nobody's frame pointer to keep.
            return Ok(None);
        }
        // With a rule that wants more than is known, a frame pointer is not what leads on.
        if rule.is_some() {
            return Err(Unknown);
        }
        let caller = by_frame_pointer(values, &mut self.window).ok_or(Unknown)?;
        let next = caller[usize::from(register::RETURN)].ok_or(Unknown)?;
        if !self.may_return_to(next) {
            return Err(Unknown);
        }
        Ok(Some(Found { values: caller, interrupted: false, guessed: !framed, by_frame_pointer: true }))
    }

    /// A function that never returns, as the one that ends a thread, shows no way out. Where the first address above
    /// it that a call can have left is a thread's or program's first, that is its caller.
    fn below_the_first(&mut self, values: &Values, lookup: u64) -> Option<Found> {
        if !self.is_of_file(lookup) || self.keeps_frame_pointers(lookup) {
            return None;
        }
        let sp = values[usize::from(register::STACK)]?;
        for word in 0..MAX_WORDS {
            let at = sp.checked_add(8 * word)?;
            let address = self.window.read_u64(at)?;
            if !is_code(&self.code, address.saturating_sub(1)) || !self.may_return_to(address) {
                continue;
            }
            if self.rule(address.saturating_sub(1)).is_some()
                || self.place(address, false).kind != Kind::First
            {
                return None;
            }
            let mut caller: Values = [None; register::COUNT];
            caller[usize::from(register::RETURN)] = Some(address);
            caller[usize::from(register::STACK)] = Some(at.checked_add(8)?);
            return Some(Found {
                values: caller,
                interrupted: false,
                guessed: false,
                by_frame_pointer: false,
            });
        }
        None
    }

    /// The caller that all ways to the function's return agree on, as far as they lead to one.
    fn by_instructions(&mut self, ways: &[Epilogue], values: &Values, lookup: u64) -> Option<Found> {
        let mut found: Option<Values> = None;
        for way in ways {
            let Some(caller) = leave(way, values, &mut self.window) else { continue };
            let next = caller[usize::from(register::RETURN)]?;
            if !self.may_return_to(next) {
                continue;
            }
            found = match found {
                None => Some(caller),
                Some(before) => Some(agreement(&before, &caller)?),
            };
        }
        // Code made at run time may have left its frame in ways that no return shows.
        let guessed = !self.is_of_file(lookup);
        Some(Found { values: found?, interrupted: false, guessed, by_frame_pointer: false })
    }
}

/// Without what arm64 signs return addresses with, in bits that no address has.
fn code_address(address: u64) -> u64 {
    if cfg!(target_arch = "aarch64") { address & 0xffff_ffff_ffff } else { address }
}

/// The caller is not known.
struct Unknown;

/// What two answers have in common: `None` where they are different callers.
fn agreement(one: &Values, other: &Values) -> Option<Values> {
    let same = |number: u16| one[usize::from(number)] == other[usize::from(number)];
    (same(register::RETURN) && same(register::STACK)).then(|| {
        let mut common = *one;
        for (value, other) in common.iter_mut().zip(other) {
            *value = value.filter(|_| *value == *other);
        }
        common
    })
}

/// The caller by one way to the return.
fn leave(way: &Epilogue, values: &Values, window: &mut Window) -> Option<Values> {
    let at = |place: instructions::Place| {
        let base = match place.base {
            Base::Stack => register::STACK,
            Base::Frame => register::FRAME,
        };
        values[usize::from(base)]?.checked_add_signed(place.offset)
    };
    let mut caller: Values = [None; register::COUNT];
    let return_address = at(way.return_address)?;
    caller[usize::from(register::RETURN)] = Some(window.read_u64(return_address)?);
    caller[usize::from(register::STACK)] = Some(return_address.checked_add(8)?);
    for (&number, preserved) in register::PRESERVED.iter().zip(&way.preserved) {
        caller[usize::from(number)] = match preserved {
            Preserved::Unchanged => values[usize::from(number)],
            Preserved::At(place) => at(*place).and_then(|address| window.read_u64(address)),
            Preserved::Lost => None,
        };
    }
    Some(caller)
}

/// What a signal interrupted, by the registers that the kernel put on the stack of its handler.
#[cfg(target_arch = "x86_64")]
fn interrupted(values: &Values, window: &mut Window) -> Option<Values> {
    /// Where `struct ucontext` has what DWARF numbers 3, 6, 7, 12 to 16.
    const SAVED: [(u16, u64); 8] =
        [(3, 128), (6, 120), (7, 160), (12, 72), (13, 80), (14, 88), (15, 96), (16, 168)];
    let context = values[usize::from(register::STACK)]?;
    let mut before: Values = [None; register::COUNT];
    for (number, offset) in SAVED {
        before[usize::from(number)] = Some(window.read_u64(context.checked_add(offset)?)?);
    }
    Some(before)
}

#[cfg(not(target_arch = "x86_64"))]
fn interrupted(_: &Values, _: &mut Window) -> Option<Values> {
    None
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
