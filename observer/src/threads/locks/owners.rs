//! Who a thread id in the target's memory is, and what that thread does.
//!
//! Reads the census where there is one, else files of `/proc` for those that are asked for: some 20 µs each. A target
//! in a PID namespace of its own numbers its threads otherwise than observer does.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::kernel::census::ThreadRecord;
use crate::process::status;
use crate::threads::procfs::{self, MAX_THREADS};
use crate::unwind::Registers;

/// The threads of the target at one moment.
pub(super) struct ThreadTable<'a> {
    pid: u32,
    census: Option<&'a [ThreadRecord]>,
    /// Records by the number in the target's namespace.
    numbers: HashMap<u32, usize>,
    records: HashMap<u32, usize>,
    /// Without a census, in a namespace of the target's own: its numbers and ours.
    translated: Option<HashMap<u32, u32>>,
    asked: RefCell<HashMap<u32, bool>>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ThreadId {
    pub name: String,
    pub state: State,
    /// The call it sleeps in.
    pub syscall: Option<i64>,
    pub voluntary_switches: u64,
    pub started: u64,
    /// Where it is, or lately was; absent where that cannot be read.
    pub registers: Option<Registers>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    Running,
    #[default]
    Sleeping,
    Stopped,
    /// Ended, though the kernel has not forgotten it.
    Ended,
}

impl<'a> ThreadTable<'a> {
    pub(super) fn new(pid: u32, census: Option<&'a [ThreadRecord]>) -> Self {
        let all = || census.unwrap_or_default().iter().enumerate();
        let translated = (census.is_none() && is_elsewhere(pid)).then(|| translate(pid));
        Self {
            pid,
            census,
            numbers: all().map(|(index, record)| (record.namespace_tid, index)).collect(),
            records: all().map(|(index, record)| (record.tid, index)).collect(),
            translated,
            asked: RefCell::default(),
        }
    }

    /// The thread that the target calls so, by the number that we call it.
    pub(super) fn find(&self, number: u32) -> Option<u32> {
        if let Some(records) = self.census {
            return self.numbers.get(&number).and_then(|&index| records.get(index)).map(|record| record.tid);
        }
        if let Some(translated) = &self.translated {
            return translated.get(&number).copied();
        }
        let is_there = || fs::metadata(format!("/proc/{}/task/{number}", self.pid)).is_ok();
        self.asked.borrow_mut().entry(number).or_insert_with(is_there).then_some(number)
    }

    /// What the target calls a thread of its own.
    pub(super) fn number(&self, tid: u32) -> u32 {
        match (self.census, &self.translated) {
            (Some(records), _) => {
                self.records.get(&tid).and_then(|&index| records.get(index)).map_or(tid, |r| r.namespace_tid)
            }
            (None, Some(translated)) => {
                translated.iter().find(|(_, known)| **known == tid).map_or(tid, |(number, _)| *number)
            }
            (None, None) => tid,
        }
    }

    /// Whether the target's numbers are ours, so that they name threads of other processes too.
    pub(super) fn shares_numbers(&self) -> bool {
        match self.census {
            Some(records) => records.iter().all(|record| record.tid == record.namespace_tid),
            None => self.translated.is_none(),
        }
    }

    pub(super) fn person(&self, tid: u32) -> Option<ThreadId> {
        match self.census {
            Some(records) => records.get(*self.records.get(&tid)?).map(of_record),
            None => of_files(self.pid, tid),
        }
    }

    pub(super) fn name(&self, tid: u32) -> String {
        match self.census {
            Some(records) => {
                self.records.get(&tid).and_then(|&index| records.get(index)).map(|r| r.comm.clone())
            }
            None => procfs::name(self.pid, tid),
        }
        .unwrap_or_default()
    }
}

/// The process and the name of any thread of this machine that observer sees.
pub(super) fn anywhere(tid: u32) -> Option<(u32, String)> {
    let process = status::number(Path::new("/proc"), tid, "Tgid:")?;
    Some((process, procfs::name(process, tid).unwrap_or_default()))
}

fn of_record(record: &ThreadRecord) -> ThreadId {
    ThreadId {
        name: record.comm.clone(),
        state: match record.state {
            0 => State::Running,
            state if state & 0xf0 != 0 => State::Ended,
            state if state & 3 != 0 => State::Sleeping,
            state if state & 0xc != 0 => State::Stopped,
            _ => State::Sleeping,
        },
        syscall: record
            .syscall
            .and_then(|number| i64::try_from(number).ok())
            .filter(|_| record.is_sleeping()),
        voluntary_switches: record.voluntary_switches,
        started: record.started,
        registers: Some(Registers { ip: record.ip, sp: record.sp, bp: Some(record.bp), lr: Some(record.lr) }),
    }
}

fn of_files(pid: u32, tid: u32) -> Option<ThreadId> {
    let at = procfs::look(pid, tid)?;
    let state = match at.state {
        b'R' => State::Running,
        b'T' | b't' => State::Stopped,
        b'Z' | b'X' | b'x' => State::Ended,
        _ => State::Sleeping,
    };
    let call = at.call.filter(|_| state == State::Sleeping);
    Some(ThreadId {
        name: procfs::name(pid, tid).unwrap_or_default(),
        state,
        syscall: call.as_ref().map(|call| call.number),
        voluntary_switches: at.voluntary_switches,
        started: at.started,
        registers: call.map(|call| Registers { ip: call.ip, sp: call.sp, bp: None, lr: None }),
    })
}

/// Whether the target has numbers of its own.
fn is_elsewhere(pid: u32) -> bool {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    status::field(&status, "NSpid:").is_some_and(|numbers| numbers.split_ascii_whitespace().count() > 1)
}

/// The innermost numbers of all threads, with ours.
fn translate(pid: u32) -> HashMap<u32, u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return HashMap::new() };
    tasks
        .flatten()
        .take(MAX_THREADS)
        .filter_map(|task| {
            let tid = task.file_name().to_str()?.parse().ok()?;
            let status = fs::read(format!("/proc/{pid}/task/{tid}/status")).ok()?;
            let innermost =
                status::field(&status, "NSpid:")?.split_ascii_whitespace().next_back()?.parse().ok()?;
            Some((innermost, tid))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_target_are_translated() {
        let record = |tid, namespace_tid| ThreadRecord {
            tid,
            namespace_tid,
            comm: format!("t{tid}"),
            ..ThreadRecord::default()
        };
        let records = [record(500, 1), record(501, 7)];
        let crowd = ThreadTable::new(500, Some(&records));
        assert_eq!((crowd.find(7), crowd.find(501), crowd.number(501)), (Some(501), None, 7));
        assert_eq!((crowd.name(501), crowd.shares_numbers()), ("t501".to_owned(), false));
        assert_eq!(crowd.person(500).map(|person| person.state), Some(State::Running));
        assert_eq!(crowd.person(7), None);
    }

    #[test]
    fn without_a_census_files_tell() {
        let pid = std::process::id();
        let crowd = ThreadTable::new(pid, None);
        assert_eq!((crowd.find(pid), crowd.find(u32::MAX)), (Some(pid), None));
        assert!(crowd.person(pid).is_some_and(|person| !person.name.is_empty()));
        assert_eq!(anywhere(pid).map(|(process, _)| process), Some(pid));
    }
}
