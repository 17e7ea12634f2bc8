//! Go: what the runtime calls waits, its standard library, and the parts of its names.

use super::interface::{Language, Origin, Scope, Wait};
use crate::sample::WaitReason as Reason;
use crate::sample::{Frame, GroupState, WaitReason};

/// Top-level directories of Go's standard library.
const STANDARD: [&str; 46] = [
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

pub(super) struct Go;

impl Language for Go {
    fn name(&self) -> &'static str {
        "Go"
    }

    fn noun(&self) -> &'static str {
        "goroutine"
    }

    fn wrote(&self, frame: &Frame) -> bool {
        frame.file.as_deref().is_some_and(|file| file.ends_with(".go") || file.ends_with(".s"))
    }

    fn wait(&self, state: &GroupState, reason: &WaitReason) -> Wait {
        match state {
            GroupState::Running | GroupState::Runnable | GroupState::Preempted => return Wait::Runs,
            GroupState::Leaked => return Wait::Hard,
            GroupState::Syscall => return Wait::Peer,
            _ => {}
        }
        match reason {
            Reason::ChanSend
            | Reason::ChanSendNil
            | Reason::ChanReceiveNil
            | Reason::SelectNoCases
            | Reason::Semacquire
            | Reason::GoMutexLock
            | Reason::GoRwMutexRLock
            | Reason::GoRwMutexLock
            | Reason::GoWaitGroupWait => Wait::Hard,
            Reason::IoWait | Reason::Sleep => Wait::Peer,
            _ => Wait::Soft,
        }
    }

    fn severity(&self, wait: Wait, reason: &WaitReason) -> u8 {
        match (wait, reason) {
            (Wait::Hard, Reason::GoWaitGroupWait | Reason::Semacquire) => 1,
            (Wait::Hard, _) => 0,
            (Wait::Soft, Reason::GoCondWait) => 1,
            (Wait::Soft, _) => 2,
            (Wait::Peer, _) => 3,
            (Wait::Runs, _) => 4,
        }
    }

    fn sleeps(&self, reason: &WaitReason) -> bool {
        *reason == Reason::Sleep
    }

    fn takes_turns(&self, wait: Wait) -> bool {
        wait == Wait::Soft
    }

    fn is_lock(&self, reason: &WaitReason) -> bool {
        matches!(reason, Reason::GoMutexLock | Reason::GoRwMutexRLock | Reason::GoRwMutexLock)
    }

    fn is_connection(&self, reason: &WaitReason) -> bool {
        *reason == Reason::IoWait
    }

    fn waits_for_started(&self, reason: &WaitReason) -> bool {
        matches!(
            reason,
            Reason::Semacquire
                | Reason::GoWaitGroupWait
                | Reason::ChanReceive
                | Reason::Select
                | Reason::GoCondWait
        )
    }

    fn why_patience(&self, reason: &WaitReason) -> &'static str {
        match reason {
            Reason::Sleep => "each wakes by itself",
            Reason::IoWait => "each waits for a peer that may still speak",
            _ => "they rest as their connections or their work do",
        }
    }

    fn origin(&self, frame: &Frame) -> Origin {
        let function = frame.function.as_str();
        match package(function) {
            _ if function.is_empty() => Origin::Plumbing,
            _ if !is_standard(function) => Origin::Own,
            "runtime" | "sync" | "syscall" | "time" => Origin::Plumbing,
            inside if inside.starts_with("internal/") => Origin::Plumbing,
            _ => Origin::Standard,
        }
    }

    fn scope<'f>(&self, function: &'f str) -> Scope<'f> {
        Scope {
            package: Some(package(function)),
            receiver: receiver(function),
            enclosing: enclosing(function),
        }
    }

    fn starts_for_others(&self, function: &str) -> bool {
        function == "sync.(*WaitGroup).Go"
            || function.contains("errgroup.(*Group).")
            || function.contains("singleflight.(*Group).")
    }

    fn dispatches(&self, function: &str) -> bool {
        function.starts_with("net/http.(*Server)")
            || function.starts_with("runtime.")
            || function == "main.main"
    }
}

/// `net/http` of `net/http.(*conn).serve`.
fn package(function: &str) -> &str {
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
fn is_standard(function: &str) -> bool {
    let package = package(function);
    package.starts_with("golang.org/x/") || STANDARD.contains(&package.split('/').next().unwrap_or_default())
}

/// The function a closure was written in: `main.handle` of `main.handle.func1.2`.
fn enclosing(function: &str) -> &str {
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
fn receiver(function: &str) -> Option<&str> {
    let package = package(function).len();
    let rest = function.get(package..)?.strip_prefix('.')?;
    let end = rest.find(").").map(|at| at + 1)?;
    rest.starts_with('(').then(|| &function[..package + 1 + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_names() {
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
            is_standard(odd);
        }
    }

    #[test]
    fn whose_code_a_function_is() {
        let origin = |function: &str| Go.origin(&Frame { function: function.to_owned(), ..Frame::default() });
        assert_eq!(origin("shop.(*Cart).Add"), Origin::Own);
        assert_eq!(origin("golang.org/x/sync/errgroup.(*Group).Wait"), Origin::Standard);
        assert_eq!(origin("net/http.(*conn).serve"), Origin::Standard);
        for plumbing in ["sync.(*Mutex).Lock", "internal/poll.(*FD).Read", "runtime.gopark", ""] {
            assert_eq!(origin(plumbing), Origin::Plumbing, "{plumbing}");
        }
    }

    #[test]
    fn a_peer_is_given_time_and_a_lost_receiver_is_not() {
        let waiting = |reason: &str| Go.wait(&GroupState::Waiting, &reason.into());
        assert_eq!(waiting("chan send"), Wait::Hard);
        assert_eq!(waiting("chan receive (nil chan)"), Wait::Hard);
        assert_eq!(waiting("select"), Wait::Soft);
        assert_eq!(waiting("what a newer runtime calls it"), Wait::Soft);
        assert_eq!(waiting("IO wait"), Wait::Peer);
        assert_eq!(Go.wait(&GroupState::Leaked, &Reason::Select), Wait::Hard);
        assert_eq!(Go.wait(&GroupState::Syscall, &Reason::None), Wait::Peer);
        assert_eq!(Go.wait(&GroupState::Runnable, &Reason::ChanSend), Wait::Runs);
        assert_eq!(Go.why_patience(&Reason::Select), "they rest as their connections or their work do");
    }
}
