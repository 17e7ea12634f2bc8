//! One thread as a census found it, whichever way the census was taken.

use super::comm::Comm;
use crate::kernel::census::ThreadRecord;

/// One thread in a census.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockedThread {
    /// In observer's PID namespace.
    pub tid: u32,
    /// Start time in any unit: with the tid it is the thread's identity.
    pub started: u64,
    pub voluntary_switches: u64,
    /// Negative outside a syscall, and when the thread is awake.
    pub syscall: i64,
    pub arguments: [u64; 6],
    pub ip: u64,
    pub sp: u64,
    pub bp: Option<u64>,
    pub lr: Option<u64>,
    pub comm: Comm,
}

impl BlockedThread {
    /// `None` for a thread that is awake: where it entered the kernel last says nothing.
    pub(super) fn of_sleeper(record: &ThreadRecord) -> Option<Self> {
        record.is_sleeping().then(|| Self {
            tid: record.tid,
            started: record.started,
            voluntary_switches: record.voluntary_switches,
            syscall: record.syscall.and_then(|number| i64::try_from(number).ok()).unwrap_or(-1),
            arguments: record.arguments,
            ip: record.ip,
            sp: record.sp,
            bp: Some(record.bp),
            lr: Some(record.lr),
            comm: Comm::new(record.comm.as_bytes()),
        })
    }
}
