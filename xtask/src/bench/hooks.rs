//! What the kernel half costs: observer's own examples measure it, this reads what they print.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::measure::{Budget, Row, Unit};
use crate::build;
use crate::run::{self, Clock};

/// The loops of the example `kernel_cost`, in its order, with the budgets of a target and of a neighbour.
const LOOPS: [(&str, f64, f64); 4] = [
    ("futex ping-pong", 1.1, 1.02),
    ("fault loop (map, touch, unmap 16 KiB)", 1.1, 1.02),
    ("mmap, munmap", 1.1, 1.02),
    ("getppid", 1.1, 1.02),
];

pub fn rows(clock: Clock, quick: bool) -> Result<Vec<Row>> {
    let mut command = example("kernel_cost", clock)?;
    command.args(["--", "default"]).env("ROUNDS", if quick { "3" } else { "11" });
    clock.say("measure", "what the default hooks cost a target and its neighbour");
    let text = printed(&mut command)?;
    let row =
        text.lines().find(|line| line.starts_with("| default")).context("kernel_cost printed no row")?;
    let cells = cells(row);
    let mut rows = Vec::new();
    for ((name, target, neighbour), pair) in LOOPS.into_iter().zip(cells.chunks(2)) {
        for (who, limit, cell) in [("target", target, pair.first()), ("neighbour", neighbour, pair.get(1))] {
            let values = cell.cloned().unwrap_or_default();
            rows.push(Row::new(
                format!("{name}, {who}: CPU with the default hooks by without"),
                values,
                Unit::Times,
                Budget::AtMost(limit),
            ));
        }
    }
    Ok(rows)
}

/// What a target pays at a context switch above an empty program at the same hook.
pub fn switches(clock: Clock, quick: bool) -> Result<Vec<Row>> {
    let mut command = example("switch_cost", clock)?;
    command.env("ROUNDS", if quick { "5" } else { "21" });
    clock.say("measure", "what a target pays at a context switch above an empty program there");
    let text = printed(&mut command)?;
    let mut rows = Vec::new();
    // Rows begin with a number of targets; the table's head does not.
    let is_row = |line: &&str| {
        line.strip_prefix("| ").is_some_and(|row| row.starts_with(|c: char| c.is_ascii_digit()))
    };
    for line in text.lines().filter(is_row) {
        let mut words = line.trim_matches([' ', '|']).split('|').map(str::trim);
        let (targets, threads) = words.next().zip(words.next()).context("switch_cost printed no row")?;
        let values = |cell: Option<&str>| cell.map_or_else(Vec::new, numbers);
        let scene = format!("futex ping-pong, target with {threads} threads, one of {targets}");
        let [above, floor] = [values(words.next()), values(words.next())];
        let what = format!("{scene}: CPU by that with an empty program at sched_switch");
        rows.push(Row::new(what, above, Unit::Thousandths, Budget::AtMost(1.02)));
        let what = format!("{scene}: with the empty program by without");
        rows.push(Row::new(what, floor, Unit::Thousandths, Budget::None));
    }
    Ok(rows)
}

/// What everybody pays beside `observer run` on a machine that is busy enough for windows.
pub fn windows(clock: Clock, quick: bool) -> Result<Vec<Row>> {
    let mut command = example("window_cost", clock)?;
    command.env("ROUNDS", if quick { "3" } else { "7" });
    clock.say("measure", "what everybody pays beside hooks that are there in windows");
    let text = printed(&mut command)?;
    let rows = text.lines().filter_map(|line| line.trim_matches([' ', '|']).split_once('|'));
    Ok(rows
        .map(|(name, values)| {
            let what = format!("{}: CPU with hooks in windows (run) by without", name.trim());
            Row::new(what, numbers(values), Unit::Thousandths, Budget::AtMost(1.015))
        })
        .collect())
}

fn numbers(cell: &str) -> Vec<f64> {
    let words = cell.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The numbers of each cell behind the first; a cell is `1.02 (0.94 to 1.25)`.
fn cells(row: &str) -> Vec<Vec<f64>> {
    row.trim_matches([' ', '|']).split('|').skip(1).map(numbers).collect()
}

pub fn census(clock: Clock) -> Result<Row> {
    let mut command = example("census_cost", clock)?;
    clock.say("measure", "a census of 10,000 threads");
    let values = printed(&mut command)?.lines().filter_map(|line| line.trim().parse().ok()).collect();
    Ok(Row::new("census of 10,000 threads: CPU", values, Unit::Milliseconds, Budget::AtMost(50.0)))
}

fn example(name: &str, clock: Clock) -> Result<Command> {
    let mut build = build::cargo();
    build.args(["build", "--release", "--package", "observer", "--example", name]);
    clock.run_logged("build", &format!("the example {name}"), &mut build)?;
    let mut command = build::cargo();
    command.args(["run", "--quiet", "--release", "--package", "observer", "--example", name]);
    Ok(command)
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", run::shown(command), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_of_a_row() {
        let row = "| default: waits and growth | 1.02 (0.94 to 1.25) | 1.03 (0.99 to 1.10) |";
        assert_eq!(super::cells(row), [[1.02, 0.94, 1.25], [1.03, 0.99, 1.1]]);
    }
}
