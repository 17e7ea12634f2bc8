//! The terminal as a whole: a thread that draws and reads keys, and leaves the terminal as it found it, also after a
//! panic or an error.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Unit};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::Notify;

use super::draw::draw;
use super::log::KeptLog;
use super::progress::Progress;
use super::view::{Action, View};
use crate::diagnose::Diagnosis;
use crate::sample::{Sample, TargetInfo};
use crate::tell::report::{Snapshot, json};

/// How soon a new sample is seen when no key is pressed.
const LOOK: Duration = Duration::from_millis(100);
/// The clock on it goes on without samples.
const REDRAW: Duration = Duration::from_secs(1);
/// A terminal that takes nothing (Ctrl-S) is not waited for longer.
const END: Duration = Duration::from_secs(2);

/// What there is to show that was not looked at.
#[derive(Default)]
struct Inbox {
    begun: Option<(TargetInfo, Duration)>,
    samples: Vec<(TargetInfo, Arc<Sample>)>,
    diagnosis: Option<Diagnosis>,
}

/// Samples that wait to be drawn while the terminal takes nothing.
const WAITING: usize = 64;

pub struct Screen {
    inbox: Arc<Mutex<Inbox>>,
    /// Dropped to end the thread.
    open: Option<SyncSender<()>>,
    done: Receiver<()>,
}

impl Screen {
    /// Takes the terminal over. `enough` is told when its user has seen enough.
    pub fn open(interval: Duration, enough: Arc<Notify>) -> io::Result<Self> {
        let color = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let (open, closed) = sync_channel(0);
        let (finished, done) = sync_channel(1);
        // Panics restore the terminal before they print; their words come with the rest of the log.
        let terminal = ratatui::try_init()?;
        let log = KeptLog::begin().unwrap_or_default();
        let mut driver = Driver {
            terminal,
            log,
            view: View::new(interval, color),
            inbox: Arc::clone(&inbox),
            closed,
            enough,
        };
        thread::Builder::new().name("screen".to_owned()).spawn(move || {
            let result = driver.run();
            let enough = Arc::clone(&driver.enough);
            drop(driver);
            if let Err(error) = result {
                tracing::warn!(%error, "the terminal is gone: watching ends");
                enough.notify_one();
            }
            let _ = finished.try_send(());
        })?;
        Ok(Self { inbox, open: Some(open), done })
    }

    fn put(&self, put: impl FnOnce(&mut Inbox)) {
        put(&mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Screen {
    fn begin(&mut self, info: &TargetInfo, duration: Duration) {
        self.put(|inbox| inbox.begun = Some((info.clone(), duration)));
    }

    fn sample(&mut self, info: &TargetInfo, sample: &Arc<Sample>) {
        self.put(|inbox| {
            if inbox.samples.len() >= WAITING {
                inbox.samples.remove(0);
            }
            inbox.samples.push((info.clone(), Arc::clone(sample)));
        });
    }

    fn wants_diagnosis(&self) -> bool {
        true
    }

    fn diagnosis(&mut self, diagnosis: Diagnosis) {
        self.put(|inbox| inbox.diagnosis = Some(diagnosis));
    }

    fn end(&mut self) {
        if self.open.take().is_some() && self.done.recv_timeout(END).is_err() {
            ratatui::restore();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

struct Driver {
    terminal: DefaultTerminal,
    log: Option<KeptLog>,
    view: View,
    inbox: Arc<Mutex<Inbox>>,
    closed: Receiver<()>,
    enough: Arc<Notify>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        ratatui::restore();
        // Only now: its lines belong on the screen that was there before.
        self.log = None;
    }
}

impl Driver {
    fn run(&mut self) -> io::Result<()> {
        let mut drawn: Option<Instant> = None;
        while let Err(TryRecvError::Empty) = self.closed.try_recv() {
            let mut changed = self.take();
            if event::poll(LOOK)? {
                // All that is there: a key held down is not drawn once for each repeat.
                while event::poll(Duration::ZERO)? {
                    changed = true;
                    if let Event::Key(key) = event::read()? {
                        match self.view.key(key) {
                            Action::Nothing => {}
                            Action::Quit => self.enough.notify_one(),
                            Action::Write => self.write(),
                        }
                    }
                }
            }
            changed |= self.take();
            if changed || drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
                self.terminal.draw(|frame| draw(frame, &mut self.view))?;
                drawn = Some(Instant::now());
            }
            if let Some(log) = &mut self.log {
                log.trim();
            }
        }
        Ok(())
    }

    /// Takes over what is new; whether there was anything.
    fn take(&mut self) -> bool {
        let inbox = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        let any = inbox.begun.is_some() || !inbox.samples.is_empty() || inbox.diagnosis.is_some();
        if let Some((info, duration)) = inbox.begun {
            self.view.begin(&info, duration);
        }
        for (info, sample) in &inbox.samples {
            self.view.sample(info, sample);
        }
        if let Some(diagnosis) = inbox.diagnosis {
            self.view.diagnosis(diagnosis);
        }
        any
    }

    /// Writes what is shown to a file beside where observer was started, and says where.
    fn write(&mut self) {
        let Some((info, sample)) = self.view.shown() else {
            return self.view.say("nothing to write yet".to_owned());
        };
        let now = Timestamp::now();
        let now = now.round(Unit::Second).unwrap_or(now);
        let name = format!("observer-{}-{}.json", info.pid, now.strftime("%Y%m%dT%H%M%SZ"));
        let path = env::current_dir().map_or_else(|_| PathBuf::from(&name), |here| here.join(&name));
        let snapshot = Snapshot::new(info.clone(), (**sample).clone(), now.to_string());
        let written = json::snapshot(&snapshot).map_err(io::Error::from).and_then(|text| {
            OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(text.as_bytes())
        });
        let path = path.display();
        self.view.say(match written {
            Ok(()) => format!("wrote {path}"),
            Err(error) => format!("not written: {path}: {error}"),
        });
    }
}
