//! What a thread that sleeps in a futex call waits for, from the call's number and arguments.

/// A wait on a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The operation, in words.
    pub reason: &'static str,
    /// Address of the word it waits on (of the vector of words for `futex_waitv`).
    pub address: u64,
    /// It ends by itself after some time.
    pub timed: bool,
    /// The word held this when it went to sleep; unknown to calls on several words.
    pub expected: u32,
    /// Threads of other processes may wait on the same word.
    pub shared: bool,
}

pub(crate) const WAIT: &str = "futex wait";
pub(crate) const WAIT_BITSET: &str = "futex wait bitset";
pub(crate) const LOCK_PI: &str = "futex lock pi";
/// The address is that of a list of words.
pub(crate) const WAITV: &str = "futex waitv";

pub(crate) const FUTEX_WAITV: i64 = 449;
pub(crate) const FUTEX_WAIT2: i64 = 455;
const PRIVATE_FLAG: u64 = 0x80;
/// `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME` change nothing about what is waited for.
const OPERATION_MASK: u64 = 0x7f;

/// The wait that a syscall stands for; `None` for every other call, and for futex calls that do not wait.
pub(crate) fn wait(syscall: i64, arguments: &[u64; 6]) -> Option<Wait> {
    let [address, operation, expected, timeout, waitv_timeout, _] = *arguments;
    let timed = timeout != 0;
    let shared = operation & PRIVATE_FLAG == 0;
    let (reason, timed, shared) = match syscall {
        libc::SYS_futex => match operation & OPERATION_MASK {
            0 => (WAIT, timed, shared),
            6 | 13 => (LOCK_PI, timed, shared),
            9 => (WAIT_BITSET, timed, shared),
            11 => ("futex wait requeue pi", timed, shared),
            _ => return None,
        },
        // Both new calls: futex_waitv(waiters, n, flags, timeout), futex_wait(uaddr, val, mask, flags, timeout).
        FUTEX_WAITV => (WAITV, timed, false),
        FUTEX_WAIT2 => (WAIT, waitv_timeout != 0, false),
        _ => return None,
    };
    Some(Wait { reason, address, timed, expected: expected as u32, shared })
}

/// Whether this is a wait that a signal interrupted and the kernel took up again: another call, the same arguments.
pub(crate) fn restarted(syscall: i64) -> bool {
    syscall == libc::SYS_restart_syscall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_operations_that_wait() {
        let reason = |number, operation| {
            wait(number, &[0x1000, operation, 0, 0, 0, 0]).map(|wait| (wait.reason, wait.timed))
        };
        assert_eq!(reason(libc::SYS_futex, 0x80), Some(("futex wait", false)));
        assert_eq!(reason(libc::SYS_futex, 0x189), Some(("futex wait bitset", false)));
        assert_eq!(reason(libc::SYS_futex, 0x86), Some(("futex lock pi", false)));
        assert_eq!(reason(libc::SYS_futex, 0x81), None, "a wake does not wait");
        assert_eq!(reason(FUTEX_WAITV, 1), Some(("futex waitv", false)));
        assert_eq!(reason(libc::SYS_nanosleep, 0), None);
        assert_eq!(reason(-1, 0), None);
        let timed = wait(libc::SYS_futex, &[0x1000, 0x89, 0, 0x7ffd, 0, u64::MAX]).unwrap();
        assert!(timed.timed && timed.address == 0x1000);
    }
}
