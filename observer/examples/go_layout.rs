//! Prints the runtime layout in the DWARF of a Go program as JSON: what `cargo xtask go-layouts` makes its table of.

use std::fs::{self, File};
use std::io::Write as _;

use anyhow::Context as _;
use observer::runtime::go::layout::Layout;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: go_layout ELF")?;
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut layout = Layout::from_dwarf(&file).with_context(|| format!("no layout in {}", path.display()))?;
    layout.wait_reasons = Layout::wait_reasons_of(&fs::read(&path)?).unwrap_or_default();
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&layout)?)?;
    Ok(())
}
