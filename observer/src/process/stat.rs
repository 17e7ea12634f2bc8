//! `/proc/PID/stat`, parsed from bytes (proc_pid_stat(5)).

use std::fmt;

/// `PF_KTHREAD` of the kernel's include/linux/sched.h.
const PF_KTHREAD: u64 = 0x0020_0000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub comm: String,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, ...
    pub state: char,
    pub parent: u32,
    /// Clock ticks after boot: with the pid it names one process for ever.
    pub start_ticks: u64,
    /// Changes with each exec; 0 without ptrace access.
    pub stack_start: u64,
    /// Page faults so far, with and without I/O.
    pub page_faults: u64,
    flags: u64,
}

impl Stat {
    /// Parses one stat line; `None` when it is none.
    pub fn parse(line: &[u8]) -> Option<Self> {
        // The comm is the process's to choose: it may hold spaces and parentheses, so look for the last one.
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
        let rest = String::from_utf8_lossy(line.get(close + 1..)?);
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // fields[0] is field 3 of the manual page.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            page_faults: number(10).unwrap_or(0).saturating_add(number(12).unwrap_or(0)),
            flags: number(9)?,
            start_ticks: number(22)?,
            stack_start: number(28).unwrap_or(0),
        })
    }

    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Exited: a zombie, or about to vanish.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

impl fmt::Display for Stat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.comm.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"4242 (a) R (b c) S 1 4242 4242 0 -1 4194560 5 0 0 0 1 2 0 0 20 0 9 0 77123 1 2 \
        18446744073709551615 1 2 140725000000000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0";

    #[test]
    fn a_comm_with_parentheses_and_spaces() {
        let stat = Stat::parse(LINE).unwrap();
        assert_eq!(stat.comm, "a) R (b c");
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 1, 77123));
        assert_eq!(stat.stack_start, 140_725_000_000_000);
        assert_eq!(stat.page_faults, 5);
        assert!(!stat.is_kernel_thread() && !stat.is_dead());
    }

    #[test]
    fn every_prefix_is_survived() {
        for length in 0..LINE.len() {
            let _ = Stat::parse(&LINE[..length]);
        }
    }

    #[test]
    fn a_kernel_thread_by_its_flag() {
        let line = String::from_utf8_lossy(LINE).replace("4194560", "69238880");
        assert!(Stat::parse(line.as_bytes()).unwrap().is_kernel_thread());
    }
}
