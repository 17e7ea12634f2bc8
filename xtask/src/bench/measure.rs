//! CPU time and peak memory of other programs, and rows of the table.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::{SysconfVar, sysconf};

use crate::interrupt::interrupted;
use crate::run::Background;

const POLL: Duration = Duration::from_millis(2);

/// What a program that ran to its end used.
pub struct Used {
    pub cpu_seconds: f64,
    pub peak_bytes: f64,
}

/// Runs a program to its end. No other child may end meanwhile.
pub fn run(name: &'static str, command: &mut Command) -> Result<Used> {
    let before = children_seconds()?;
    let mut program = Background::start(name, command)?;
    let pid = program.child().id();
    let mut peak_bytes = 0.0;
    let status = loop {
        // The peak of a program that has ended is gone with it: the last one seen.
        peak_bytes = self::peak_bytes(pid).unwrap_or(peak_bytes);
        if let Some(status) = program.child().try_wait()? {
            break status;
        }
        if interrupted() {
            bail!("interrupted");
        }
        thread::sleep(POLL);
    };
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(Used { cpu_seconds: children_seconds()? - before, peak_bytes })
}

fn children_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

pub fn peak_bytes(pid: u32) -> Option<f64> {
    status_bytes(pid, "VmHWM:")
}

pub fn resident_bytes(pid: u32) -> Option<f64> {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

/// CPU seconds of a program that runs, in ticks of a hundredth.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<f64>().ok());
    let ticks = next().zip(next()).with_context(|| format!("{path} has no CPU times"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok((ticks.0 + ticks.1) / per_second as f64)
}

/// What a figure may be.
pub enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for comparison.
    None,
}

pub struct Row {
    what: String,
    values: Vec<f64>,
    unit: Unit,
    budget: Budget,
    /// Why it could not be measured.
    left_out: Option<String>,
}

#[derive(Clone, Copy)]
pub enum Unit {
    Seconds,
    Milliseconds,
    Percent,
    Times,
    /// As `Times`, where thousandths matter.
    Thousandths,
    MiB,
    Count,
}

impl Row {
    /// `values` in the unit; any order.
    pub fn new(what: impl Into<String>, mut values: Vec<f64>, unit: Unit, budget: Budget) -> Self {
        values.sort_by(f64::total_cmp);
        Self { what: what.into(), values, unit, budget, left_out: None }
    }

    /// What could not be measured, and why.
    pub fn left_out(what: impl Into<String>, why: &anyhow::Error) -> Self {
        let why = format!("{why:#}").replace(['\n', '|'], " ");
        Self { left_out: Some(why), ..Self::new(what, Vec::new(), Unit::Count, Budget::None) }
    }

    /// By the middle half of the values: when that has the budget in it, nobody can tell.
    fn verdict(&self) -> &'static str {
        let Some(last) = self.values.len().checked_sub(1) else { return "not measured" };
        let [low, high] = [self.values[last / 4], self.values[last - last / 4]];
        let [low_met, high_met] = match self.budget {
            Budget::AtMost(limit) => [low <= limit, high <= limit],
            Budget::AtLeast(limit) => [low >= limit, high >= limit],
            Budget::None => return "",
        };
        match (low_met, high_met) {
            (true, true) => "met",
            (false, false) => "not met",
            _ => "cannot tell (noise)",
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.3} s"),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Percent => format!("{value:.2} %"),
            Self::Times => format!("{value:.2}x"),
            Self::Thousandths => format!("{value:.3}x"),
            Self::MiB => format!("{value:.0} MiB"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.left_out {
            return write!(f, "| {} | left out: {why} |  |  |", self.what);
        }
        let show = |value: Option<&f64>| value.map_or_else(|| "?".to_owned(), |value| self.unit.show(*value));
        write!(f, "| {} | {}", self.what, show(self.values.get(self.values.len() / 2)))?;
        if self.values.len() > 1 {
            write!(f, " ({} to {})", show(self.values.first()), show(self.values.last()))?;
        }
        let budget = match self.budget {
            Budget::AtMost(limit) => format!("at most {}", self.unit.show(limit)),
            Budget::AtLeast(limit) => format!("at least {}", self.unit.show(limit)),
            Budget::None => String::new(),
        };
        write!(f, " | {budget} | {} |", self.verdict())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_says_why() {
        let why = anyhow::anyhow!("no such file").context("bpftrace -e 'a | b'");
        let row = Row::left_out("loop beside bpftrace", &why).to_string();
        assert_eq!(row, "| loop beside bpftrace | left out: bpftrace -e 'a   b': no such file |  |  |");
    }

    #[test]
    fn a_spread_across_the_budget_cannot_tell() {
        let verdict = |values: &[f64], budget| Row::new("", values.to_vec(), Unit::Times, budget).verdict();
        assert_eq!(verdict(&[1.0, 1.02, 1.05, 3.0, 0.1], Budget::AtMost(1.1)), "met");
        assert_eq!(verdict(&[1.2, 1.3, 1.25, 1.0], Budget::AtMost(1.1)), "cannot tell (noise)");
        assert_eq!(verdict(&[1.2, 1.3, 1.25], Budget::AtMost(1.1)), "not met");
        assert_eq!(verdict(&[0.98, 1.0, 1.01], Budget::AtLeast(0.97)), "met");
        assert_eq!(verdict(&[], Budget::AtLeast(0.97)), "not measured");
    }
}
