//! What a thread that sleeps in a system call waits for, where that call is not a futex's: [`super::futex`] has those.
//!
//! From the call's number and arguments; what a file descriptor refers to is read from `/proc/PID/fd`, a few a group.

use std::collections::HashSet;
use std::fs;

use super::futex::{FUTEX_WAIT2, FUTEX_WAITV, Wait};
use crate::sample::WaitsOn;

/// Descriptors of a group that are looked at.
const LOOKED_AT: usize = 16;

/// What a call waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    /// The file descriptor that is its first argument.
    Descriptor,
    /// A child.
    Process,
    /// Several, or none: the clock, a signal.
    Nothing,
}

use Object::{Descriptor, Nothing, Process};

/// How the end of a wait is given to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Never,
    Always,
    /// A pointer, the argument of this number: none if it is null.
    Pointer(usize),
    /// Milliseconds, the argument of this number: none if negative.
    Milliseconds(usize),
}

use Limit::{Always, Milliseconds, Never, Pointer};

/// Calls that wait for somebody else, by what they are called; several calls that do the same have one name.
const CALLS: &[(i64, &str, Object, Limit)] = &[
    (libc::SYS_read, "read", Descriptor, Never),
    (libc::SYS_readv, "read", Descriptor, Never),
    (libc::SYS_pread64, "read", Descriptor, Never),
    (libc::SYS_preadv, "read", Descriptor, Never),
    (libc::SYS_preadv2, "read", Descriptor, Never),
    (libc::SYS_write, "write", Descriptor, Never),
    (libc::SYS_writev, "write", Descriptor, Never),
    (libc::SYS_pwrite64, "write", Descriptor, Never),
    (libc::SYS_pwritev, "write", Descriptor, Never),
    (libc::SYS_pwritev2, "write", Descriptor, Never),
    (libc::SYS_sendfile, "write", Descriptor, Never),
    (libc::SYS_splice, "read", Descriptor, Never),
    (libc::SYS_recvfrom, "recv", Descriptor, Never),
    (libc::SYS_recvmsg, "recv", Descriptor, Never),
    (libc::SYS_recvmmsg, "recv", Descriptor, Pointer(4)),
    (libc::SYS_sendto, "send", Descriptor, Never),
    (libc::SYS_sendmsg, "send", Descriptor, Never),
    (libc::SYS_sendmmsg, "send", Descriptor, Never),
    (libc::SYS_accept, "accept", Descriptor, Never),
    (libc::SYS_accept4, "accept", Descriptor, Never),
    (libc::SYS_connect, "connect", Descriptor, Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", Nothing, Milliseconds(2)),
    (libc::SYS_ppoll, "poll", Nothing, Pointer(2)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select", Nothing, Pointer(4)),
    (libc::SYS_pselect6, "select", Nothing, Pointer(4)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait", Descriptor, Milliseconds(3)),
    (libc::SYS_epoll_pwait, "epoll_wait", Descriptor, Milliseconds(3)),
    (SYS_EPOLL_PWAIT2, "epoll_wait", Descriptor, Pointer(3)),
    (libc::SYS_io_getevents, "io_getevents", Nothing, Pointer(4)),
    (SYS_IO_PGETEVENTS, "io_getevents", Nothing, Pointer(4)),
    (libc::SYS_io_uring_enter, "io_uring_enter", Descriptor, Never),
    (libc::SYS_nanosleep, "nanosleep", Nothing, Always),
    (libc::SYS_clock_nanosleep, "nanosleep", Nothing, Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "pause", Nothing, Never),
    (libc::SYS_rt_sigsuspend, "pause", Nothing, Never),
    (libc::SYS_rt_sigtimedwait, "sigwait", Nothing, Pointer(2)),
    (libc::SYS_wait4, "wait4", Process, Never),
    (libc::SYS_waitid, "wait4", Nothing, Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "vfork", Nothing, Never),
    (libc::SYS_flock, "flock", Descriptor, Never),
    (libc::SYS_fcntl, "fcntl lock", Descriptor, Never),
    (libc::SYS_msgrcv, "msgrcv", Nothing, Never),
    (libc::SYS_msgsnd, "msgsnd", Nothing, Never),
    (libc::SYS_semop, "semop", Nothing, Never),
    (libc::SYS_semtimedop, "semop", Nothing, Pointer(3)),
    (libc::SYS_mq_timedreceive, "mq_receive", Nothing, Pointer(4)),
    (libc::SYS_mq_timedsend, "mq_send", Nothing, Pointer(4)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", Nothing, Never),
    (libc::SYS_openat, "open", Nothing, Never),
    (libc::SYS_fsync, "fsync", Descriptor, Never),
    (libc::SYS_fdatasync, "fsync", Descriptor, Never),
    // A signal interrupted a call that ends at a time, and it goes on under this number.
    (libc::SYS_restart_syscall, "wait taken up again", Nothing, Always),
];

const SYS_IO_PGETEVENTS: i64 = if cfg!(target_arch = "x86_64") { 333 } else { 292 };
const SYS_EPOLL_PWAIT2: i64 = 441;

/// The wait that a call stands for; of a call that is not in the table nothing but that it waits is said. `None`
/// outside of calls, and for those of futexes.
pub(crate) fn wait(number: i64, arguments: &[u64; 6]) -> Option<Wait> {
    if number < 0 || matches!(number, libc::SYS_futex | FUTEX_WAITV | FUTEX_WAIT2) {
        return None;
    }
    let Some((_, reason, object, limit)) = CALLS.iter().find(|(call, ..)| *call == number) else {
        return Some(Wait {
            reason: "system call",
            address: number.cast_unsigned(),
            timed: false,
            expected: 0,
            shared: false,
        });
    };
    let timed = match *limit {
        Never => false,
        Always => true,
        Pointer(place) => arguments[place] != 0,
        // An int: the upper half of the register is anything.
        Milliseconds(place) => (arguments[place] as u32).cast_signed() >= 0,
    };
    let address = match object {
        Descriptor | Process => arguments[0] & 0xffff_ffff,
        Nothing => 0,
    };
    Some(Wait { reason, address, timed, expected: 0, shared: false })
}

/// Whether a reason is that of a call of this table.
pub(crate) fn is_one(reason: &str) -> bool {
    reason == "system call" || CALLS.iter().any(|(_, name, ..)| *name == reason)
}

/// What the members of a group wait on, by the first arguments of their calls.
pub(crate) fn waits_on(
    pid: u32,
    reason: &str,
    objects: &HashSet<u64>,
    note: Option<&str>,
) -> Option<WaitsOn> {
    let (.., object, _) = *CALLS.iter().find(|(_, name, ..)| *name == reason)?;
    let all = objects.len() as u64;
    let on = |kind: &str, objects, more: Option<String>| {
        let words: Vec<String> = more.into_iter().chain(note.map(str::to_owned)).collect();
        let note = (!words.is_empty()).then(|| words.join(", "));
        Some(WaitsOn { kind: kind.into(), objects, note, ..WaitsOn::default() })
    };
    match object {
        Descriptor => {
            let mut kinds: Vec<&str> =
                objects.iter().take(LOOKED_AT).filter_map(|&number| descriptor(pid, number)).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let some = (all > LOOKED_AT as u64).then(|| format!("as {LOOKED_AT} of them show"));
            match kinds[..] {
                [kind] => on(kind, all, some),
                [] => on("file descriptor", all, None),
                _ => on("file descriptor", all, Some(kinds.join(", "))),
            }
        }
        Process => on("child process", 0, None),
        Nothing if reason != "nanosleep" && note.is_some() => on("event", 0, None),
        Nothing => None,
    }
}

/// What a descriptor of the target refers to, in a word.
fn descriptor(pid: u32, number: u64) -> Option<&'static str> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
    kind(&link.to_string_lossy())
}

fn kind(link: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 10] = [
        ("socket:[", "socket"),
        ("pipe:[", "pipe"),
        ("anon_inode:[eventfd]", "eventfd"),
        ("anon_inode:[timerfd]", "timer"),
        ("anon_inode:[eventpoll]", "epoll"),
        ("anon_inode:[signalfd]", "signalfd"),
        ("anon_inode:[io_uring]", "io_uring"),
        ("anon_inode:inotify", "inotify"),
        ("/dev/pts/", "terminal"),
        ("/dev/tty", "terminal"),
    ];
    let known = KINDS.iter().find(|(start, _)| link.starts_with(start)).map(|(_, kind)| *kind);
    known.or_else(|| link.starts_with('/').then_some("file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_calls_and_says_whether_they_end_by_themselves() {
        let of = |number, arguments: [u64; 6]| {
            wait(number, &arguments).map(|wait| (wait.reason, wait.address, wait.timed))
        };
        assert_eq!(of(libc::SYS_read, [7, 0, 0, 0, 0, 0]), Some(("read", 7, false)));
        assert_eq!(of(libc::SYS_poll, [1, 1, 0xffff_ffff, 0, 0, 0]), Some(("poll", 0, false)));
        assert_eq!(of(libc::SYS_poll, [1, 1, 500, 0, 0, 0]), Some(("poll", 0, true)));
        assert_eq!(of(libc::SYS_nanosleep, [9; 6]), Some(("nanosleep", 0, true)));
        assert_eq!(of(libc::SYS_futex, [9; 6]), None);
        assert_eq!(of(-1, [9; 6]), None);
        assert_eq!(of(4_000, [9; 6]), Some(("system call", 4_000, false)));
        assert_eq!(of(libc::SYS_read, [u64::MAX; 6]), Some(("read", 0xffff_ffff, false)));
        assert!(is_one("epoll_wait") && is_one("system call") && !is_one("futex wait"));
    }

    #[test]
    fn tells_what_descriptors_are() {
        let us = std::process::id();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let file = fs::File::open("/proc/self/exe").unwrap();
        let number = |fd: &dyn std::os::fd::AsRawFd| u64::from(fd.as_raw_fd().cast_unsigned());
        let on = |objects: &[u64]| waits_on(us, "read", &objects.iter().copied().collect(), None).unwrap();
        let pipes = on(&[number(&reader), number(&writer)]);
        assert_eq!((pipes.kind.as_str(), pipes.objects, pipes.note), ("pipe", 2, None));
        let mixed = on(&[number(&reader), number(&file)]);
        assert_eq!((mixed.kind.as_str(), mixed.note.as_deref()), ("file descriptor", Some("file, pipe")));
        assert_eq!(on(&[0xffff_ffff]).kind, "file descriptor");
        assert_eq!(waits_on(us, "pause", &HashSet::from([0]), None), None);
    }
}
