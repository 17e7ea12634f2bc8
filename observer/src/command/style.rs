//! How output is written, decided from where it goes and what its reader asked for.

use std::env;
use std::io::{self, IsTerminal as _};

use crate::tell::report::Style;

/// Colour on a terminal, unless `NO_COLOR` (no-color.org) or a dumb terminal speaks against it; its own width.
pub(super) fn of_stdout() -> Style {
    let terminal = io::stdout().is_terminal();
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || env::var_os("TERM").is_some_and(|term| term == "dumb");
    let width = terminal
        .then(terminal_size::terminal_size)
        .flatten()
        .map_or(Style::default().width, |(width, _)| usize::from(width.0).max(40));
    Style { color: terminal && !refused, width }
}
