//! C, C++, Rust and whatever else runs on threads: what their waits are called, and the libraries that they wait in.
//!
//! Reasons are those that `threads` gives: what the stack shows (`mutex lock`), a system call, or a futex operation.

mod allocators;
mod names;
pub(crate) mod source;

use super::interface::{Language, Origin, Scope, Wait};
use crate::sample::WaitReason as Reason;
use crate::sample::{Frame, GroupState, WaitReason};
use names::plain;

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

pub(crate) struct Native;

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

    fn wait(&self, state: &GroupState, reason: &WaitReason) -> Wait {
        if matches!(state, GroupState::Running | GroupState::Runnable | GroupState::Preempted) {
            return Wait::Runs;
        }
        match reason {
            // Somebody has the lock, or is expected to end.
            Reason::MutexLock
            | Reason::RwlockReadLock
            | Reason::RwlockWriteLock
            | Reason::MonitorEnter
            | Reason::FutexLockPi
            | Reason::OnceWait
            | Reason::ThreadJoin => Wait::Hard,
            _ if speaks(reason) || self.sleeps(reason) => Wait::Peer,
            // Another of the program's threads or of its kin, also by signals, locks of files and queues.
            _ => Wait::Soft,
        }
    }

    fn severity(&self, wait: Wait, reason: &WaitReason) -> u8 {
        match (wait, reason) {
            (Wait::Hard, Reason::ThreadJoin) => 1,
            (Wait::Hard, _) => 0,
            (Wait::Soft, Reason::ConditionWait | Reason::BarrierWait) => 1,
            (Wait::Soft, _) => 2,
            (Wait::Peer, _) => 3,
            (Wait::Runs, _) => 4,
        }
    }

    fn sleeps(&self, reason: &WaitReason) -> bool {
        matches!(reason, Reason::Nanosleep | Reason::Sleep | Reason::Sleeping)
    }

    /// Whoever waits for a lock may be a worker as well.
    fn takes_turns(&self, _: Wait) -> bool {
        true
    }

    fn is_lock(&self, reason: &WaitReason) -> bool {
        matches!(
            reason,
            Reason::MutexLock
                | Reason::RwlockReadLock
                | Reason::RwlockWriteLock
                | Reason::MonitorEnter
                | Reason::FutexLockPi
        )
    }

    fn is_connection(&self, reason: &WaitReason) -> bool {
        *reason == Reason::Recv
    }

    /// Nothing tells who started a thread.
    fn waits_for_started(&self, _: &WaitReason) -> bool {
        false
    }

    fn why_patience(&self, reason: &WaitReason) -> &'static str {
        match reason {
            Reason::Wait4 | Reason::Vfork => "each waits for a child that may still end",
            Reason::Fsync | Reason::Open | Reason::SystemCall => "each waits for the kernel",
            _ if self.sleeps(reason) || *reason == Reason::WaitTakenUpAgain => "each wakes by itself",
            _ if speaks(reason) => "each waits for a peer that may still speak",
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

/// Whoever speaks at the other end, the kernel, or the clock can end it.
fn speaks(reason: &WaitReason) -> bool {
    matches!(
        reason,
        Reason::Read
            | Reason::Write
            | Reason::Recv
            | Reason::Send
            | Reason::Accept
            | Reason::Connect
            | Reason::Poll
            | Reason::Select
            | Reason::EpollWait
            | Reason::IoGetevents
            | Reason::IoUringEnter
            | Reason::Wait4
            | Reason::Vfork
            | Reason::Open
            | Reason::Fsync
            | Reason::SystemCall
            | Reason::WaitTakenUpAgain
    )
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
        let of = |reason: &str| Native.wait(&GroupState::Sleeping, &reason.into());
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
        assert_eq!(Native.why_patience(&Reason::Nanosleep), "each wakes by itself");
    }
}
