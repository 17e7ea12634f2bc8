//! Finds Go in a process, and puts its reader behind the interface that all runtimes have.

use std::collections::BTreeMap;
use std::time::Duration;

use super::retain::RetainBudget;
use super::{GoError, GoReader};
use crate::process::code::{OwnAllocator, RuntimeCode, Text};
use crate::runtime::interface::{Refused, Runtime, RuntimeError, Tasks};
use crate::sample::{self, Degraded, GroupId, GroupKind, HeapUsage, Retained};
use crate::symbol::Symbolizer;

/// Looks for a Go runtime in a process of observer's PID namespace. 10 ms where there is one, a reading of the maps
/// and of some pages where there is none.
pub(crate) fn open(pid: u32) -> Result<Option<Box<dyn Runtime>>, Box<Refused>> {
    match GoReader::open(pid) {
        Ok(reader) => Ok(Some(Box::new(reader))),
        Err(GoError::NotGo { .. }) => Ok(None),
        Err(error) => Err(Box::new(Refused {
            info: match &error {
                GoError::Unsupported { version, .. } => Some(info(version, false)),
                _ => None,
            },
            degraded: unreadable(&error),
            code: code(Text::Executable),
        })),
    }
}

fn info(version: &str, stripped: bool) -> sample::Runtime {
    sample::Runtime { name: "go".to_owned(), version: Some(version.to_owned()), stripped }
}

/// Go keeps frame pointers in all of its code, in every version that is read here.
fn code(text: Text) -> RuntimeCode {
    RuntimeCode {
        text,
        keeps_frame_pointers: true,
        parks_carriers: true,
        own_allocator: Some(OwnAllocator {
            of: "Go",
            told_anyway: "what goroutines keep is in the report anyway",
        }),
    }
}

fn unreadable(error: &GoError) -> Degraded {
    let remedy = match error {
        GoError::Unsupported { .. } => {
            "use a newer observer, or build the program with its DWARF (without -ldflags=-w)"
        }
        _ => "run `observer doctor PID`, and report it with what that prints",
    };
    Degraded { feature: "goroutines".to_owned(), reason: error.to_string(), remedy: remedy.to_owned() }
}

fn unreadable_heap(error: &GoError) -> Degraded {
    Degraded {
        feature: "go_heap".to_owned(),
        reason: error.to_string(),
        remedy: "heap and stack bytes come from the resident size alone".to_owned(),
    }
}

fn failed(error: &GoError, degraded: fn(&GoError) -> Degraded) -> RuntimeError {
    match error {
        GoError::Exited { .. } => RuntimeError::Exited,
        error => RuntimeError::Unreadable(degraded(error)),
    }
}

impl Runtime for GoReader {
    fn info(&self) -> sample::Runtime {
        info(self.version(), self.stripped())
    }

    fn kind(&self) -> GroupKind {
        GroupKind::Goroutine
    }

    fn tasks(&mut self, at_seconds: f64) -> Result<Tasks, RuntimeError> {
        self.sample(at_seconds).map_err(|error| failed(&error, unreadable))
    }

    fn heap(&mut self) -> Result<Option<HeapUsage>, RuntimeError> {
        self.memory().map(Some).map_err(|error| failed(&error, unreadable_heap))
    }

    fn retained(&mut self, groups: &[GroupId], time: Duration) -> BTreeMap<GroupId, Retained> {
        self.retained(groups, RetainBudget { time, ..RetainBudget::default() })
    }

    fn symbolizer(&self) -> Option<Box<dyn Symbolizer>> {
        Some(Box::new(self.symbols()))
    }

    fn code(&self) -> RuntimeCode {
        code(Text::Ranges(self.symbols.text()))
    }
}
