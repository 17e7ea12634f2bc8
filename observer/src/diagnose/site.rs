//! Where, in the target's own code, a group is: the frame to name in a sentence.
//!
//! Reads frames, gives places. The innermost frame is often the library's (`sync.(*Mutex).Lock`), the line to fix is
//! in the first frame that is not.

use crate::sample::origin::{self, Origin};
use crate::sample::{Frame, Group, GroupKind, Place, StackEnd};

/// Top-level directories of Go's standard library.
const GO_STANDARD: [&str; 46] = [
    "archive",
    "bufio",
    "builtin",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "reflect",
    "regexp",
    "runtime",
    "slices",
    "sort",
    "strconv",
    "strings",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "vendor",
];

/// Libraries every native program waits in.
const NATIVE_STANDARD: [&str; 8] =
    ["libc.so", "libc-2.", "libc.musl", "ld-musl", "libpthread", "ld-linux", "libstdc++", "libgcc_s"];

/// Functions of libc that threads sleep in, where it is linked into the program itself; without leading underscores.
const SLEEPERS: [&str; 41] = [
    "accept",
    "accept4",
    "clock_nanosleep",
    "clock_nanosleep_time64",
    "connect",
    "do_futex_wait",
    "epoll_pwait",
    "epoll_wait",
    "fdatasync",
    "flock",
    "fsync",
    "futex_wait",
    "internal_syscall_cancel",
    "libc_accept",
    "libc_connect",
    "libc_pause",
    "libc_read",
    "libc_recv",
    "libc_recvfrom",
    "libc_recvmsg",
    "libc_send",
    "libc_write",
    "nanosleep",
    "pause",
    "poll",
    "ppoll",
    "pselect",
    "read",
    "recv",
    "recvfrom",
    "recvmsg",
    "select",
    "send",
    "sigsuspend",
    "sleep",
    "syscall",
    "syscall_cancel",
    "usleep",
    "wait4",
    "waitpid",
    "write",
];

/// Libraries that are allocators or what languages allocate through, by the beginning of their file's name.
const ALLOCATOR_LIBRARIES: [&str; 6] =
    ["libjemalloc", "libtcmalloc", "libmimalloc", "libc++", "ld-musl", "libasan"];

/// The allocator of libc, its relatives, and what copies into memory for the first time, where they are linked into
/// the program itself. Without leading underscores, and up to the first `.` or `_` that says which variant it is.
const ALLOCATORS: [&str; 58] = [
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
const ALLOCATOR_NAMES: [&str; 12] = [
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
fn is_allocator(frame: &Frame) -> bool {
    let function = frame.function.as_str();
    if ALLOCATOR_NAMES.iter().any(|beginning| function.starts_with(beginning)) {
        return true;
    }
    let module = frame.module.as_deref().unwrap_or_default();
    let name = module.rsplit('/').next().unwrap_or_default();
    if ALLOCATOR_LIBRARIES.iter().any(|library| name.starts_with(library)) {
        return true;
    }
    // `__memset_avx512_unaligned_erms`, `sysmalloc_mmap.constprop.0`, `__libc_malloc`.
    let plain = plain(function);
    let variant = ["_avx", "_evex", "_sse", "_erms", "_unaligned", "_chk", "_ssse"];
    let plain =
        variant.iter().filter_map(|variant| plain.find(variant)).min().map_or(plain, |end| &plain[..end]);
    ALLOCATORS.contains(&plain)
}

/// Without leading underscores, and up to the `.` that says which part or variant of the function it is.
fn plain(function: &str) -> &str {
    function.trim_start_matches('_').split('.').next().unwrap_or_default()
}

/// `net/http` of `net/http.(*conn).serve`.
pub fn package(function: &str) -> &str {
    let start = function.rfind('/').map_or(0, |slash| slash + 1);
    // A type argument may hold slashes: `main.f[example.com/x.T]`.
    let (start, function) = match function.find('[') {
        Some(bracket) if bracket < start => {
            let head = &function[..bracket];
            (head.rfind('/').map_or(0, |slash| slash + 1), head)
        }
        _ => (start, function),
    };
    match function[start..].find('.') {
        Some(dot) => &function[..start + dot],
        None => function,
    }
}

/// Part of Go's standard library, by its package's first element; `golang.org/x` counts with it.
pub fn is_go_standard(function: &str) -> bool {
    let package = package(function);
    package.starts_with("golang.org/x/")
        || GO_STANDARD.contains(&package.split('/').next().unwrap_or_default())
}

/// Libraries that are compiled into the program, by their names where nothing tells where their source lies.
const COMPILED_IN: [&str; 8] = [
    "std::",
    "core::",
    "alloc::",
    "__gnu_cxx::",
    "parking_lot::",
    "parking_lot_core::",
    "tokio::",
    "crossbeam_",
];

fn is_library(kind: GroupKind, frame: &Frame) -> bool {
    match kind {
        GroupKind::Goroutine => frame.function.is_empty() || is_go_standard(&frame.function),
        GroupKind::Thread => {
            is_native_standard(frame)
                || origin::of(frame) != Origin::Own
                || COMPILED_IN.iter().any(|start| frame.function.trim_start_matches('<').starts_with(start))
                || frame.function.starts_with("__futex")
        }
    }
}

fn is_native_standard(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or_default();
    let name = module.rsplit('/').next().unwrap_or_default();
    NATIVE_STANDARD.iter().any(|library| name.starts_with(library))
}

/// How many of the innermost frames are libc's, linked into the program itself: only names tell, and only there.
fn linked_in(group: &Group) -> usize {
    let inside = group.kind == GroupKind::Thread && !group.frames.first().is_some_and(is_native_standard);
    let is_libc = |frame: &&Frame| {
        let name = plain(&frame.function);
        let waits = ["pthread_", "sem_", "new_sem", "lll_lock", "futex_", "syscall_cp", "timedwait"];
        waits.iter().any(|start| name.starts_with(start)) || SLEEPERS.contains(&name)
    };
    if inside { group.frames.iter().take_while(is_libc).count() } else { 0 }
}

/// Where in the stack of a growth site the target's own code begins. The stack may cross from C into Go.
pub fn own(frames: &[Frame]) -> Option<usize> {
    let go = |frame: &Frame| {
        frame.file.as_deref().is_some_and(|file| file.ends_with(".go") || file.ends_with(".s"))
    };
    frames.iter().position(|frame| {
        let kind = if go(frame) { GroupKind::Goroutine } else { GroupKind::Thread };
        !is_library(kind, frame) && (kind == GroupKind::Goroutine || !is_allocator(frame))
    })
}

/// Who is named for memory that a stack touched or asked for: its own code, or where there is none its first frame.
pub fn owner(frames: &[Frame]) -> Option<&Frame> {
    frames.get(own(frames).unwrap_or(0))
}

/// The innermost frame of the target's own code; when there is none, of the library above its plumbing; else of all.
pub fn own_frame(group: &Group) -> Option<&Frame> {
    let above_libc = || group.frames.iter().skip(linked_in(group));
    let own = above_libc().find(|frame| !is_library(group.kind, frame));
    // A lambda in a C++ thread has the name of the template that runs it: it is the target's all the same.
    let instantiated =
        || above_libc().find(|frame| group.kind == GroupKind::Thread && !is_native_standard(frame));
    own.or_else(instantiated)
        .or_else(|| {
            group.frames.iter().find(|frame| group.kind == GroupKind::Goroutine && !is_plumbing(frame))
        })
        .or_else(|| group.frames.first())
}

/// What every wait goes through, even within the standard library: says how it waits, not for what.
fn is_plumbing(frame: &Frame) -> bool {
    let package = package(&frame.function);
    package.starts_with("internal/") || matches!(package, "runtime" | "sync" | "syscall" | "time" | "")
}

/// [`own_frame`] as a place; where no function is known, the module and address.
pub fn place(group: &Group) -> Option<Place> {
    own_frame(group)
        .map(|frame| Place { function: name(frame), file: frame.file.clone(), line: frame.line })
        .or_else(|| group.created_by.clone())
}

/// Characters of a build id that are shown; they tell files apart as well as those of a commit do.
const BUILD_ID: usize = 12;

/// A frame's name: its function, else `module+0x… (build-id …)`.
pub fn name(frame: &Frame) -> String {
    match (&frame.function, &frame.module) {
        (function, _) if !function.is_empty() => function.clone(),
        (_, Some(module)) => {
            let id = frame.build_id.as_deref().map_or(String::new(), |id| {
                let short: String = id.chars().take(BUILD_ID).collect();
                let cut = if short.len() < id.len() { "…" } else { "" };
                format!(" (build-id {short}{cut})")
            });
            format!("{module}+{:#x}{id}", frame.address)
        }
        (_, None) => format!("{:#x}", frame.address),
    }
}

/// What the stack of a group lacks, in words; `None` for a whole one.
pub fn stack_end(group: &Group) -> Option<&'static str> {
    Some(match group.stack_end? {
        StackEnd::Truncated => "the stack is deeper than what is kept of it",
        StackEnd::Gap => "frames may be missing where code without call frame information was crossed",
        StackEnd::Unknown => "the stack ends early: what called the last frame is not known",
    })
}

/// `quote.go:41`: the last part of the path is enough to find it beside the function's name.
pub fn file_line(file: Option<&str>, line: Option<u32>) -> String {
    let Some(file) = file.filter(|file| !file.is_empty()) else { return String::new() };
    let base = file.rsplit('/').next().unwrap_or(file);
    line.map_or_else(|| base.to_owned(), |line| format!("{base}:{line}"))
}

/// `checkout.(*Quoter).fetch quote.go:41`.
pub fn words(place: &Place) -> String {
    let position = file_line(place.file.as_deref(), place.line);
    if position.is_empty() { place.function.clone() } else { format!("{} {position}", place.function) }
}

/// The function a closure was written in: `main.handle` of `main.handle.func1.2`.
pub fn enclosing(function: &str) -> &str {
    let mut name = function;
    while let Some((outer, last)) = name.rsplit_once('.') {
        let closure = ["func", "gowrap", "deferwrap"]
            .iter()
            .find_map(|word| last.strip_prefix(word))
            .unwrap_or(last)
            .trim_end_matches("-fm");
        if outer.is_empty() || closure.is_empty() || !closure.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        {
            break;
        }
        name = outer;
    }
    name
}

/// `pkg.(*Type)` of `pkg.(*Type).Method`; absent for plain functions.
pub fn receiver(function: &str) -> Option<&str> {
    let package = package(function).len();
    let rest = function.get(package..)?.strip_prefix('.')?;
    let end = rest.find(").").map(|at| at + 1)?;
    rest.starts_with('(').then(|| &function[..package + 1 + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_go_names() {
        assert_eq!(package("net/http.(*conn).serve"), "net/http");
        assert_eq!(package("example.com/a.b/c.F"), "example.com/a.b/c");
        assert_eq!(package("main.f[example.com/x.T]"), "main");
        assert_eq!(enclosing("main.handle.func1.2"), "main.handle");
        assert_eq!(enclosing("main.(*S).Get.gowrap1"), "main.(*S).Get");
        assert_eq!(enclosing("main.function"), "main.function");
        assert_eq!(enclosing("func1"), "func1");
        assert_eq!(receiver("net/http.(*conn).serve"), Some("net/http.(*conn)"));
        assert_eq!(receiver("main.f"), None);
        for odd in ["", ".", "[", "/", "a/", "a.(", "(*).x", "é.(*é).é"] {
            package(odd);
            enclosing(odd);
            receiver(odd);
            is_go_standard(odd);
        }
    }

    #[test]
    fn growth_is_named_where_the_allocator_was_called() {
        let frame = |function: &str, module: &str, file: Option<&str>| Frame {
            function: function.to_owned(),
            module: Some(module.to_owned()),
            file: file.map(str::to_owned),
            ..Frame::default()
        };
        let c = [
            frame("_int_malloc", "/lib/libc.so.6", Some("malloc.c")),
            frame("malloc", "shop", None),
            frame("add_to_cart", "shop", None),
        ];
        assert_eq!(own(&c), Some(2));
        let go = [
            frame("runtime.makeslice", "shop", Some("runtime/slice.go")),
            frame("shop.Add", "shop", Some("shop/add.go")),
        ];
        assert_eq!(own(&go), Some(1));
        assert_eq!(own(&c[..2]), None);
        // A static program: all of it is in one file.
        for inside in [
            ["__memset_avx512_unaligned_erms", "_int_malloc", "__libc_malloc"],
            ["sysmalloc_mmap.constprop.0", "_mid_memalign.constprop.0", "__posix_memalign"],
            ["_int_realloc", "__libc_realloc", "operator new(unsigned long, std::align_val_t)"],
            ["__memcpy_evex_unaligned_erms", "__strdup", "std::vector<int>::push_back(int const&)"],
        ] {
            let names = inside.iter().chain(&["memset_all_carts", "main"]);
            let stack: Vec<Frame> = names.map(|name| frame(name, "shop", None)).collect();
            assert_eq!(own(&stack), Some(3), "{inside:?}");
        }
    }

    #[test]
    fn the_own_frame_is_named_not_the_library() {
        let frame = |function: &str| Frame { function: function.to_owned(), ..Frame::default() };
        let group = Group {
            frames: [frame("sync.(*Mutex).Lock"), frame("shop.(*Cart).Add"), frame("net/http.(*conn).serve")]
                .into(),
            ..Group::default()
        };
        assert_eq!(own_frame(&group).unwrap().function, "shop.(*Cart).Add");
        // A static program: the libc in it is known by its names, at the innermost end only.
        let thread = |functions: &[&str], module: &str| Group {
            kind: GroupKind::Thread,
            frames: functions
                .iter()
                .map(|function| Frame { module: Some(module.to_owned()), ..frame(function) })
                .collect(),
            ..Group::default()
        };
        let stack = ["__lll_lock_wait", "___pthread_mutex_lock", "take_it", "read"];
        assert_eq!(own_frame(&thread(&stack, "shop")).unwrap().function, "take_it");
        assert_eq!(own_frame(&thread(&["read", "serve"], "shop")).unwrap().function, "serve");
        assert_eq!(
            own_frame(&thread(&["wait_for_customers", "read"], "shop")).unwrap().function,
            "wait_for_customers"
        );
        // Not in one piece: it is no import of ours.
        let run = ["std", "thread", "_State_impl<main::{lambda()#1}>", "_M_run()"].join("::");
        let lambda = thread(&[&run], "shop").frames;
        let frames = [&thread(&["", "pthread_mutex_lock"], "libc.so.6").frames[..], &lambda].concat();
        let run = Group { kind: GroupKind::Thread, frames: frames.into(), ..Group::default() };
        assert!(own_frame(&run).unwrap().function.contains("lambda"));
        let library =
            Group { frames: [frame("net/http.(*persistConn).readLoop")].into(), ..Group::default() };
        assert_eq!(own_frame(&library).unwrap().function, "net/http.(*persistConn).readLoop");
    }

    #[test]
    fn what_was_compiled_in_is_not_the_own_frame() {
        let frame = |function: &str, file: &str| Frame {
            function: function.to_owned(),
            file: Some(file.to_owned()),
            ..Frame::default()
        };
        let frames = [
            frame(
                "<std::sys::sync::mutex::futex::Mutex>::lock_contended",
                "/rustc/59/library/std/src/futex.rs",
            ),
            frame("lock<u64>", "/rustc/59/library/std/src/sync/mutex.rs"),
            frame("lock", "/home/x/.cargo/registry/src/index/parking_lot-0.12.5/src/raw_mutex.rs"),
            frame("wait<shop::ask()>", "/usr/include/c++/12/condition_variable"),
            frame("piles::update_stock", "src/main.rs"),
        ];
        assert_eq!(own(&frames), Some(4));
        let group = Group { kind: GroupKind::Thread, frames: frames.into(), ..Group::default() };
        assert_eq!(own_frame(&group).unwrap().function, "piles::update_stock");
    }
}
