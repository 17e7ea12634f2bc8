//! Tells threads of a runtime that wait for a task from threads that are blocked: by the code that they sleep in.
//!
//! Reads where the executable lies, once; then costs a comparison a thread.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;

use crate::process::code::{RuntimeCode, Text};
use crate::process::maps::{self, Mapping};

/// The code that idle carriers sleep in.
pub(super) enum Parking {
    Nowhere,
    Ranges(Vec<Range<u64>>),
    /// Anywhere in the file of this path or inode.
    File {
        path: String,
        inode: u64,
    },
}

impl Parking {
    pub(super) fn of(pid: u32, code: &RuntimeCode) -> Self {
        if !code.parks_carriers {
            return Self::Nowhere;
        }
        match &code.text {
            Text::Absent => Self::Nowhere,
            Text::Ranges(ranges) => Self::Ranges(ranges.clone()),
            Text::Executable => {
                let exe = format!("/proc/{pid}/exe");
                let path = fs::read_link(&exe).map(|path| path.to_string_lossy().into_owned());
                Self::File {
                    path: path.unwrap_or_default(),
                    inode: fs::metadata(&exe).map_or(0, |file| file.ino()),
                }
            }
        }
    }

    /// Whether a thread that sleeps at `ip` waits for a task.
    pub(super) fn holds(&self, ip: u64, maps: &[Mapping]) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Ranges(ranges) => ranges.iter().any(|range| range.contains(&ip)),
            Self::File { path, inode } => {
                maps::at(maps, ip).is_some_and(|mapping| mapping.inode == *inode || mapping.path == *path)
            }
        }
    }
}
