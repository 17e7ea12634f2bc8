//! Progress as lines: one at the start, one each ten seconds. For pipes, logs and CI.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::progress::Progress;
use crate::format;
use crate::language;
use crate::sample::{Sample, TargetInfo};
use crate::tell::report::text;

const EACH_SECONDS: f64 = 10.0;

pub struct Plain<W> {
    out: W,
    next_seconds: f64,
    seconds: f64,
}

impl<W: Write> Plain<W> {
    pub fn new(out: W) -> Self {
        Self { out, next_seconds: EACH_SECONDS, seconds: 0.0 }
    }
}

impl<W: Write> Progress for Plain<W> {
    fn begin(&mut self, info: &TargetInfo, duration: Duration) {
        self.seconds = duration.as_secs_f64();
        // Progress that cannot be shown is no reason to stop.
        let _ = writeln!(self.out, "observing {} for {:.0} s", text::target(info), self.seconds);
    }

    fn sample(&mut self, _: &TargetInfo, sample: &Arc<Sample>) {
        if sample.at_seconds >= self.next_seconds && sample.at_seconds < self.seconds - 1.0 {
            self.next_seconds += EACH_SECONDS;
            let _ = writeln!(
                self.out,
                "  {:.0} s of {:.0} s: {}",
                sample.at_seconds,
                self.seconds,
                headline(sample)
            );
        }
    }

    fn end(&mut self) {
        let _ = self.out.flush();
    }
}

/// `resident 83 MiB, 1,231 goroutines, 9 threads`.
fn headline(sample: &Sample) -> String {
    let mut text = format!("resident {}", format::bytes(sample.memory.resident_bytes as f64));
    if let Some(limit) = sample.memory.limit_bytes {
        let _ = write!(text, " of {}", format::bytes(limit as f64));
    }
    for (kind, count) in sample.totals.tasks() {
        let _ = write!(text, ", {} {}s", format::count(count), language::of(kind).noun());
    }
    let _ = write!(text, ", {} threads", format::count(sample.totals.threads));
    text
}
