//! Why a file tells no layout.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("the file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("its debug information cannot be read: {0}")]
    Dwarf(#[from] gimli::Error),
    #[error("its debug information does not describe {0} (built with -ldflags=-w?)")]
    Missing(String),
    #[error("its debug information is larger than observer reads")]
    TooLarge,
    #[error("it does not name the version of Go that it was built with")]
    NoVersion,
}
