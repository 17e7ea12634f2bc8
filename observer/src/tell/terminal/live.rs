//! The view that redraws itself in place: the memory curve, the groups that grow, the time to go.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use terminal_size::{Height, Width, terminal_size};

use super::Progress;
use crate::diagnose::{number, site};
use crate::sample::{Group, GroupId, Sample, TargetInfo};
use crate::tell::report::escape::escape;
use crate::tell::report::text::{self, sparkline};

/// Points of the memory curve that are kept.
const CURVE: usize = 4096;
/// Groups whose first size is remembered.
const REMEMBERED: usize = 10_000;
const ROWS: usize = 8;

pub struct LiveView<W> {
    out: W,
    seconds: f64,
    resident: Vec<u64>,
    /// When a group was first seen, and how large it was.
    first: HashMap<GroupId, (f64, u64)>,
    drawn_lines: usize,
}

impl<W: Write> LiveView<W> {
    pub fn new(out: W) -> Self {
        Self { out, seconds: 0.0, resident: Vec::new(), first: HashMap::new(), drawn_lines: 0 }
    }

    fn erase(&mut self) {
        if self.drawn_lines > 0 {
            let _ = write!(self.out, "\x1b[{}A\r\x1b[J", self.drawn_lines);
            self.drawn_lines = 0;
        }
    }

    fn draw(&mut self, lines: &[String]) {
        let (width, height) =
            terminal_size().map_or((80, 24), |(Width(width), Height(height))| (width.max(20), height.max(4)));
        self.erase();
        // What scrolled off the screen could not be erased again.
        let shown = &lines[..lines.len().min(usize::from(height) - 1)];
        let mut text = String::new();
        for line in shown {
            text.extend(line.chars().take(usize::from(width) - 1));
            text.push('\n');
        }
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
        self.drawn_lines = shown.len();
    }

    fn growth_per_second(&self, group: &Group, now: f64) -> f64 {
        let Some(&(since, count)) = self.first.get(&group.id) else { return 0.0 };
        let elapsed = now - since;
        if elapsed < 0.5 { 0.0 } else { (group.count as f64 - count as f64) / elapsed }
    }

    fn lines(&self, info: &TargetInfo, sample: &Sample) -> Vec<String> {
        let now = sample.at_seconds;
        let mut lines = vec![
            format!("{}   {}", text::target(info), bar(now, self.seconds)),
            String::new(),
            format!("  {}", headline(sample)),
            format!("  {}", sparkline(&self.resident, 60)),
            String::new(),
        ];
        let mut rows: Vec<(f64, &Group)> =
            sample.groups.iter().map(|group| (self.growth_per_second(group, now), group)).collect();
        rows.sort_by(|left, right| right.0.total_cmp(&left.0).then(right.1.count.cmp(&left.1.count)));
        lines.push(format!("  {:>9}  {:>9}  {:<16}  at", "count", "growth", "waits for"));
        for (growth, group) in rows.into_iter().take(ROWS) {
            lines.push(row(growth, group));
        }
        lines.push(String::new());
        lines.push("  Ctrl-C ends it now, with the verdict.".to_owned());
        lines
    }
}

impl<W: Write> Progress for LiveView<W> {
    fn begin(&mut self, info: &TargetInfo, duration: Duration) {
        self.seconds = duration.as_secs_f64();
        self.draw(&[format!("{}   attached, first sample ...", text::target(info))]);
    }

    fn sample(&mut self, info: &TargetInfo, sample: &Sample) {
        for group in &sample.groups {
            if self.first.len() < REMEMBERED {
                self.first.entry(group.id).or_insert((sample.at_seconds, group.count));
            }
        }
        if self.resident.len() < CURVE {
            self.resident.push(sample.memory.resident_bytes);
        }
        let lines = self.lines(info, sample);
        self.draw(&lines);
    }

    fn end(&mut self) {
        self.erase();
        let _ = self.out.flush();
    }
}

/// `resident 83 MiB, 1,231 goroutines, 9 threads`.
pub fn headline(sample: &Sample) -> String {
    let mut text = format!("resident {}", number::bytes(sample.memory.resident_bytes as f64));
    if let Some(limit) = sample.memory.limit_bytes {
        let _ = write!(text, " of {}", number::bytes(limit as f64));
    }
    if let Some(goroutines) = sample.totals.goroutines {
        let _ = write!(text, ", {} goroutines", number::count(goroutines));
    }
    let _ = write!(text, ", {} threads", number::count(sample.totals.threads));
    text
}

fn row(growth: f64, group: &Group) -> String {
    let growth = if growth.abs() < 0.05 { "steady".to_owned() } else { format!("{growth:+.1}/s") };
    let reason = if group.wait_reason.is_empty() { &group.state } else { &group.wait_reason };
    let place =
        site::place(group).map_or("(no stack)".to_owned(), |place| escape(&site::words(&place)).into_owned());
    let reason: String = escape(reason).chars().take(24).collect();
    format!("  {:>9}  {growth:>9}  {reason:<16}  {place}", number::count(group.count))
}

fn bar(now: f64, seconds: f64) -> String {
    const CELLS: f64 = 20.0;
    let full = (now / seconds * CELLS).clamp(0.0, CELLS).round() as usize;
    let to_go = (seconds - now).max(0.0);
    format!("{}{} {to_go:.0} s to go", "█".repeat(full), "░".repeat(CELLS as usize - full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Frame, Memory, Totals};

    fn sample(at_seconds: f64, count: u64) -> Sample {
        let frame = Frame {
            function: "main.fetch\x1b[2J".to_owned(),
            file: Some("/srv/checkout/quote.go".to_owned()),
            line: Some(41),
            ..Frame::default()
        };
        let group = Group {
            count,
            state: "waiting".to_owned(),
            wait_reason: "chan send".to_owned(),
            frames: vec![frame].into(),
            ..Group::default()
        };
        Sample {
            at_seconds,
            groups: vec![group],
            memory: Memory { resident_bytes: 83 << 20, ..Memory::default() },
            totals: Totals { goroutines: Some(count + 3), threads: 9, ..Totals::default() },
            ..Sample::default()
        }
    }

    #[test]
    fn shows_what_grows_and_clears_it_at_the_end() {
        let mut view = LiveView::new(Vec::new());
        let info = TargetInfo { comm: "checkout".to_owned(), pid: 42, ..TargetInfo::default() };
        view.begin(&info, Duration::from_secs(60));
        view.sample(&info, &sample(0.0, 100));
        view.sample(&info, &sample(10.0, 260));
        view.end();
        let shown = String::from_utf8(view.out).expect("text");
        assert!(shown.contains("+16.0/s"), "{shown}");
        assert!(
            shown.contains("quote.go:41") && shown.contains("83.0 MiB") && shown.contains("50 s to go"),
            "{shown}"
        );
        assert!(!shown.contains("fetch\x1b[2J"), "what a target is called must not steer the terminal");
        assert!(shown.ends_with("\x1b[J"), "{shown:?}");
    }
}
