//! System calls that threads sleep in, other than futexes: who can end them, and what that says of a group that grows.
//!
//! Takes the wait reason of a thread group, gives words and how long to watch it.

use super::turnover::Wait;

/// Whoever speaks at the other end, or the clock.
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
/// Signals, locks of files and queues: another of the program's threads or of its kin, as with futexes.
const OWN: [&str; 10] = [
    "pause",
    "sigwait",
    "flock",
    "fcntl lock",
    "msgrcv",
    "msgsnd",
    "semop",
    "mq_receive",
    "mq_send",
    "futex",
];

/// How a thread in this call is to be judged; `None` where it is no such call.
pub fn wait(reason: &str) -> Option<Wait> {
    if PEERS.contains(&reason) || is_sleep(reason) {
        return Some(Wait::Peer);
    }
    OWN.contains(&reason).then_some(Wait::Soft)
}

/// It ends by itself.
pub fn is_sleep(reason: &str) -> bool {
    reason == "nanosleep" || reason.starts_with("sleep")
}

/// Why a group that only grows may still be healthy.
pub fn why_patience(reason: &str) -> &'static str {
    match reason {
        "wait4" | "vfork" => "each waits for a child that may still end",
        "fsync" | "open" | "system call" => "each waits for the kernel",
        _ if is_sleep(reason) || reason == "wait taken up again" => "each wakes by itself",
        _ if reason == "IO wait" || PEERS.contains(&reason) => "each waits for a peer that may still speak",
        _ => "they rest as their connections or their work do",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_given_time_and_a_lock_is_not() {
        assert_eq!(wait("recv"), Some(Wait::Peer));
        assert_eq!(wait("nanosleep"), Some(Wait::Peer));
        assert_eq!(wait("pause"), Some(Wait::Soft));
        assert_eq!(wait("mutex lock"), None);
        assert_eq!(why_patience("nanosleep"), "each wakes by itself");
        assert_eq!(why_patience("chan receive"), "they rest as their connections or their work do");
    }
}
