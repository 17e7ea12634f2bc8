//! What a wait is for, by the functions that lead to it: a lock, a condition, a semaphore, work to come.
//!
//! Takes frames, gives a [`Name`]. Only the innermost stretch of library code counts, and in it the outermost function
//! that is known: `sem_wait` says less than Python's lock around it. What is not known keeps the futex operation's
//! name. Pure; called once a place.

use super::{futex, syscall};
use crate::language::Origin;
use crate::language::native::source;
use crate::sample::Frame;

/// Frames looked at.
const MOST: usize = 48;

/// What a wait is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// In words: `mutex lock`.
    pub reason: &'static str,
    /// The kind of thing that is waited on: `mutex`.
    pub kind: &'static str,
    pub owner: Owner,
}

/// Whether whoever is waited for can be told from the words at the futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A lock of libc: it can.
    Recorded,
    /// A lock that does not keep its owner where the futex is.
    NotRecorded,
    /// It is no lock: nobody has it.
    None,
    /// Not known what it is.
    Unknown,
}

impl Name {
    const fn new(reason: &'static str, kind: &'static str, owner: Owner) -> Self {
        Self { reason, kind, owner }
    }

    /// For a wait that no function names.
    pub(super) const fn of_operation(operation: &'static str) -> Self {
        Self::new(operation, "futex", Owner::Unknown)
    }

    /// For another system call than those of futexes.
    const fn of_call(call: &'static str) -> Self {
        Self::new(call, "", Owner::None)
    }

    /// Whether the words at the futex are worth reading again.
    pub(super) fn may_have_owner(&self) -> bool {
        matches!(self.owner, Owner::Recorded | Owner::Unknown)
    }
}

pub(super) const MUTEX: Name = Name::new("mutex lock", "mutex", Owner::Recorded);
pub(super) const READ_LOCK: Name = Name::new("rwlock read lock", "rwlock", Owner::Recorded);
pub(super) const WRITE_LOCK: Name = Name::new("rwlock write lock", "rwlock", Owner::Recorded);
pub(super) const JOIN: Name = Name::new("thread join", "thread", Owner::Recorded);
const CONDITION: Name = Name::new("condition wait", "condition variable", Owner::None);
const SEMAPHORE: Name = Name::new("semaphore wait", "semaphore", Owner::None);
const BARRIER: Name = Name::new("barrier wait", "barrier", Owner::None);
const ONCE: Name = Name::new("once wait", "once", Owner::NotRecorded);
const FUTURE: Name = Name::new("future wait", "future", Owner::NotRecorded);
const ATOMIC: Name = Name::new("atomic wait", "atomic", Owner::None);
const PARK: Name = Name::new("thread park", "parked thread", Owner::None);
const RECEIVE: Name = Name::new("channel receive", "channel", Owner::None);
const SEND: Name = Name::new("channel send", "channel", Owner::None);
const IDLE: Name = Name::new("idle worker", "work queue", Owner::None);
const FOREIGN_MUTEX: Name = Name::new("mutex lock", "mutex", Owner::NotRecorded);
const FOREIGN_READ_LOCK: Name = Name::new("rwlock read lock", "rwlock", Owner::NotRecorded);
const FOREIGN_WRITE_LOCK: Name = Name::new("rwlock write lock", "rwlock", Owner::NotRecorded);
const LIBC_LOCK: Name = Name::new("lock wait", "lock", Owner::NotRecorded);
const MONITOR: Name = Name::new("monitor enter", "monitor", Owner::NotRecorded);
const OBJECT_WAIT: Name = Name::new("object wait", "monitor", Owner::None);
const SLEEP: Name = Name::new("sleep", "clock", Owner::None);
const GIL: Name = Name::new("interpreter lock", "interpreter lock", Owner::NotRecorded);
const PYTHON_LOCK: Name = Name::new("lock wait", "lock", Owner::NotRecorded);

/// What a wait with this stack is called.
pub(super) fn of(operation: &'static str, frames: &[Frame]) -> Name {
    match of_stack(frames) {
        _ if syscall::is_one(operation) => Name::of_call(operation),
        Some(name) => name,
        // Who locks by priority inheritance locks a mutex, whatever the stack says.
        None if operation == futex::LOCK_PI => MUTEX,
        None => Name::of_operation(operation),
    }
}

/// What the stack says, if it says anything.
pub(super) fn of_stack(frames: &[Frame]) -> Option<Name> {
    frames
        .iter()
        .take(MOST)
        .map_while(|frame| {
            let function = plain(&frame.function);
            let known = of_function(function);
            (known.is_some() || is_library(frame, function)).then_some(known)
        })
        .flatten()
        .last()
}

/// Without what compilers and linkers put around a name: leading underscores, `.constprop.0`, `@@GLIBC_2.34`.
fn plain(function: &str) -> &str {
    let function = function.trim_start_matches('_');
    // A C++ or Rust name may hold a dot or an at anywhere.
    if function.contains("::") || function.contains('(') {
        return function;
    }
    function.split(['.', '@']).next().unwrap_or(function)
}

/// Whether the search goes on behind a frame that says nothing itself.
fn is_library(frame: &Frame, function: &str) -> bool {
    const MODULES: [&str; 12] = [
        "libc.so",
        "libc-2.",
        "libc.musl",
        "ld-musl",
        "libpthread",
        "ld-linux",
        "libstdc++",
        "libc++",
        "libjvm",
        "libglib-2",
        "libuv",
        "libtbb",
    ];
    const STARTS: [&str; 21] = [
        "pthread_",
        "lll_lock",
        "new_sem",
        "do_futex_wait",
        "futex_abstimed",
        "std::",
        "<std::",
        "core::",
        "<core::",
        "alloc::",
        "<alloc::",
        "parking_lot",
        "<parking_lot",
        "tokio::",
        "<tokio::",
        "rayon_core::",
        "crossbeam",
        "<crossbeam",
        "boost::",
        "uv_",
        "g_cond_",
    ];
    // A function of the program may well begin with these words.
    const NAMES: [&str; 13] = [
        "futex_wait",
        "futex_wait_simple",
        "futex_wait_cancelable",
        "futex_lock_pi64",
        "futex_clocklock64",
        "futex4_cp",
        "wait",
        "timedwait",
        "timedwait_cp",
        "syscall",
        "syscall_cp",
        "syscall_cp_c",
        "syscall_cp_asm",
    ];
    let module = frame.module.as_deref().unwrap_or_default();
    let file = module.rsplit('/').next().unwrap_or_default();
    MODULES.iter().any(|library| file.starts_with(library))
        || STARTS.iter().any(|start| function.starts_with(start))
        || NAMES.contains(&function)
        || source::origin(frame) != Origin::Own
}

fn of_function(function: &str) -> Option<Name> {
    if function.contains("::") {
        return of_method(function);
    }
    if let Some(call) = function.strip_prefix("pthread_") {
        return of_pthread(call);
    }
    Some(match function {
        "sem_wait" | "sem_timedwait" | "sem_clockwait" | "new_sem_wait" | "uv_sem_wait" => SEMAPHORE,
        "mtx_lock" | "mtx_timedlock" | "uv_mutex_lock" | "g_mutex_lock" | "g_mutex_lock_slowpath" => MUTEX,
        "cnd_wait" | "cnd_timedwait" | "uv_cond_wait" | "uv_cond_timedwait" | "g_cond_wait"
        | "g_cond_wait_until" => CONDITION,
        "uv_barrier_wait" => BARRIER,
        "uv_rwlock_rdlock" => READ_LOCK,
        "uv_rwlock_wrlock" => WRITE_LOCK,
        "thrd_join" | "uv_thread_join" | "g_thread_join" => JOIN,
        "call_once" | "uv_once" => ONCE,
        "g_async_queue_pop" | "g_async_queue_timeout_pop" | "g_thread_pool_wait_for_new_task" => IDLE,
        // Of malloc, of files: no owner beside the word.
        "lll_lock_wait_private" => LIBC_LOCK,
        "PyThread_acquire_lock_timed" | "PyThread_acquire_lock" => PYTHON_LOCK,
        "take_gil" | "PyEval_RestoreThread" | "PyEval_AcquireThread" | "PyGILState_Ensure" => GIL,
        "Unsafe_Park" => PARK,
        "JVM_MonitorWait" => OBJECT_WAIT,
        "JVM_Sleep" => SLEEP,
        _ => return None,
    })
}

fn of_pthread(call: &str) -> Option<Name> {
    Some(match call {
        "mutex_lock" | "mutex_timedlock" | "mutex_clocklock" | "mutex_lock_full" | "mutex_cond_lock" => MUTEX,
        "cond_wait" | "cond_timedwait" | "cond_clockwait" => CONDITION,
        "rwlock_rdlock" | "rwlock_timedrdlock" | "rwlock_clockrdlock" => READ_LOCK,
        "rwlock_wrlock" | "rwlock_timedwrlock" | "rwlock_clockwrlock" => WRITE_LOCK,
        "barrier_wait" => BARRIER,
        "join" | "timedjoin_np" | "clockjoin_np" | "timedjoin_ex" | "clockjoin_ex" => JOIN,
        "once" | "once_slow" => ONCE,
        _ => return None,
    })
}

/// Functions of C++, Rust and the Java machine. Paths inside Rust's library change with its versions: what is asked
/// for are the parts that stay.
fn of_method(function: &str) -> Option<Name> {
    let has = |part: &str| function.contains(part);
    let is = |start: &str| function.trim_start_matches('<').starts_with(start);
    if is("std::") {
        return of_std(function);
    }
    if is("parking_lot") {
        return Some(match () {
            () if has("RawMutex::lock_slow") || has("RawReentrantMutex") => FOREIGN_MUTEX,
            () if has("lock_shared_slow") => FOREIGN_READ_LOCK,
            () if has("lock_exclusive_slow") || has("lock_upgradable_slow") || has("upgrade_slow") => {
                FOREIGN_WRITE_LOCK
            }
            () if has("condvar::Condvar::wait") => CONDITION,
            () if has("once::Once::call_once") => ONCE,
            () => return None,
        });
    }
    if is("tokio::") {
        let idle = has("blocking::pool") || has("Parker") || has("park::Inner::park") || has("Context::park");
        return idle.then_some(IDLE);
    }
    if is("rayon_core::") {
        return (has("::sleep::Sleep::sleep") || has("wait_until_cold")).then_some(IDLE);
    }
    if is("crossbeam") {
        return match () {
            () if has("::recv") => Some(RECEIVE),
            () if has("::send") => Some(SEND),
            () => None,
        };
    }
    if is("boost::") {
        return match () {
            () if has("condition_variable") && has("wait") => Some(CONDITION),
            () if has("thread::join") => Some(JOIN),
            () => None,
        };
    }
    Some(match () {
        () if is("ObjectMonitor::enter")
            || is("ObjectMonitor::EnterI")
            || is("ObjectMonitor::ReenterI")
            || is("ObjectSynchronizer::enter") =>
        {
            MONITOR
        }
        () if is("ObjectMonitor::wait") || is("ObjectSynchronizer::wait") => OBJECT_WAIT,
        () if is("Parker::park") => PARK,
        // Threads of the Java machine itself, between two pieces of work.
        () if is("Monitor::wait") || is("VMThread::") || is("WorkerThread") || is("GangWorker") => IDLE,
        () if is("node::") && (has("PlatformWorkerThread") || has("TaskQueue")) => IDLE,
        () => return None,
    })
}

fn of_std(function: &str) -> Option<Name> {
    let has = |part: &str| function.contains(part);
    Some(match () {
        // Rust.
        () if has("Mutex") && (has("lock_contended") || has("::lock")) => FOREIGN_MUTEX,
        () if has("RwLock") && (has("read_contended") || has("::read")) => FOREIGN_READ_LOCK,
        () if has("RwLock") && (has("write_contended") || has("::write")) => FOREIGN_WRITE_LOCK,
        () if has("Condvar") && has("::wait") => CONDITION,
        () if has("barrier::Barrier::wait") || has("Barrier::wait") => BARRIER,
        () if (has("sync::mpsc") || has("sync::mpmc")) && has("::recv") => RECEIVE,
        () if (has("sync::mpsc") || has("sync::mpmc")) && has("::send") => SEND,
        () if has("JoinHandle") && has("join") || has("JoinInner") && has("join") => JOIN,
        () if has("::thread::scope") || has("::Thread::join") => JOIN,
        () if has("::once::") || has("Once::call") || has("OnceLock") || has("LazyLock") => ONCE,
        () if has("thread::park") || has("Parker") && has("::park") => PARK,
        () if has("thread") && (function.ends_with("::park") || function.ends_with("::park_timeout")) => PARK,
        // C++.
        () if has("condition_variable") && has("wait") => CONDITION,
        () if has("::this_thread") => return None,
        () if has("thread::join") => JOIN,
        () if has("shared_mutex") || has("shared_timed_mutex") => match () {
            () if has("lock_shared") => READ_LOCK,
            () => WRITE_LOCK,
        },
        () if has("mutex::lock") || has("unique_lock") && has("::lock") => MUTEX,
        () if has("future") && (has("wait") || has("get")) || has("_M_futex_wait") => FUTURE,
        () if has("semaphore") && has("acquire") => SEMAPHORE,
        () if has("barrier") && has("wait") || has("latch") && has("wait") => BARRIER,
        () if has("call_once") => ONCE,
        () if has("atomic") && has("wait") || has("__platform_wait") => ATOMIC,
        () => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(functions: &[&str]) -> Option<&'static str> {
        let frame = |function: &&str| {
            let (module, function) = function.split_once('!').unwrap_or(("shop", function));
            Frame { function: function.to_owned(), module: Some(module.to_owned()), ..Frame::default() }
        };
        of_stack(&functions.iter().map(frame).collect::<Vec<_>>()).map(|name| name.reason)
    }

    #[test]
    fn libc_with_and_without_internal_names() {
        let inside = ["libc.so.6!", "libc.so.6!", "libc.so.6!pthread_mutex_lock", "take_the_mutex"];
        assert_eq!(name(&inside), Some("mutex lock"));
        for (function, reason) in [
            ("___pthread_mutex_lock", "mutex lock"),
            ("__pthread_mutex_timedlock", "mutex lock"),
            ("__pthread_cond_wait", "condition wait"),
            ("pthread_cond_timedwait@@GLIBC_2.3.2", "condition wait"),
            ("___pthread_rwlock_rdlock", "rwlock read lock"),
            ("pthread_rwlock_clockwrlock", "rwlock write lock"),
            ("__pthread_clockjoin_ex", "thread join"),
            ("___pthread_once", "once wait"),
            ("pthread_barrier_wait", "barrier wait"),
        ] {
            let inner = ["__futex_abstimed_wait_common64", "__futex_abstimed_wait_common"];
            assert_eq!(name(&[inner[0], inner[1], function, "serve"]), Some(reason), "{function}");
        }
        assert_eq!(
            name(&["do_futex_wait.constprop.0", "__new_sem_wait_slow64.constprop.0", "sem_wait", "main"]),
            Some("semaphore wait")
        );
    }

    #[test]
    fn the_outermost_library_function_names_the_wait() {
        assert_eq!(
            name(&[
                "libc.so.6!pthread_cond_wait",
                "std::condition_variable::wait(std::unique_lock<std::mutex>&)"
            ]),
            Some("condition wait")
        );
        assert_eq!(
            name(&["sem_wait", "PyThread_acquire_lock_timed", "acquire_timed", "take"]),
            Some("lock wait")
        );
        assert_eq!(
            name(&[
                "syscall",
                "std::sys::sync::condvar::futex::Condvar::wait_optional_timeout",
                "std::sync::poison::condvar::Condvar::wait",
                "tokio::runtime::blocking::pool::Inner::run",
                "std::thread::Builder::spawn_unchecked_",
            ]),
            Some("idle worker")
        );
        assert_eq!(
            name(&[
                "std::sys::pal::unix::futex::futex_wait",
                "std::thread::park",
                "std::sync::mpmc::list::Channel<T>::recv",
                "shop::run"
            ]),
            Some("channel receive")
        );
        assert_eq!(
            name(&["syscall", "std::sys::sync::mutex::futex::Mutex::lock_contended", "shop::sell"]),
            Some("mutex lock")
        );
        let park = ["<std::sys::sync::thread_parking::futex::Parker>::park", "std::thread::functions::park"];
        assert_eq!(name(&["syscall", park[0], park[1], "shop::rest"]), Some("thread park"));
        assert_eq!(name(&["syscall", park[0], "shop::rest"]), Some("thread park"));
        assert_eq!(
            name(&[
                "libc.so.6!",
                "libjvm.so!os::PlatformEvent::park",
                "libjvm.so!ObjectMonitor::EnterI",
                "libjvm.so!ObjectMonitor::enter",
                "Interpreter"
            ]),
            Some("monitor enter")
        );
    }

    #[test]
    fn functions_of_the_program_end_the_search() {
        // The program's own function with a name like one of libc's is behind the first frame of its own.
        assert_eq!(
            name(&["libc.so.6!sem_wait", "take_a_token", "pthread_mutex_lock"]),
            Some("semaphore wait")
        );
        assert_eq!(name(&["libc.so.6!syscall", "wait_for_customers", "std::thread::park"]), None);
        assert_eq!(name(&["my_futex", "pthread_mutex_lock"]), None);
        assert_eq!(name(&["", "pthread_mutex_lock"]), None, "no name, no library: nothing is known");
        assert_eq!(name(&[]), None);
        let long: Vec<&str> = std::iter::repeat_n("futex_wait", 1000).chain(["sem_wait"]).collect();
        assert_eq!(name(&long), None, "bounded");
        for odd in ["::", "std::", "_", "____", "pthread_", ".", "@", "<", "é::é"] {
            assert_eq!(name(&[odd]), None, "{odd}");
        }
    }
}
