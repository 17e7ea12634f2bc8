//! What is logged while the screen is full would tear it: kept aside, and printed when the terminal is as it was.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{dup, dup2_stderr};

/// More is forgotten from its beginning.
const MOST: u64 = 256 << 10;

/// Standard error goes to memory for as long as this lives.
pub(super) struct KeptLog {
    terminal: OwnedFd,
    kept: File,
}

impl KeptLog {
    /// Nothing where standard error is no terminal: then it tears nothing.
    pub(super) fn begin() -> io::Result<Option<Self>> {
        if !io::stderr().is_terminal() {
            return Ok(None);
        }
        let kept = File::from(memfd_create(c"observer-log", MFdFlags::MFD_CLOEXEC)?);
        let terminal = dup(io::stderr())?;
        dup2_stderr(&kept)?;
        Ok(Some(Self { terminal, kept }))
    }

    /// Keeps it small.
    pub(super) fn trim(&mut self) {
        if self.kept.metadata().is_ok_and(|metadata| metadata.len() > MOST) {
            // The place where standard error writes is shared with this file.
            let _ = self.kept.set_len(0);
            let _ = self.kept.rewind();
        }
    }
}

impl Drop for KeptLog {
    fn drop(&mut self) {
        let _ = dup2_stderr(&self.terminal);
        let mut lines = Vec::new();
        if self.kept.rewind().is_ok() && (&self.kept).take(2 * MOST).read_to_end(&mut lines).is_ok() {
            let _ = io::stderr().write_all(&lines);
        }
    }
}
