//! Prints the runtime layout in the DWARF of a Go program as JSON: what `cargo xtask go-layouts` makes its table of.

use std::io::Write as _;

use anyhow::Context as _;
use observer::runtime::go::layout::Layout;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: go_layout ELF")?;
    let elf = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let layout = Layout::from_dwarf(&elf).with_context(|| format!("no layout in {}", path.display()))?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&layout)?)?;
    Ok(())
}
