//! What the screen shows, and what keys do to it. Knows no terminal: drawn by `draw`, fed by `screen` or a test.

use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rates::Rates;
use super::rows::{Row, Sort, rows};
use crate::diagnose::Diagnosis;
use crate::sample::{Group, GroupId, Sample, TargetInfo};

/// Points of the memory curve; when they are too many, every second one goes.
const CURVE: usize = 2_000;
/// Characters of a filter.
const FILTER: usize = 60;

/// What a key asks of whoever drives the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Stop watching.
    Quit,
    /// Write the sample that is shown to a file.
    Write,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Table,
    Filter,
    Help,
}

/// A moment of the curve: seconds, resident bytes, heap in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub seconds: f64,
    pub resident: u64,
    pub heap: Option<u64>,
}

#[derive(Debug, Default)]
pub struct View {
    pub(super) info: TargetInfo,
    pub(super) duration: Duration,
    pub(super) interval: Duration,
    pub(super) color: bool,
    pub(super) curve: Vec<At>,
    pub(super) latest: Option<Arc<Sample>>,
    /// What is shown: the latest, or the one at which the view was paused.
    pub(super) sample: Option<Arc<Sample>>,
    pub(super) diagnosis: Option<Diagnosis>,
    pub(super) rows: Vec<Row>,
    rates: Rates,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    pub(super) paused: bool,
    pub(super) stack_shown: bool,
    pub(super) stack_scroll: u16,
    /// Followed when rows change places; where nothing was selected yet, the first row is.
    selected: Option<GroupId>,
    place: usize,
    /// Rows of the table that fit, as of the last drawing.
    pub(super) page: usize,
    pub(super) message: Option<String>,
}

impl View {
    pub fn new(interval: Duration, color: bool) -> Self {
        Self { interval, color, page: 1, ..Self::default() }
    }

    pub fn begin(&mut self, info: &TargetInfo, duration: Duration) {
        self.info = info.clone();
        self.duration = duration;
    }

    pub fn sample(&mut self, info: &TargetInfo, sample: &Arc<Sample>) {
        self.info = info.clone();
        self.rates.push(sample);
        self.curve.push(At {
            seconds: sample.at_seconds,
            resident: sample.memory.resident_bytes,
            heap: sample.memory.heap.as_ref().map(|heap| heap.heap_in_use_bytes),
        });
        if self.curve.len() > CURVE {
            let mut place = 0_usize;
            self.curve.retain(|_| {
                place += 1;
                !place.is_multiple_of(2)
            });
        }
        self.latest = Some(Arc::clone(sample));
        if !self.paused {
            self.sample = Some(Arc::clone(sample));
            self.arrange();
        }
    }

    pub fn diagnosis(&mut self, diagnosis: Diagnosis) {
        if !self.paused {
            self.diagnosis = Some(diagnosis);
        }
    }

    /// A line about what was just done.
    pub fn say(&mut self, message: String) {
        self.message = Some(message);
    }

    /// The sample that is shown, for whoever writes it to a file.
    pub fn shown(&self) -> Option<(&TargetInfo, &Arc<Sample>)> {
        Some((&self.info, self.sample.as_ref()?))
    }

    pub fn key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        self.message = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'C')) {
            return Action::Quit;
        }
        // Alt-p is no p, nor text for a filter.
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            return Action::Nothing;
        }
        match self.mode {
            Mode::Help => self.mode = Mode::Table,
            Mode::Filter => self.filter_key(key.code),
            Mode::Table => return self.table_key(key.code),
        }
        Action::Nothing
    }

    fn filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < FILTER && !c.is_control() => {
                self.filter.push(c);
            }
            _ => {}
        }
        self.arrange();
    }

    fn table_key(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('w') => return Action::Write,
            KeyCode::Esc if self.stack_shown => self.stack_shown = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Up | KeyCode::Char('k') => self.select(self.place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.place.saturating_add(1)),
            KeyCode::PageUp => self.select(self.place.saturating_sub(self.page)),
            KeyCode::PageDown => self.select(self.place.saturating_add(self.page)),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Enter => {
                self.stack_shown = !self.stack_shown;
                self.stack_scroll = 0;
                // From now on it is this group, wherever it goes.
                self.select(self.place);
            }
            KeyCode::Char('[') => self.stack_scroll = self.stack_scroll.saturating_sub(1),
            KeyCode::Char(']') => self.stack_scroll = self.stack_scroll.saturating_add(1),
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.reversed = false;
                self.arrange();
            }
            KeyCode::Char('r') => {
                self.reversed = !self.reversed;
                self.arrange();
            }
            KeyCode::Char('p') => {
                self.paused = !self.paused;
                self.sample.clone_from(&self.latest);
                self.arrange();
            }
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            _ => {}
        }
        Action::Nothing
    }

    pub(super) fn selected_row(&self) -> usize {
        self.place
    }

    /// The group whose stack is asked for.
    pub(super) fn selected_group(&self) -> Option<&Group> {
        let id = self.rows.get(self.place)?.id;
        self.sample.as_ref()?.groups.iter().find(|group| group.id == id)
    }

    fn select(&mut self, place: usize) {
        let place = place.min(self.rows.len().saturating_sub(1));
        if place != self.place {
            self.stack_scroll = 0;
        }
        self.place = place;
        self.selected = self.rows.get(place).map(|row| row.id);
    }

    fn arrange(&mut self) {
        if let Some(sample) = &self.sample {
            self.rows = rows(sample, &self.rates, self.sort, self.reversed, &self.filter);
        }
        let found = self.selected.and_then(|id| self.rows.iter().position(|row| row.id == id));
        self.place = match (found, self.selected) {
            (Some(place), _) => place,
            // It is gone: what took its place.
            (None, Some(_)) => self.place.min(self.rows.len().saturating_sub(1)),
            (None, None) => 0,
        };
    }
}
