//! Functions and lines of native code, by ELF symbols and debug information.
//!
//! Reads the target's maps and the files mapped there (also deleted ones, and those of another mount namespace);
//! gives frames. New addresses are looked up in one go and the answers kept, so that they outlive the process.
//! blazesym does the search. It is built for a batch and dropped after it: on a large binary it holds tens of
//! megabytes. A first batch takes 1 to 50 ms a module, a known address nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::symbolize::source::{Elf as ElfSource, Source};
use blazesym::symbolize::{Input, Sym, Symbolized, Symbolizer as Blazesym};

use super::cache::Cache;
use super::tail_call::Calls;
use super::{MAX_INLINED, Symbolizer, bounded_name};
use crate::process::maps::{self, Mapping};
use crate::process::memory::RemoteMemory;
use crate::sample::Frame;

pub(crate) mod demangle;
pub(crate) mod elf;
pub(crate) mod guard;
pub(crate) mod module;

use guard::{Spoilt, guarded};
use module::{Module, ModuleKey};

/// Answers kept; a stack has some ten addresses, and there are a few thousand different stacks at most.
const CACHED_ADDRESSES: usize = 1 << 16;
/// Modules kept open; more are opened again when asked for.
const MAX_MODULES: usize = 1024;
/// Debug information that distributions put beside their stripped files, by build id.
const DEBUG_ROOT: &str = "/usr/lib/debug/.build-id";

/// Symbolizes the ELF code of one process image.
pub struct Native {
    pid: u32,
    maps: Vec<Mapping>,
    modules: HashMap<ModuleKey, Option<Arc<Module>>>,
    answers: Cache<(ModuleKey, u64), Arc<[Frame]>>,
    calls: Calls,
}

impl Native {
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            maps: Vec::new(),
            modules: HashMap::new(),
            answers: Cache::new(CACHED_ADDRESSES),
            calls: Calls::new(RemoteMemory::new(pid)),
        }
    }

    /// Where in which file an address lies.
    fn place(&self, address: u64) -> Option<(ModuleKey, u64, &Mapping)> {
        let mapping = maps::at(&self.maps, address).filter(|mapping| mapping.executable)?;
        let offset = (address - mapping.start).checked_add(mapping.offset)?;
        Some((ModuleKey::of(mapping)?, offset, mapping))
    }

    fn module(&mut self, key: &ModuleKey, mapping: &Mapping) -> Option<Arc<Module>> {
        if let Some(known) = self.modules.get(key) {
            return known.clone();
        }
        if self.modules.len() >= MAX_MODULES {
            self.modules.clear();
        }
        let module = Module::open(self.pid, key, mapping).map(Arc::new);
        self.modules.insert(key.clone(), module.clone());
        module
    }

    /// Answers lost from the cache to stay within bounds.
    pub fn evicted(&self) -> u64 {
        self.answers.evicted()
    }
}

impl Symbolizer for Native {
    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>> {
        // Files come and go (dlopen), so each batch has its own maps; of a process that is gone the old ones hold.
        if let Ok(maps) = maps::read(self.pid)
            && !maps.is_empty()
        {
            if !code(&maps).eq(code(&self.maps)) {
                self.calls.forget();
            }
            self.maps = maps;
        }
        let mut answers = vec![None; addresses.len()];
        let mut asked: BTreeMap<ModuleKey, (Mapping, Vec<(usize, u64)>)> = BTreeMap::new();
        for (index, &address) in addresses.iter().enumerate() {
            let Some((key, offset, mapping)) = self.place(address) else { continue };
            let mapping = mapping.clone();
            match self.answers.get(&(key.clone(), offset)) {
                Some(known) => answers[index] = Some(known),
                None => asked.entry(key).or_insert_with(|| (mapping, Vec::new())).1.push((index, offset)),
            }
        }
        for (key, (mapping, places)) in asked {
            let offsets: Vec<u64> = places.iter().map(|&(_, offset)| offset).collect();
            let found = match self.module(&key, &mapping) {
                Some(module) => lookup(&module, &offsets),
                None => offsets.iter().map(|&offset| unopened(&key, offset)).collect(),
            };
            for ((index, offset), frames) in places.into_iter().zip(found) {
                self.answers.insert((key.clone(), offset), frames.clone());
                answers[index] = Some(frames);
            }
        }
        answers
    }

    fn call_target(&mut self, return_address: u64) -> Option<u64> {
        self.calls.target(return_address)
    }
}

fn code(maps: &[Mapping]) -> impl Iterator<Item = &Mapping> {
    maps.iter().filter(|mapping| mapping.executable)
}

/// A frame in a file that could not be opened: the place in the file is all there is.
fn unopened(key: &ModuleKey, offset: u64) -> Arc<[Frame]> {
    [Frame { module: Some(key.name()), address: offset, ..Frame::default() }].into()
}

/// Looks the places of one module up.
fn lookup(module: &Module, offsets: &[u64]) -> Vec<Arc<[Frame]>> {
    let addresses: Vec<u64> =
        offsets.iter().map(|&offset| module.elf.address_of(offset).unwrap_or(offset)).collect();
    let found = guarded(|| search(module, &addresses));
    if found == Err(Spoilt::CutShort) {
        log::warn!("{} was cut short while it was read: its functions have no names", module.name);
    }
    let found = found.unwrap_or_default();
    addresses
        .iter()
        .enumerate()
        .map(|(index, &address)| match found.get(index) {
            Some(frames) if !frames.is_empty() => Arc::from(frames.as_slice()),
            _ => [unknown(module, address)].into(),
        })
        .collect()
}

fn unknown(module: &Module, address: u64) -> Frame {
    let build_id: String = module.elf.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let build_id = Some(build_id).filter(|id| !id.is_empty());
    Frame { module: Some(module.name.clone()), build_id, address, ..Frame::default() }
}

/// Functions and lines by all that the module has, and by its separate debug file where it has no symbols itself.
fn search(module: &Module, addresses: &[u64]) -> Vec<Vec<Frame>> {
    let mut found = vec![Vec::new(); addresses.len()];
    let blazesym = Blazesym::builder()
        .enable_auto_reload(false)
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .enable_demangling(false)
        .set_debug_dirs(Option::<[&Path; 0]>::Some([]))
        .build();
    let mut ask = |path: PathBuf, elf: &elf::Elf| {
        let open: Vec<usize> = (0..addresses.len()).filter(|&index| found[index].is_empty()).collect();
        let asked: Vec<u64> = open.iter().map(|&index| addresses[index]).collect();
        if asked.is_empty() || !elf.symbols && !elf.debug {
            return;
        }
        let names = symbols(&blazesym, &path, false, &asked);
        let lines = if elf.debug && !elf.links_elsewhere {
            symbols(&blazesym, &path, true, &asked)
        } else {
            Vec::new()
        };
        for (place, &index) in open.iter().enumerate() {
            let name = names.get(place).and_then(Option::as_ref);
            let line = lines.get(place).and_then(Option::as_ref);
            found[index] = frames(module, addresses[index], name, line);
        }
    };
    ask(module.path(), &module.elf);
    if !module.elf.static_symbols
        && let Some(debug) = separate_debug_file(&module.elf.build_id)
        && let Ok(file) = std::fs::File::open(&debug)
        && let Ok(Some(elf)) = elf::Elf::read(&file)
        && elf.build_id == module.elf.build_id
    {
        ask(debug, &elf);
    }
    found
}

fn symbols(blazesym: &Blazesym, path: &Path, debug: bool, addresses: &[u64]) -> Vec<Option<Sym<'static>>> {
    let mut source = ElfSource::new(path);
    source.debug_syms = debug;
    match blazesym.symbolize(&Source::Elf(source), Input::VirtOffset(addresses)) {
        Ok(found) => found
            .into_iter()
            .map(|symbolized| match symbolized {
                Symbolized::Sym(symbol) => Some(symbol.into_owned()),
                Symbolized::Unknown(_) => None,
            })
            .collect(),
        Err(error) => {
            log::debug!("cannot read the symbols of {}: {error}", path.display());
            Vec::new()
        }
    }
}

/// Innermost first. The symbol table has the full name, the debug information file, line and what was inlined.
fn frames(module: &Module, address: u64, name: Option<&Sym<'_>>, line: Option<&Sym<'_>>) -> Vec<Frame> {
    let Some(function) = name.or(line) else { return Vec::new() };
    let place = |code: Option<&blazesym::symbolize::CodeInfo<'_>>| {
        let file = code.map(|code| bounded_name(code.to_path().to_string_lossy().into_owned()));
        (file, code.and_then(|code| code.line))
    };
    let frame = |name: &str, (file, line): (Option<String>, Option<u32>), inlined: bool| Frame {
        function: bounded_name(demangle::demangle(name)),
        file,
        line,
        module: Some(module.name.clone()),
        address,
        inlined,
        tail_call: false,
        build_id: None,
    };
    // Outermost first, as blazesym has them: each inlined function is told with the place inside of it.
    let mut frames =
        vec![frame(&function.name, place(line.and_then(|line| line.code_info.as_deref())), false)];
    for inlined in line.map(|line| line.inlined.iter()).unwrap_or_default().take(MAX_INLINED) {
        frames.push(frame(&inlined.name, place(inlined.code_info.as_ref()), true));
    }
    frames.reverse();
    frames
}

/// A file of the distribution with the symbols of a stripped one: trusted, as what root installed is.
fn separate_debug_file(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = Path::new(DEBUG_ROOT).join(format!("{first:02x}")).join(format!("{rest}.debug"));
    path.metadata().ok()?.is_file().then_some(path)
}

#[cfg(test)]
mod tests;
