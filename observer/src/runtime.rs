//! The goroutine side of a target: a reader where the target is a Go program, a reason where it cannot be read.

pub mod detect;
pub mod go;
pub mod retention;
pub mod tasks;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::process::Exited;
use crate::sample::{Degraded, GroupId, Retained, Runtime, Sample, TargetInfo};
use go::retain::RetainBudget;
use go::symbol::GoSymbols;
use go::{GoError, GoReader};

pub enum Goroutines {
    Read(Box<GoReader>),
    /// A Go program that cannot be read, and why.
    Refused(Degraded),
    NotGo,
}

impl Goroutines {
    /// Looks for a Go runtime in `pid`, and notes in `info` which runtime it has.
    pub fn open(pid: u32, info: &mut TargetInfo) -> Self {
        match GoReader::open(pid) {
            Ok(reader) => {
                info.runtime = Runtime {
                    name: "go".to_owned(),
                    version: Some(reader.version().to_owned()),
                    stripped: reader.stripped(),
                };
                Self::Read(Box::new(reader))
            }
            Err(GoError::NotGo { .. }) => {
                info.runtime = detect::of(pid);
                Self::NotGo
            }
            Err(error) => {
                if let GoError::Unsupported { version, .. } = &error {
                    info.runtime =
                        Runtime { name: "go".to_owned(), version: Some(version.clone()), stripped: false };
                }
                Self::Refused(unreadable(&error))
            }
        }
    }

    pub fn is_go(&self) -> bool {
        !matches!(self, Self::NotGo)
    }

    /// Names Go code, where the target has some that can be read.
    pub fn symbols(&self) -> Option<GoSymbols> {
        match self {
            Self::Read(reader) => Some(reader.symbols()),
            Self::Refused(_) | Self::NotGo => None,
        }
    }

    /// Fills in groups, totals and the Go part of the memory.
    pub fn sample_into(&mut self, sample: &mut Sample) -> Result<(), Exited> {
        let reader = match self {
            Self::Read(reader) => reader,
            Self::Refused(degraded) => {
                sample.degraded.push(degraded.clone());
                return Ok(());
            }
            Self::NotGo => return Ok(()),
        };
        match reader.sample(sample.at_seconds) {
            Ok(read) => {
                sample.groups.extend(read.groups);
                sample.totals.goroutines = Some(read.goroutines);
                sample.totals.groups += read.groups_total;
                sample.totals.members_left_out += read.members_left_out;
                sample.losses.extend(read.losses);
                sample.degraded.extend(read.degraded);
            }
            Err(GoError::Exited { .. }) => return Err(Exited),
            Err(error) => sample.degraded.push(unreadable(&error)),
        }
        match reader.memory() {
            Ok(memory) => sample.memory.go = Some(memory),
            Err(GoError::Exited { .. }) => return Err(Exited),
            Err(error) => sample.degraded.push(go_heap(&error)),
        }
        Ok(())
    }

    /// What members of `groups` keep on the heap.
    pub fn retained(&mut self, groups: &[GroupId], time: Duration) -> BTreeMap<GroupId, Retained> {
        match self {
            Self::Read(reader) => reader.retained(groups, RetainBudget { time, ..RetainBudget::default() }),
            Self::Refused(_) | Self::NotGo => BTreeMap::new(),
        }
    }
}

pub fn unreadable(error: &GoError) -> Degraded {
    let remedy = match error {
        GoError::Unsupported { .. } => {
            "use a newer observer, or build the program with its DWARF (without -ldflags=-w)"
        }
        _ => "run `observer doctor PID`, and report it with what that prints",
    };
    Degraded { feature: "goroutines".to_owned(), reason: error.to_string(), remedy: remedy.to_owned() }
}

pub fn go_heap(error: &GoError) -> Degraded {
    Degraded {
        feature: "go_heap".to_owned(),
        reason: error.to_string(),
        remedy: "heap and stack bytes come from the resident size alone".to_owned(),
    }
}
