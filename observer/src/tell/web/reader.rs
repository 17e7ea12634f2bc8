//! Files that a web configuration names, read with a bound, and remembered so that a change is seen.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Of the file and of each certificate file.
const MOST_BYTES: u64 = 1 << 20;

/// A file that was read, so that a change of it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    path: PathBuf,
    /// Device, inode, length, changed; absent where it could not be looked at.
    was: Option<(u64, u64, u64, i64, i64)>,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let was = fs::metadata(path).ok();
        let was = was.map(|m| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec()));
        Self { path: path.to_owned(), was }
    }

    pub(crate) fn is_current(&self) -> bool {
        *self == Self::of(&self.path)
    }
}

/// Reads files below a directory and remembers which.
pub(crate) struct Reader {
    pub(crate) directory: PathBuf,
    pub(crate) stamps: Vec<Stamp>,
}

impl Reader {
    /// Relative paths are relative to the file that names them.
    pub(crate) fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let path = self.directory.join(path);
        self.stamps.push(Stamp::of(&path));
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(io::Error::other(format!("{} is larger than 1 MiB", path.display())));
        }
        Ok(bytes)
    }
}
