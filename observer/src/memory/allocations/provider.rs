//! Which functions a process gets its memory from: the first `malloc` in the linker's order and what belongs to it,
//! and allocators under names of their own in the executable.
//!
//! Reads symbol tables within bounds; gives files and functions. Some milliseconds a file that is looked into.
//! `libstdc++`'s `operator new` calls `malloc` and is not taken; an allocator's own is.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;

use blazesym::inspect::Inspector;
use blazesym::inspect::source::{Elf, Source};

use crate::kernel::allocations::{Function, kind};
use crate::process::maps::Mapping;
use crate::symbol::native::guard::guarded;
use crate::symbol::native::module::{Module, ModuleKey};

use super::{entrance, loaded};

/// Files whose symbols are looked into for a `malloc`.
const MAX_FILES: usize = 512;

/// By the names of the C library.
const C: [(&str, u32); 12] = [
    ("malloc", kind::MALLOC),
    ("calloc", kind::CALLOC),
    ("realloc", kind::REALLOC),
    ("reallocarray", kind::REALLOCARRAY),
    ("posix_memalign", kind::POSIX_MEMALIGN),
    ("aligned_alloc", kind::MEMALIGN),
    ("memalign", kind::MEMALIGN),
    ("valloc", kind::MALLOC),
    ("pvalloc", kind::MALLOC),
    ("free", kind::FREE),
    ("cfree", kind::FREE),
    ("free_sized", kind::FREE),
];

/// What an allocator may have beside them.
const BESIDE: [(&str, u32); 21] = [
    ("mallocx", kind::MALLOC),
    ("rallocx", kind::REALLOC),
    ("dallocx", kind::FREE),
    ("sdallocx", kind::FREE),
    ("_Znwm", kind::MALLOC),
    ("_Znam", kind::MALLOC),
    ("_ZnwmRKSt9nothrow_t", kind::MALLOC),
    ("_ZnamRKSt9nothrow_t", kind::MALLOC),
    ("_ZnwmSt11align_val_t", kind::MALLOC),
    ("_ZnamSt11align_val_t", kind::MALLOC),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", kind::MALLOC),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", kind::MALLOC),
    ("_ZdlPv", kind::FREE),
    ("_ZdaPv", kind::FREE),
    ("_ZdlPvm", kind::FREE),
    ("_ZdaPvm", kind::FREE),
    ("_ZdlPvSt11align_val_t", kind::FREE),
    ("_ZdaPvSt11align_val_t", kind::FREE),
    ("_ZdlPvmSt11align_val_t", kind::FREE),
    ("_ZdlPvRKSt9nothrow_t", kind::FREE),
    ("_ZdaPvRKSt9nothrow_t", kind::FREE),
];

/// Allocators that Rust programs link under other names.
const OWN_NAMES: [(&str, u32); 20] = [
    ("_rjem_malloc", kind::MALLOC),
    ("_rjem_calloc", kind::CALLOC),
    ("_rjem_realloc", kind::REALLOC),
    ("_rjem_free", kind::FREE),
    ("_rjem_mallocx", kind::MALLOC),
    ("_rjem_rallocx", kind::REALLOC),
    ("_rjem_dallocx", kind::FREE),
    ("_rjem_sdallocx", kind::FREE),
    ("_rjem_aligned_alloc", kind::MEMALIGN),
    ("_rjem_posix_memalign", kind::POSIX_MEMALIGN),
    ("mi_malloc", kind::MALLOC),
    ("mi_zalloc", kind::MALLOC),
    ("mi_calloc", kind::CALLOC),
    ("mi_realloc", kind::REALLOC),
    ("mi_free", kind::FREE),
    ("mi_malloc_aligned", kind::MALLOC),
    ("mi_zalloc_aligned", kind::MALLOC),
    ("mi_realloc_aligned", kind::REALLOC),
    ("mi_free_size_aligned", kind::FREE),
    ("mi_free_aligned", kind::FREE),
];

/// A file, and the functions of an allocator in it.
#[derive(Debug)]
pub struct Provider {
    /// Kept open: [`Module::path`] leads to the very file that is mapped.
    pub module: Module,
    /// In order of place, each once whatever its names.
    pub functions: Vec<Function>,
}

impl Provider {
    /// Of functions where they begin.
    fn new(module: Module, mut functions: Vec<Function>) -> Self {
        for function in &mut functions {
            let Some(length) =
                usize::try_from(function.bytes).ok().filter(|&bytes| bytes <= entrance::LONGEST)
            else {
                continue;
            };
            let mut code = vec![0; length];
            if module.file().read_exact_at(&mut code, function.offset).is_ok() {
                let shift = entrance::shift(&code, function.kind);
                function.offset += shift;
                function.bytes -= shift;
            }
        }
        Self { module, functions }
    }
}

/// Where a process gets its memory from; empty where no symbol tells.
pub fn find(pid: u32, maps: &[Mapping]) -> Vec<Provider> {
    let files = loaded::in_order(pid, maps);
    let mut providers = Vec::new();
    if let Some(module) = files.first().and_then(|exe| open(pid, exe)) {
        let functions = functions(&module, &OWN_NAMES);
        if functions.iter().any(|function| function.kind == kind::FREE) {
            providers.push(Provider::new(module, functions));
        }
    }
    let provides = files.into_iter().take(MAX_FILES).find_map(|file| {
        // The linker's own malloc is its own business.
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("ld-linux") || name.starts_with("ld.so") || name.starts_with("ld64") {
            return None;
        }
        let module = open(pid, file)?;
        let mut found = functions(&module, &C);
        let has = |kind| found.iter().any(|function| function.kind == kind);
        if !has(kind::MALLOC) || !has(kind::FREE) {
            return None;
        }
        found.extend(functions(&module, &BESIDE));
        Some(Provider::new(module, once(found)))
    });
    providers.extend(provides);
    providers
}

fn open(pid: u32, file: &Mapping) -> Option<Module> {
    Module::open(pid, &ModuleKey::of(file)?, file).filter(|module| module.elf.symbols)
}

fn functions(module: &Module, names: &[(&str, u32)]) -> Vec<Function> {
    let mut source = Elf::new(module.path());
    source.debug_syms = false;
    let source = Source::from(source);
    let wanted: Vec<&str> = names.iter().map(|&(name, _)| name).collect();
    // What was read of a file that was cut short is no place for a breakpoint.
    let found = guarded(|| {
        let inspector = Inspector::new();
        let found = inspector.lookup(&source, &wanted).ok()?;
        Some(
            found
                .iter()
                .zip(names)
                .flat_map(|(symbols, &(_, kind))| {
                    symbols.iter().filter_map(move |symbol| {
                        let offset = symbol.file_offset.filter(|&offset| offset > 0)?;
                        Some(Function { offset, bytes: symbol.size.unwrap_or(0) as u64, kind })
                    })
                })
                .collect(),
        )
    });
    once(found.ok().flatten().unwrap_or_default())
}

/// Names for one and the same function are one function.
fn once(functions: Vec<Function>) -> Vec<Function> {
    let mut by_place = BTreeMap::new();
    for function in functions {
        by_place.entry(function.offset).or_insert(function);
    }
    by_place.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps;

    #[test]
    fn this_program_has_its_memory_from_libc() {
        let pid = std::process::id();
        let maps = maps::read(pid).unwrap();
        let providers = find(pid, &maps);
        let [provider] = providers.as_slice() else { panic!("{providers:?}") };
        assert!(provider.module.name.starts_with("libc.so"), "{}", provider.module.name);
        for kind in kind::MALLOC..=kind::FREE {
            let there = provider.functions.iter().any(|function| function.kind == kind);
            assert!(there, "no function of kind {kind}: {:?}", provider.functions);
        }
        assert!(provider.functions.is_sorted_by(|one, other| one.offset < other.offset));
    }
}
