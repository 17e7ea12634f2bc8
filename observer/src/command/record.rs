//! `attach --record FILE`: each sample on a line, written by a thread of its own, so that a slow or full disk does not
//! hold up sampling. What could not be written is said once when it happens and once at the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Usage;
use crate::diagnose::recording;
use crate::sample::{Sample, TargetInfo};

/// Samples that wait for the disk.
const QUEUE: usize = 32;
/// How long the end waits for it.
const END: Duration = Duration::from_secs(10);

enum Line {
    Header(Box<TargetInfo>, Option<f64>),
    Sample(Arc<Sample>),
    Exited,
}

pub(super) struct Recorder {
    path: PathBuf,
    target: TargetInfo,
    lines: SyncSender<Line>,
    result: Receiver<io::Result<()>>,
    /// Lines that the queue could not take.
    skipped: u64,
}

/// Said before anything is observed, not after a minute of it.
pub(super) fn refuse_existing(flag: &str, path: &Path, force: bool) -> Result<(), Usage> {
    if !force && path.exists() {
        return Err(Usage(format!(
            "{flag} {}: the file exists; name another one, or add --force to overwrite it",
            path.display()
        )));
    }
    Ok(())
}

/// A file that is begun, in place of one that is there only when that was asked for.
pub(super) fn create(path: &Path, force: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path)
}

impl Recorder {
    /// Begins the file with its header.
    pub(super) fn begin(path: &Path, force: bool, target: &TargetInfo, began_at: f64) -> Result<Self> {
        let failed = || format!("recording to {}", path.display());
        let mut file = create(path, force).with_context(failed)?;
        let (lines, queued) = sync_channel(QUEUE);
        let (done, result) = sync_channel(1);
        let name = path.display().to_string();
        thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || {
                let written = write(&mut file, &queued);
                if let Err(error) = &written {
                    tracing::warn!(path = name, %error, "the recording stops here; observing goes on");
                }
                // Whoever records does not wait for one that has stopped.
                drop(queued);
                let _ = done.try_send(written);
            })
            .with_context(failed)?;
        let mut recorder = Self { path: path.to_owned(), target: target.clone(), lines, result, skipped: 0 };
        recorder.send(Line::Header(Box::new(target.clone()), Some(began_at)));
        Ok(recorder)
    }

    pub(super) fn sample(&mut self, target: &TargetInfo, sample: &Arc<Sample>) {
        if *target != self.target {
            self.target = target.clone();
            self.send(Line::Header(Box::new(target.clone()), None));
        }
        self.send(Line::Sample(Arc::clone(sample)));
    }

    /// Waits for the last lines; an error when the recording is not whole.
    pub(super) fn end(mut self, exited: bool) -> Result<()> {
        if exited {
            self.send(Line::Exited);
        }
        drop(self.lines);
        let path = self.path.display();
        match self.result.recv_timeout(END) {
            Ok(Ok(())) if self.skipped == 0 => Ok(()),
            Ok(Ok(())) => bail!(
                "recording {path}: {} lines are missing: the disk was too slow for --interval",
                self.skipped
            ),
            Ok(Err(error)) => Err(error).with_context(|| {
                format!("recording {path}: it is not whole (what is there can be replayed)")
            }),
            Err(_) => bail!("recording {path}: the disk does not answer; the recording may not be whole"),
        }
    }

    fn send(&mut self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.skipped += 1;
        }
    }
}

/// Each line is handed to the kernel whole: what was recorded survives observer being killed.
fn write(file: &mut File, lines: &Receiver<Line>) -> io::Result<()> {
    for line in lines {
        let mut text = match line {
            Line::Header(target, began_at) => recording::header_at(&target, began_at)?,
            Line::Sample(sample) => recording::line(&sample)?,
            Line::Exited => recording::exited()?,
        };
        text.push('\n');
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}
