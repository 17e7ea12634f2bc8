//! Go code addresses to functions, files, lines and frame sizes, from the target's own tables.
//!
//! Needs no symbols: pclntab is in every Go program, stripped or not. Answers are cached and bounded.

pub(crate) mod pclntab;
pub(crate) mod source;
pub(crate) mod stackmap;
pub(crate) mod traceback;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::Arc;

use crate::process::memory::RemoteMemory;
use crate::sample::Frame;
use crate::symbol::Symbolizer;
use crate::symbol::address_hash::AddressHasher;
use pclntab::{Located, Table};
use source::Pages;
use stackmap::FrameMap;

const MAX_STEPS: usize = 1 << 19;
const MAX_PLACES: usize = 1 << 16;
const MAX_FRAME_MAPS: usize = 1 << 16;

/// How to get from a frame to its caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The frame ends so many bytes above the stack pointer.
    Frame(u32),
    /// The outermost function of a goroutine.
    Top,
    /// As a frame, of a call that a signal put there: its caller's pc is the instruction itself.
    Injected(u32),
    /// It moves the stack pointer as it likes; good for a goroutine that left it for a system call.
    WritesStackPointer(u32),
    /// No Go function has this address, or its table is broken.
    Unknown,
}

/// The function tables of every Go module in a process.
#[derive(Debug)]
pub struct GoSymbols {
    pages: Pages,
    tables: Vec<Table>,
    steps: HashMap<u64, Step, BuildHasherDefault<AddressHasher>>,
    places: HashMap<u64, Arc<[Located]>, BuildHasherDefault<AddressHasher>>,
    frame_maps: HashMap<u64, Option<Arc<FrameMap>>, BuildHasherDefault<AddressHasher>>,
}

impl GoSymbols {
    pub fn new(memory: RemoteMemory, tables: Vec<Table>) -> Self {
        Self::over(Pages::new(memory), tables)
    }

    /// The same tables, of which each page is read and kept once; with answers of its own.
    pub fn sharing(&self) -> Self {
        Self::over(self.pages.clone(), self.tables.clone())
    }

    fn over(pages: Pages, tables: Vec<Table>) -> Self {
        Self {
            pages,
            tables,
            steps: HashMap::default(),
            places: HashMap::default(),
            frame_maps: HashMap::default(),
        }
    }

    /// How to leave the frame of a function that is at `pc`.
    pub fn step(&mut self, pc: u64) -> Step {
        if let Some(&step) = self.steps.get(&pc) {
            return step;
        }
        let step = self.find_step(pc).unwrap_or(Step::Unknown);
        if self.steps.len() >= MAX_STEPS {
            self.steps.clear();
        }
        self.steps.insert(pc, step);
        step
    }

    fn find_step(&mut self, pc: u64) -> Option<Step> {
        let table = *self.tables.iter().find(|table| table.contains(pc))?;
        let function = table.function(&mut self.pages, pc)?;
        if function.is_top() {
            return Some(Step::Top);
        }
        let delta = u32::try_from(table.stack_delta(&mut self.pages, &function, pc)?).ok()?;
        let name = table.name(&mut self.pages, &function)?;
        // cgocallback takes care to be unwound through, the runtime says.
        if function.writes_stack_pointer() && name != "runtime.cgocallback" {
            return Some(Step::WritesStackPointer(delta));
        }
        Some(if traceback::is_injected(&name) { Step::Injected(delta) } else { Step::Frame(delta) })
    }

    /// Which words of the frame of a function at `pc` are live pointers; `None` where the program does not say.
    pub fn frame_map(&mut self, pc: u64) -> Option<Arc<FrameMap>> {
        if let Some(map) = self.frame_maps.get(&pc) {
            return map.clone();
        }
        let table = self.tables.iter().find(|table| table.contains(pc)).copied();
        let map = table.and_then(|table| FrameMap::find(&table, &mut self.pages, pc)).map(Arc::new);
        if self.frame_maps.len() >= MAX_FRAME_MAPS {
            self.frame_maps.clear();
        }
        self.frame_maps.insert(pc, map.clone());
        map
    }

    /// Whether the map of the frame of a function at `pc` can be one; `None` where there is none.
    pub fn frame_map_makes_sense(&mut self, pc: u64) -> Option<bool> {
        let table = self.tables.iter().find(|table| table.contains(pc)).copied()?;
        FrameMap::makes_sense(&table, &mut self.pages, pc)
    }

    /// The calls at a return address, innermost first, the physical function last; empty when it is no Go code.
    ///
    /// `exact` says that `pc` is the instruction itself and not the one behind a call.
    pub fn locate(&mut self, pc: u64, exact: bool) -> Arc<[Located]> {
        // Both views of one pc must not share a cache entry; code addresses leave the top bit free.
        let key = pc | u64::from(exact) << 63;
        if let Some(place) = self.places.get(&key) {
            return Arc::clone(place);
        }
        let place: Arc<[Located]> = self.find_place(pc, exact).unwrap_or_default().into();
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
        self.places.insert(key, Arc::clone(&place));
        place
    }

    fn find_place(&mut self, pc: u64, exact: bool) -> Option<Vec<Located>> {
        let table = *self.tables.iter().find(|table| table.contains(pc))?;
        let function = table.function(&mut self.pages, pc)?;
        let at = if exact || pc <= function.entry { pc } else { pc - 1 };
        Some(table.locate(&mut self.pages, &function, at))
    }

    /// The name of the function that `pc` lies in.
    pub fn function_name(&mut self, pc: u64) -> Option<String> {
        let table = *self.tables.iter().find(|table| table.contains(pc))?;
        let function = table.function(&mut self.pages, pc)?;
        table.name(&mut self.pages, &function)
    }

    /// The function that holds a `go` statement, with the line of it: the creator as a dump prints it.
    pub fn creator(&mut self, pc: u64) -> Option<Located> {
        let table = *self.tables.iter().find(|table| table.contains(pc))?;
        let function = table.function(&mut self.pages, pc)?;
        let name = table.name(&mut self.pages, &function)?;
        let at = if pc > function.entry { pc - 1 } else { pc };
        let (file, line) = table.file_line(&mut self.pages, &function, at);
        Some(Located { function: name, file, line, id: function.id, inlined: false })
    }

    /// Where the program's Go code lies; other code of the same file (C in a static program) lies outside of it.
    pub fn text(&self) -> Vec<Range<u64>> {
        self.tables.iter().map(|table| table.text..table.text_end.saturating_add(1)).collect()
    }

    /// Whether a function begins at `pc`.
    pub fn is_entry(&mut self, pc: u64) -> bool {
        let table = self.tables.iter().find(|table| table.contains(pc)).copied();
        table
            .and_then(|table| table.function(&mut self.pages, pc))
            .is_some_and(|function| function.entry == pc)
    }

    pub fn is_code(&self, pc: u64) -> bool {
        self.tables.iter().any(|table| table.contains(pc))
    }
}

impl Symbolizer for GoSymbols {
    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>> {
        addresses
            .iter()
            .map(|&address| {
                let calls = self.locate(address, true);
                (!calls.is_empty()).then(|| calls.iter().map(|call| call.frame(address)).collect())
            })
            .collect()
    }
}
