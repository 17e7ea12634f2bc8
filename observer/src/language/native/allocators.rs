//! The allocators of native programs, and what fills memory for the first time: never who asked for it.

use super::names::plain;
use crate::sample::Frame;

/// Libraries that are allocators or what languages allocate through, by the beginning of their file's name.
const LIBRARIES: [&str; 6] = ["libjemalloc", "libtcmalloc", "libmimalloc", "libc++", "ld-musl", "libasan"];

/// The allocator of libc, its relatives, and what copies into memory for the first time, where they are linked into
/// the program itself. Without leading underscores, and up to the first `.` or `_` that says which variant it is.
const FUNCTIONS: [&str; 58] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "cfree",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "int_malloc",
    "int_realloc",
    "int_memalign",
    "int_free",
    "mid_memalign",
    "sysmalloc",
    "sysmalloc_mmap",
    "systrim",
    "tcache_init",
    "arena_get2",
    "malloc_consolidate",
    "default_morecore",
    "brk",
    "sbrk",
    "libc_malloc",
    "libc_calloc",
    "libc_realloc",
    "libc_memalign",
    "libc_free",
    "libc_read",
    "libc_alloc_buffer",
    "mmap",
    "mmap64",
    "mremap",
    "read",
    "pread64",
    "readv",
    "recv",
    "recvfrom",
    "recvmsg",
    "memset",
    "memcpy",
    "memmove",
    "mempcpy",
    "memcpy_fortify",
    "strdup",
    "strndup",
    "strcpy",
    "strncpy",
    "stpcpy",
    "strcat",
    "bzero",
    "rust_alloc",
    "rust_alloc_zeroed",
    "rust_realloc",
    "rdl_alloc",
    "rdl_realloc",
];

/// Beginnings of names in allocators that are linked into the program, and of languages' doors to them.
const NAMES: [&str; 12] = [
    "operator new",
    "je_",
    "_rjem_",
    "tc_",
    "tcmalloc::",
    "mi_",
    "_mi_",
    "alloc::",
    "<alloc::",
    "hashbrown::",
    "__gnu_cxx::",
    "_dl_",
];

/// Part of an allocator, or of what fills memory that it gave: never who asked for the memory.
pub(super) fn has(frame: &Frame) -> bool {
    let function = frame.function.as_str();
    if NAMES.iter().any(|beginning| function.starts_with(beginning)) {
        return true;
    }
    let module = frame.module.as_deref().unwrap_or_default();
    let name = module.rsplit('/').next().unwrap_or_default();
    if LIBRARIES.iter().any(|library| name.starts_with(library)) {
        return true;
    }
    // `__memset_avx512_unaligned_erms`, `sysmalloc_mmap.constprop.0`, `__libc_malloc`.
    let plain = plain(function);
    let variant = ["_avx", "_evex", "_sse", "_erms", "_unaligned", "_chk", "_ssse"];
    let plain =
        variant.iter().filter_map(|variant| plain.find(variant)).min().map_or(plain, |end| &plain[..end]);
    FUNCTIONS.contains(&plain)
}
