//! C, C++, Rust and whatever else runs on threads: what their waits are called, and the libraries that they wait in.
//!
//! Reasons are those that `threads` gives: what the stack shows (`mutex lock`), a system call, or a futex operation.

mod allocators;
mod names;
pub mod source;

use super::interface::{Language, Origin, Scope, Wait};
use crate::sample::Frame;
use names::plain;

/// Whoever speaks at the other end, or the clock, can end these calls.
const PEERS: [&str; 17] = [
    "read",
    "write",
    "recv",
    "send",
    "accept",
    "connect",
    "poll",
    "select",
    "epoll_wait",
    "io_getevents",
    "io_uring_enter",
    "wait4",
    "vfork",
    "open",
    "fsync",
    "system call",
    "wait taken up again",
];

/// Somebody has the lock, or is expected to end.
const HARD: [&str; 7] = [
    "mutex lock",
    "rwlock read lock",
    "rwlock write lock",
    "monitor enter",
    "futex lock pi",
    "once wait",
    "thread join",
];

/// Libraries every native program waits in.
const LIBC: [&str; 8] =
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

/// What every program in the language has and is compiled into it, by names where nothing tells where its source lies.
const STANDARD_NAMES: [&str; 4] = ["std::", "core::", "alloc::", "__gnu_cxx::"];
/// The same of libraries.
const DEPENDENCY_NAMES: [&str; 4] = ["parking_lot::", "parking_lot_core::", "tokio::", "crossbeam_"];

pub struct Native;

impl Language for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn noun(&self) -> &'static str {
        "thread"
    }

    fn wrote(&self, _: &Frame) -> bool {
        true
    }

    fn wait(&self, state: &str, reason: &str) -> Wait {
        match reason {
            _ if matches!(state, "running" | "runnable" | "preempted") => Wait::Runs,
            _ if HARD.contains(&reason) => Wait::Hard,
            // What is left waits for another of the program's threads or for its kin: signals, locks of files, queues.
            _ if PEERS.contains(&reason) || self.sleeps(reason) => Wait::Peer,
            _ => Wait::Soft,
        }
    }

    fn severity(&self, wait: Wait, reason: &str) -> u8 {
        match (wait, reason) {
            (Wait::Hard, "thread join") => 1,
            (Wait::Hard, _) => 0,
            (Wait::Soft, "condition wait" | "barrier wait") => 1,
            (Wait::Soft, _) => 2,
            (Wait::Peer, _) => 3,
            (Wait::Runs, _) => 4,
        }
    }

    fn sleeps(&self, reason: &str) -> bool {
        reason == "nanosleep" || reason.starts_with("sleep")
    }

    /// Whoever waits for a lock may be a worker as well.
    fn takes_turns(&self, _: Wait) -> bool {
        true
    }

    fn is_lock(&self, reason: &str) -> bool {
        matches!(
            reason,
            "mutex lock" | "rwlock read lock" | "rwlock write lock" | "monitor enter" | "futex lock pi"
        )
    }

    fn is_connection(&self, reason: &str) -> bool {
        reason == "recv"
    }

    /// Nothing tells who started a thread.
    fn waits_for_started(&self, _: &str) -> bool {
        false
    }

    fn why_patience(&self, reason: &str) -> &'static str {
        match reason {
            "wait4" | "vfork" => "each waits for a child that may still end",
            "fsync" | "open" | "system call" => "each waits for the kernel",
            _ if self.sleeps(reason) || reason == "wait taken up again" => "each wakes by itself",
            _ if PEERS.contains(&reason) => "each waits for a peer that may still speak",
            _ => "they rest as their connections or their work do",
        }
    }

    fn origin(&self, frame: &Frame) -> Origin {
        if is_libc(frame) {
            return Origin::Plumbing;
        }
        let name = frame.function.trim_start_matches('<');
        match source::origin(frame) {
            Origin::Own if STANDARD_NAMES.iter().any(|start| name.starts_with(start)) => Origin::Standard,
            Origin::Own if DEPENDENCY_NAMES.iter().any(|start| name.starts_with(start)) => Origin::Dependency,
            Origin::Own if frame.function.starts_with("__futex") => Origin::Standard,
            origin => origin,
        }
    }

    fn allocates(&self, frame: &Frame) -> bool {
        allocators::has(frame)
    }

    /// libc that is linked into the program itself.
    fn linked_in(&self, frames: &[Frame]) -> usize {
        let inside = !frames.first().is_some_and(is_libc);
        let is_wait = |frame: &&Frame| {
            let name = plain(&frame.function);
            let waits = ["pthread_", "sem_", "new_sem", "lll_lock", "futex_", "syscall_cp", "timedwait"];
            waits.iter().any(|start| name.starts_with(start)) || SLEEPERS.contains(&name)
        };
        if inside { frames.iter().take_while(is_wait).count() } else { 0 }
    }

    /// Names do not tell where a closure was written, nor what belongs together.
    fn scope<'f>(&self, function: &'f str) -> Scope<'f> {
        Scope { package: None, receiver: None, enclosing: function }
    }
}

fn is_libc(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or_default();
    let name = module.rsplit('/').next().unwrap_or_default();
    LIBC.iter().any(|library| name.starts_with(library))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_given_time_and_a_lock_is_not() {
        let of = |reason: &str| Native.wait("sleeping", reason);
        for hard in ["mutex lock", "rwlock read lock", "rwlock write lock", "monitor enter", "thread join"] {
            assert_eq!(of(hard), Wait::Hard, "{hard}");
        }
        for soft in [
            "condition wait",
            "semaphore wait",
            "idle worker",
            "futex wait",
            "thread park",
            "lock wait",
            "pause",
        ] {
            assert_eq!(of(soft), Wait::Soft, "{soft}");
        }
        for peer in ["recv", "nanosleep", "epoll_wait", "sleep"] {
            assert_eq!(of(peer), Wait::Peer, "{peer}");
        }
        assert_eq!(Native.why_patience("nanosleep"), "each wakes by itself");
    }
}
