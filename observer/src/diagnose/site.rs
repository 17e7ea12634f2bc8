//! Where, in the target's own code, a group is: the frame to name in a sentence.
//!
//! Reads frames, gives places. The innermost frame is often the library's (`sync.(*Mutex).Lock`), the line to fix is
//! in the first frame that is not.

use crate::language::{self, Language, Origin};
use crate::sample::{Frame, Group, GroupKind, Place, StackEnd};

/// Where in the stack of a growth site the target's own code begins. The stack may cross from one language into another.
pub(crate) fn own(frames: &[Frame]) -> Option<usize> {
    frames.iter().position(|frame| {
        let language = language::of_frame(frame);
        language.origin(frame) == Origin::Own && !language.allocates(frame)
    })
}

/// Who is named for memory that a stack touched or asked for: its own code, or where there is none its first frame.
pub(crate) fn owner(frames: &[Frame]) -> Option<&Frame> {
    frames.get(own(frames).unwrap_or(0))
}

/// The innermost frame of the target's own code; when there is none, of the library above its plumbing; else of all.
pub(crate) fn own_frame(group: &Group) -> Option<&Frame> {
    own_of(language::of(group.kind), &group.frames)
}

/// [`own_frame`] of a stack whose language is known.
fn own_of<'f>(language: &dyn Language, frames: &'f [Frame]) -> Option<&'f Frame> {
    let above = || frames.iter().skip(language.linked_in(frames));
    above()
        .find(|frame| language.origin(frame) == Origin::Own)
        // A lambda in a C++ thread has the name of the template that runs it: it is the target's all the same.
        .or_else(|| above().find(|frame| language.origin(frame) != Origin::Plumbing))
        .or_else(|| frames.first())
}

/// [`own_frame`] as a place; where no function is known, the module and address.
pub(crate) fn place(group: &Group) -> Option<Place> {
    own_frame(group).map(place_of).or_else(|| group.created_by.clone())
}

/// The line to look at in a thread's stack.
pub(crate) fn place_of_thread(frames: &[Frame]) -> Option<Place> {
    own_of(language::of(GroupKind::Thread), frames).map(place_of)
}

fn place_of(frame: &Frame) -> Place {
    Place { function: name(frame), file: frame.file.clone(), line: frame.line }
}

/// Characters of a build id that are shown; they tell files apart as well as those of a commit do.
const BUILD_ID: usize = 12;

/// A frame's name: its function, else `module+0x… (build-id …)`.
pub(crate) fn name(frame: &Frame) -> String {
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
pub(crate) fn stack_end(group: &Group) -> Option<&'static str> {
    Some(match group.stack_end? {
        StackEnd::Truncated => "the stack is deeper than what is kept of it",
        StackEnd::Gap => "frames may be missing where code without call frame information was crossed",
        StackEnd::Unknown => "the stack ends early: what called the last frame is not known",
    })
}

/// `quote.go:41`: the last part of the path is enough to find it beside the function's name.
pub(crate) fn file_line(file: Option<&str>, line: Option<u32>) -> String {
    let Some(file) = file.filter(|file| !file.is_empty()) else { return String::new() };
    let base = file.rsplit('/').next().unwrap_or(file);
    line.map_or_else(|| base.to_owned(), |line| format!("{base}:{line}"))
}

/// `checkout.(*Quoter).fetch quote.go:41`.
pub(crate) fn words(place: &Place) -> String {
    let position = file_line(place.file.as_deref(), place.line);
    if position.is_empty() { place.function.clone() } else { format!("{} {position}", place.function) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
