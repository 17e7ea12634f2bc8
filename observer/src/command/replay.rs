//! `observer replay`: the diagnosis of what `attach --record` wrote, again.
//!
//! Reads line by line and keeps what a `History` keeps; a line of a recording may be long, but not endless.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::outcome::{self, FailOn, Format};
use super::{attach, parse_duration, record};
use crate::diagnose::recording::{self, Line, RecordingError};
use crate::diagnose::{Diagnosis, History, diagnose};
use crate::escape::escape;
use crate::sample::Sample;
use crate::timeline::Timeline;

/// A sample of some thousand groups with deep stacks has a few MB.
const LINE_BYTES: u64 = 64 << 20;
/// A month of a sample a second, and more.
const LINES: usize = 4_000_000;

#[derive(clap::Args)]
pub struct Arguments {
    /// What `observer attach --record FILE` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How to write the diagnosis
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Exit with 3 when the verdict is this
    #[arg(long, value_enum, value_name = "VERDICT")]
    fail_on: Option<FailOn>,
    /// Judge only what was seen until then: seconds since the recording began
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    until: Option<Duration>,
    /// Write the diagnosis as a page with its pictures: one HTML file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Overwrite the file of --report
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let path = &arguments.file;
    if let Some(report) = &arguments.report {
        record::refuse_existing("--report", report, arguments.force)?;
    }
    let read = (|| {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(BufReader::with_capacity(1 << 16, file))
    })();
    let reader = read.with_context(|| format!("opening the recording {}", path.display()))?;
    let replayed = replay(reader, path, arguments.until)?;
    let diagnosis = &replayed.diagnosis;
    outcome::write(diagnosis, arguments.format)?;
    if let Some(path) = &arguments.report {
        attach::report(path, arguments.force, diagnosis, &replayed.timeline, &replayed.last)?;
    }
    Ok(outcome::code(diagnosis, arguments.fail_on))
}

struct Replayed {
    diagnosis: Diagnosis,
    timeline: Timeline,
    last: Sample,
}

fn replay(mut reader: impl BufRead, path: &Path, until: Option<Duration>) -> Result<Replayed> {
    let path = path.display();
    let mut lines = Lines { reader: &mut reader, buffer: Vec::new() };
    let first = lines.next().with_context(|| format!("reading the recording {path}"))?;
    let header = first
        .ok_or(RecordingError::Empty)
        .and_then(|first| recording::read_header(&first.text))
        .with_context(|| wrong_file(&path.to_string(), &lines.buffer))?;
    let mut target = header.target;
    let mut history = History::new();
    let mut timeline = Timeline::default();
    // Recordings of before told no time of day.
    let began_at = header.began_at.unwrap_or(0.0);
    let mut last = None;
    let until = until.map_or(f64::INFINITY, |until| until.as_secs_f64());
    for number in 2..=LINES {
        let Some(line) =
            lines.next().with_context(|| format!("reading the recording {path}, line {number}"))?
        else {
            break;
        };
        if line.text.trim().is_empty() {
            continue;
        }
        match recording::read_line(&line.text, number) {
            Ok(Line::Sample(sample)) if sample.at_seconds > until => break,
            Ok(Line::Sample(sample)) => {
                timeline.push(began_at + sample.at_seconds, &sample);
                history.push((*sample).clone());
                last = Some(*sample);
            }
            Ok(Line::Target(next)) => target = *next,
            Ok(Line::Exited) => history.mark_exited(),
            // Whoever recorded it was killed in mid-line.
            Err(_) if !line.whole => {
                let _ = writeln!(
                    io::stderr(),
                    "observer: {path}: the last line is cut short, as when a recording is broken off; left out"
                );
                break;
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "recording {path} is damaged; what lies before can be judged: head -n {} {path} > whole",
                        number - 1
                    )
                });
            }
        }
        if number == LINES {
            bail!("recording {path} has more than {LINES} lines: judge a part of it (--until TIME)");
        }
    }
    let Some(last) = last else {
        bail!("recording {path} has no sample{}", if until.is_finite() { " before --until" } else { "" });
    };
    Ok(Replayed { diagnosis: diagnose(&history, &target), timeline, last })
}

/// What to do about a file that is no recording.
fn wrong_file(path: &str, first: &[u8]) -> String {
    let remedy = if first.starts_with(&[0x1f, 0x8b]) {
        "it is compressed with gzip: gunzip it first"
    } else if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        "it is compressed with zstd: unzstd it first"
    } else {
        "make one: observer attach PID --record FILE"
    };
    format!("{} ({remedy})", escape(path))
}

struct OneLine {
    text: String,
    /// It ends as lines do.
    whole: bool,
}

struct Lines<'a, R> {
    reader: &'a mut R,
    /// What was read last.
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line; none at the end. What is not text is replaced, so that it does not parse.
    fn next(&mut self) -> Result<Option<OneLine>> {
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        self.reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut self.buffer)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let whole = self.buffer.last() == Some(&b'\n');
        if !whole && self.buffer.len() as u64 >= LINE_BYTES {
            bail!("a line of more than {} MiB is none of a recording", LINE_BYTES >> 20);
        }
        Ok(Some(OneLine { text: String::from_utf8_lossy(&self.buffer).into_owned(), whole }))
    }
}
