//! What a thread that sleeps in a futex call waits for, from the call's number and arguments.

/// A wait on a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The operation, in words.
    pub reason: &'static str,
    /// Address of the word it waits on (of the vector of words for `futex_waitv`).
    pub address: u64,
    /// It ends by itself after some time.
    pub timed: bool,
}

const FUTEX_WAITV: i64 = 449;
const FUTEX_WAIT2: i64 = 455;
/// `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME` change nothing about what is waited for.
const OPERATION_MASK: u64 = 0x7f;

/// The wait that a syscall stands for; `None` for every other call, and for futex calls that do not wait.
pub fn wait(syscall: i64, arguments: &[u64; 6]) -> Option<Wait> {
    let [address, operation, _, timeout, waitv_timeout, _] = *arguments;
    let timed = timeout != 0;
    let (reason, timed) = match syscall {
        libc::SYS_futex => match operation & OPERATION_MASK {
            0 => ("futex wait", timed),
            6 | 13 => ("futex lock pi", timed),
            9 => ("futex wait bitset", timed),
            11 => ("futex wait requeue pi", timed),
            _ => return None,
        },
        // Both new calls: futex_waitv(waiters, n, flags, timeout), futex_wait(uaddr, val, mask, flags, timeout).
        FUTEX_WAITV => ("futex waitv", timed),
        FUTEX_WAIT2 => ("futex wait", waitv_timeout != 0),
        _ => return None,
    };
    Some(Wait { reason, address, timed })
}

/// Whether this is a wait that a signal interrupted and the kernel took up again: another call, the same arguments.
pub fn restarted(syscall: i64) -> bool {
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
