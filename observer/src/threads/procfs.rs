//! A census of threads from `/proc/PID/task`, where there is no eBPF.
//!
//! Reads `syscall` of every thread and, of those that sleep in a system call, `stat` and `status`; gives a [`BlockedThread`]
//! of each. Some 15 µs a sleeping thread, 5 µs another one. It has no frame pointer to start from: `syscall` tells
//! the stack pointer and the instruction only.

use std::fs;
use std::io::{self, Read as _};

use super::blocked::BlockedThread;
use super::comm::Comm;
use super::futex;
use crate::process::status;

/// Threads looked at in one census; the kernel allows more, no process has them.
pub const MAX_THREADS: usize = 1 << 19;

/// What one walk found.
#[derive(Debug, Default)]
pub struct Census {
    /// Threads that may wait.
    pub visits: Vec<BlockedThread>,
    /// All threads of the process.
    pub threads: u64,
    /// Threads whose files could not be read though they live.
    pub refused: u64,
    /// Threads beyond the bound.
    pub left_out: u64,
}

/// Visits every thread. Fails when the process is gone.
pub fn census(pid: u32) -> io::Result<Census> {
    let mut census = Census::default();
    let mut text = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(entry) = entry else { continue };
        let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        census.threads += 1;
        if census.threads > MAX_THREADS as u64 {
            census.left_out += 1;
            continue;
        }
        match visit(pid, tid, &mut text) {
            Ok(visit) => census.visits.extend(visit),
            // It ended since its name was read.
            Err(error) if is_gone(&error) => {}
            Err(_) => census.refused += 1,
        }
    }
    Ok(census)
}

/// Whether a thread still is where it was visited. Where that may not be read it is believed.
pub fn still_there(pid: u32, visit: &BlockedThread) -> bool {
    let mut text = Vec::new();
    match read(&format!("/proc/{pid}/task/{}/syscall", visit.tid), &mut text) {
        Ok(()) => parse_syscall(&text).is_some_and(|call| (call.sp, call.ip) == (visit.sp, visit.ip)),
        Err(error) => !is_gone(&error),
    }
}

/// What the files of one thread say; fields that cannot be read are empty.
pub(super) struct Look {
    /// As in `stat`: `R`, `S`, ...
    pub(super) state: u8,
    pub(super) started: u64,
    pub(super) voluntary_switches: u64,
    pub(super) call: Option<Call>,
}

/// Looks at one thread; `None` when it is gone.
pub(super) fn look(pid: u32, tid: u32) -> Option<Look> {
    let mut text = Vec::new();
    read(&format!("/proc/{pid}/task/{tid}/stat"), &mut text).ok()?;
    let state = parse_state(&text).unwrap_or(0);
    let started = parse_started(&text).unwrap_or(0);
    let call = read(&format!("/proc/{pid}/task/{tid}/syscall"), &mut text).ok();
    let call = call.and_then(|()| parse_syscall(&text));
    read(&format!("/proc/{pid}/task/{tid}/status"), &mut text).ok()?;
    Some(Look { state, started, voluntary_switches: parse_switches(&text).unwrap_or(0), call })
}

/// The name that a thread has given itself.
pub(super) fn name(pid: u32, tid: u32) -> Option<String> {
    let mut text = Vec::new();
    read(&format!("/proc/{pid}/task/{tid}/comm"), &mut text).ok()?;
    Some(String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn visit(pid: u32, tid: u32, text: &mut Vec<u8>) -> io::Result<Option<BlockedThread>> {
    read(&format!("/proc/{pid}/task/{tid}/syscall"), text)?;
    let Some(call) = parse_syscall(text) else { return Ok(None) };
    // Every other call of a thread that is no runnable one waits for something.
    if call.number == libc::SYS_futex && futex::wait(call.number, &call.arguments).is_none() {
        return Ok(None);
    }
    read(&format!("/proc/{pid}/task/{tid}/stat"), text)?;
    let (started, comm) = (parse_started(text), parse_name(text));
    read(&format!("/proc/{pid}/task/{tid}/status"), text)?;
    let voluntary_switches = parse_switches(text);
    Ok(Some(BlockedThread {
        tid,
        started: started.unwrap_or(0),
        voluntary_switches: voluntary_switches.unwrap_or(0),
        syscall: call.number,
        arguments: call.arguments,
        ip: call.ip,
        sp: call.sp,
        bp: None,
        lr: None,
        comm,
    }))
}

fn read(path: &str, text: &mut Vec<u8>) -> io::Result<()> {
    text.clear();
    fs::File::open(path)?.take(16 << 10).read_to_end(text).map(drop)
}

/// The call a thread sleeps in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: i64,
    pub(super) arguments: [u64; 6],
    pub(super) sp: u64,
    pub(super) ip: u64,
}

/// `NUMBER 0xARG1 .. 0xARG6 0xSP 0xPC`; `running` and `-1 0xSP 0xPC` are no calls.
fn parse_syscall(text: &[u8]) -> Option<Call> {
    let mut words = str::from_utf8(text).ok()?.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|&number| number >= 0)?;
    let mut hex = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = hex()?;
    }
    Some(Call { number, arguments, sp: hex()?, ip: hex()? })
}

/// Field 22 of `stat`. The name in field 2 can hold anything, also `) S 1`: the last bracket ends it.
fn parse_started(text: &[u8]) -> Option<u64> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = str::from_utf8(text.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn parse_name(text: &[u8]) -> Comm {
    let start = text.iter().position(|&byte| byte == b'(').map_or(text.len(), |at| at + 1);
    let end = text.iter().rposition(|&byte| byte == b')').unwrap_or(0);
    Comm::new(text.get(start..end).unwrap_or_default())
}

fn parse_state(text: &[u8]) -> Option<u8> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    text.get(end + 2).copied()
}

fn parse_switches(text: &[u8]) -> Option<u64> {
    status::field(text, "voluntary_ctxt_switches:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_call_and_refuses_what_is_none() {
        let call = parse_syscall(b"202 0x5581 0x80 0x2 0x0 0x0 0x0 0x7ffd10 0x7f33\n").unwrap();
        assert_eq!((call.number, call.arguments[1], call.sp, call.ip), (202, 0x80, 0x7f_fd10, 0x7f33));
        for none in ["running\n", "-1 0x7ffd 0x7f33\n", "", "202 0x1\n", "202 1 2 3 4 5 6 7 8", "9 0xg"] {
            assert_eq!(parse_syscall(none.as_bytes()), None, "{none:?}");
        }
        assert_eq!(parse_syscall(b"\xff\xfe"), None);
    }

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let fields = (4..=52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let text = format!("7 (x) S 1 (2 3)\n) S {fields}\n");
        assert_eq!(parse_started(text.as_bytes()), Some(22));
        assert_eq!(parse_started(b"7 (x S 1"), None);
        let status = b"Name:\tvoluntary_ctxt_switches:\\n9\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(parse_switches(status), Some(42));
    }
}
