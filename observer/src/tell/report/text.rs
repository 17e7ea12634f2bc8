//! The page an engineer pastes into an incident: the verdict first, then where, then why, then what was not seen.
//!
//! Takes a diagnosis or a snapshot, gives text wrapped to the style's width.

use std::fmt::Write as _;

use super::allocated;
use super::names;
use super::{Snapshot, Style};
use crate::diagnose::{Bystander, Culprit, Diagnosis, Verdict, site};
use crate::escape::escape;
use crate::format::{bytes, bytes_per_second, count, counted, duration, percent};
use crate::language;
use crate::sample::{Degraded, Frame, Group, Losses, ObjectKind, Place, WaitsOn};

mod deadlocks;
mod growth;
mod who;

use growth::growth_sites;
pub(crate) use growth::{growth_place, kernel_words};
pub(crate) use who::runtime;
pub use who::target;

/// Columns of the label, with its margin.
const LABEL: usize = 16;
/// Frames shown of a stack; what lies between is counted.
const FRAMES: usize = 12;
/// Groups of a snapshot whose stacks are shown.
const STACKS: usize = 5;
/// Groups of a snapshot in the table.
const ROWS: usize = 30;

/// A whole diagnosis.
pub fn diagnosis(diagnosis: &Diagnosis, style: Style) -> String {
    let mut page = Page::new(style);
    let ended = if diagnosis.exited { ", exited" } else { "" };
    page.raw(&style.strong(&format!(
        "{}, {}, {}{ended}",
        target(&diagnosis.target),
        duration(diagnosis.window_seconds),
        counted(diagnosis.samples, "sample")
    )));
    page.raw("");
    let (word, painted) = match diagnosis.verdict {
        Verdict::Leak => ("LEAK", style.alarm("LEAK")),
        Verdict::Growing => ("GROWING", style.warning("GROWING")),
        Verdict::Stable => ("STABLE", style.good("STABLE")),
        Verdict::InsufficientData => ("NOT ENOUGH DATA", style.warning("NOT ENOUGH DATA")),
    };
    page.hanging(&painted, word.len() + 2, &capital(&diagnosis.sentence));
    page.hanging("", word.len() + 2, &diagnosis.second_sentence);
    page.deadlocks(&diagnosis.deadlocks);
    for (place, culprit) in diagnosis.culprits.iter().enumerate() {
        page.raw("");
        if diagnosis.culprits.len() > 1 {
            page.raw(&format!("  {}", style.strong(&format!("{}. {}", place + 1, headline(culprit)))));
        }
        page.culprit(culprit);
    }
    page.raw("");
    if diagnosis.samples > 0 {
        page.memory(diagnosis);
    }
    if !diagnosis.growth_sites.is_empty() && diagnosis.verdict != Verdict::Stable {
        let period = diagnosis.growth.as_ref().map_or(0, |growth| growth.sample_period);
        page.lines("first touched", &growth_sites(&diagnosis.growth_sites, period));
    }
    page.lines("not freed", &allocated::lines(diagnosis));
    page.lines("kernel", &kernel_words(diagnosis));
    let steady: Vec<String> = diagnosis.not_the_cause.iter().map(bystander).collect();
    page.lines("not the cause", &steady);
    page.lines("note", &diagnosis.notes);
    page.losses(&diagnosis.losses);
    page.degraded(&diagnosis.degraded);
    page.text
}

/// One moment: a table of groups, then the stacks of the largest.
pub fn snapshot(snapshot: &Snapshot, style: Style) -> String {
    let mut page = Page::new(style);
    page.raw(&style.strong(&format!(
        "{}, {}, taken in {}",
        target(&snapshot.target),
        escape(&snapshot.taken_at),
        milliseconds(snapshot.took_seconds)
    )));
    page.deadlocks(&snapshot.deadlocks);
    page.raw("");
    let memory = &snapshot.memory;
    let mut figures = format!("resident {}", bytes(memory.resident_bytes as f64));
    if memory.anonymous_bytes > 0 {
        let _ = write!(figures, ", anonymous {}", bytes(memory.anonymous_bytes as f64));
    }
    for (kind, heap) in memory.heaps() {
        let _ = write!(
            figures,
            ", {} heap in use {}, stacks {}",
            language::of(kind).name(),
            bytes(heap.heap_in_use_bytes as f64),
            bytes(heap.stack_in_use_bytes as f64)
        );
    }
    if let Some(limit) = memory.limit_bytes {
        let _ = write!(figures, ", limit {}", bytes(limit as f64));
    }
    page.field("memory", &figures);
    let totals = &snapshot.totals;
    let mut counts: Vec<String> =
        totals.tasks().map(|(kind, tasks)| counted(tasks, language::of(kind).noun())).collect();
    if totals.threads > 0 {
        counts.push(counted(totals.threads, "thread"));
    }
    counts.push(counted(totals.groups.max(snapshot.groups.len() as u64), "group"));
    page.field("alive", &counts.join(", "));
    page.raw("");
    page.table(&snapshot.groups);
    if snapshot.groups.len() > ROWS || totals.members_left_out > 0 {
        let members =
            snapshot.groups.iter().skip(ROWS).fold(0u64, |sum, group| sum.saturating_add(group.count));
        page.raw(&style.faint(&format!(
            "  and {} in {} more",
            count(members.saturating_add(totals.members_left_out)),
            counted(totals.groups.max(snapshot.groups.len() as u64).saturating_sub(ROWS as u64), "group")
        )));
    }
    if let Some(growth) = &snapshot.growth {
        page.raw("");
        let grown = growth_sites(&growth.sites, growth.sample_period);
        let nothing = || vec!["nothing that is still there".to_owned()];
        page.lines("grew", &if grown.is_empty() { nothing() } else { grown });
    }
    for group in snapshot.groups.iter().filter(|group| !group.frames.is_empty()).take(STACKS) {
        page.raw("");
        page.raw(&format!("  {}", style.strong(&format!("{} in {}", members(group), reason(group)))));
        page.stack(group);
        if let Some(on) = group.waits_on.as_ref().filter(|on| on.owner.is_some() || on.note.is_some()) {
            page.field("waits on", &waits_on(on, group.count));
        }
    }
    page.raw("");
    page.losses(&snapshot.losses);
    page.degraded(&snapshot.degraded);
    while page.text.ends_with("\n\n") {
        page.text.pop();
    }
    page.text
}

/// The curve in eighths of a line.
pub fn sparkline(values: &[u64], columns: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (Some(low), Some(high)) = (values.iter().min(), values.iter().max()) else { return String::new() };
    let columns = columns.min(values.len()).max(1);
    // A flat curve is drawn flat: noise of a few percent is not a mountain.
    let span = (high - low).max(high / 20).max(1);
    (0..columns)
        .map(|column| {
            let place = if columns == 1 { 0 } else { column * (values.len() - 1) / (columns - 1) };
            let value = values.get(place).copied().unwrap_or(*low);
            let step = (value - low) as f64 / span as f64 * 7.0;
            BARS[(step.round() as usize).min(7)]
        })
        .collect()
}

fn milliseconds(seconds: f64) -> String {
    if (0.0..1.0).contains(&seconds) { format!("{:.0} ms", seconds * 1000.0) } else { duration(seconds) }
}

/// As it begins a line. Sentences begin with a word of ours or a number, never with a name.
pub(crate) fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

pub(crate) fn members(group: &Group) -> String {
    counted(group.count, language::of(group.kind).noun())
}

pub(crate) fn reason(group: &Group) -> String {
    escape(group.reason()).into_owned()
}

fn headline(culprit: &Culprit) -> String {
    let at =
        culprit.site.as_ref().map(|place| format!(" at {}", escape(&site::words(place)))).unwrap_or_default();
    format!(
        "{} blocked in {}{at}, {} more",
        members(&culprit.group),
        reason(&culprit.group),
        crate::format::rate(culprit.growth_per_second)
    )
}

fn bystander(bystander: &Bystander) -> String {
    let group = &bystander.group;
    let at = site::place(group).map(|place| format!(" at {}", site::words(&place))).unwrap_or_default();
    let held = group.waits_on.as_ref().and_then(held_by).map(|by| format!("; {by}")).unwrap_or_default();
    format!("{} x {}{at} ({}{held})", count(group.count), reason(group), bystander.why)
}

/// Who is waited for, in words.
fn held_by(on: &WaitsOn) -> Option<String> {
    let owner = on.owner.as_ref()?;
    Some(if on.kind == ObjectKind::Thread {
        format!("the end of {owner}")
    } else {
        format!("held by {owner}")
    })
}

pub(crate) fn waits_on(on: &WaitsOn, members: u64) -> String {
    let plural = match (on.objects, on.kind.as_str()) {
        (1, kind) if members > 1 => format!("one {kind}, the same for all"),
        (1, kind) => format!("one {kind}"),
        (0, kind) => kind.to_owned(),
        (n, kind) if kind.ends_with('x') => format!("{} {kind}es", count(n)),
        (n, kind) => format!("{} {kind}s", count(n)),
    };
    let mut words = plural;
    if let Some(element) = &on.element_type {
        let _ = write!(words, " of {element}");
    }
    if let Some(capacity) = on.capacity {
        let _ = write!(words, ", capacity {capacity}");
    }
    if let Some(owner) = held_by(on) {
        let _ = write!(words, ", {owner}");
    }
    if let Some(note) = &on.note {
        let _ = write!(words, ", {note}");
    }
    words
}

/// `torn_reads: 3` reads `3 torn reads`.
pub(crate) fn loss(name: &str, lost: u64) -> String {
    if name == "growth_stacks_cut" {
        return format!("{} deeper than what was copied", counted(lost, "growth stack"));
    }
    format!("{} {}", count(lost), escape(&name.replace('_', " ")))
}

/// Of a deep stack both ends are shown, and the target's own code where that begins further out.
fn is_shown(place: usize, frames: usize, own: Option<usize>) -> bool {
    let first = FRAMES - 3;
    if frames <= FRAMES + 1 || place >= frames - 3 {
        return true;
    }
    match own.filter(|own| (first..frames - 3).contains(own)) {
        Some(own) => place < first / 2 || (own - 1..own + first - first / 2 - 1).contains(&place),
        None => place < first,
    }
}

struct Page {
    style: Style,
    text: String,
}

impl Page {
    fn new(style: Style) -> Self {
        Self { style: Style { width: style.width.clamp(40, 400), ..style }, text: String::new() }
    }

    /// A line that is already safe to print.
    fn raw(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Text with its label in a column of its own, wrapped under itself.
    fn field(&mut self, label: &str, text: &str) {
        let label = format!("  {label:<width$}", width = LABEL - 2);
        self.hanging(&self.style.faint(&label), LABEL, text);
    }

    fn lines(&mut self, label: &str, lines: &[String]) {
        for (place, line) in lines.iter().enumerate() {
            self.field(if place == 0 { label } else { "" }, line);
        }
    }

    fn hanging(&mut self, head: &str, indent: usize, text: &str) {
        if text.is_empty() {
            return;
        }
        let mut printed = visible(head);
        let mut line = head.to_owned();
        while printed < indent {
            line.push(' ');
            printed += 1;
        }
        let safe = escape_long(text);
        let mut used = indent;
        let mut fresh = true;
        for word in safe.split(' ').filter(|word| !word.is_empty()) {
            let length = word.chars().count();
            if !fresh && used + 1 + length > self.style.width {
                self.raw(line.trim_end());
                line = " ".repeat(indent);
                used = indent;
                fresh = true;
            }
            if !fresh {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
            fresh = false;
        }
        self.raw(line.trim_end());
    }

    fn stack(&mut self, group: &Group) {
        let widest = self.frames(&group.frames, "blocked at", &reason(group));
        if let Some(why) = site::stack_end(group) {
            self.field("", &format!("({why})"));
        }
        if let Some(Place { function, file, line }) = &group.created_by {
            self.frame("created by", function, file.as_deref(), *line, widest, "");
        }
        if let Some(names) = names::words(group) {
            self.field("named", &names);
        }
    }

    /// The frames of a stack under a label, the reason beside the first; the width of the names.
    fn frames(&mut self, frames: &[Frame], label: &str, reason: &str) -> usize {
        let widest = frames
            .iter()
            .take(FRAMES)
            .map(|f| site::name(f).chars().count())
            .max()
            .unwrap_or(0)
            .clamp(24, 60);
        let own = site::own(frames);
        let mut hidden = 0;
        for (place, frame) in frames.iter().enumerate() {
            if !is_shown(place, frames.len(), own) {
                hidden += 1;
                continue;
            }
            if hidden > 0 {
                self.field("", &format!("… {} more", counted(hidden, "frame")));
                hidden = 0;
            }
            let label = if place == 0 { label } else { "" };
            let what = match frame.tail_call {
                _ if place == 0 => reason.to_owned(),
                true => "tail call".to_owned(),
                false => String::new(),
            };
            self.frame(label, &site::name(frame), frame.file.as_deref(), frame.line, widest, &what);
        }
        widest
    }

    /// One frame a line, never wrapped: it is copied and searched for.
    fn frame(
        &mut self,
        label: &str,
        function: &str,
        file: Option<&str>,
        line: Option<u32>,
        widest: usize,
        what: &str,
    ) {
        let label = self.style.faint(&format!("  {label:<width$}", width = LABEL - 2));
        let function = escape(function);
        let position = site::file_line(file, line);
        let row = format!("{label}{function:<widest$}  {:<20}  {what}", escape(&position));
        self.raw(row.trim_end());
    }

    fn culprit(&mut self, culprit: &Culprit) {
        let group = &culprit.group;
        self.stack(group);
        if let Some(on) = &group.waits_on {
            self.field("waits on", &waits_on(on, group.count));
        }
        let mut held = format!("{} each", bytes(culprit.bytes_per_member));
        if culprit.heap_bytes_per_member > 0.0 && culprit.stack_bytes_per_member > 0.0 {
            let _ = write!(
                held,
                ": {} stack, {} heap",
                bytes(culprit.stack_bytes_per_member),
                bytes(culprit.heap_bytes_per_member)
            );
        }
        let error = match culprit.bytes_error {
            Some(error) if culprit.bytes_per_member > 0.0 => {
                format!(", ± {}", percent((error / culprit.bytes_per_member).min(9.99)))
            }
            _ => String::new(),
        };
        let _ = write!(held, " (from {}{error})", culprit.bytes_source);
        self.field("holds", &held);
        self.lines("because", &culprit.evidence);
        self.field("confidence", &percent(culprit.confidence));
    }

    fn memory(&mut self, diagnosis: &Diagnosis) {
        let memory = &diagnosis.memory;
        let mut words = format!(
            "resident {}, {}",
            bytes(memory.last_bytes as f64),
            bytes_per_second(memory.slope_bytes_per_second)
        );
        if memory.live_slope_bytes_per_second != 0.0 {
            let _ = write!(
                words,
                "; {} {}",
                memory.live_basis,
                bytes_per_second(memory.live_slope_bytes_per_second)
            );
        }
        if let Some(limit) = memory.limit_bytes {
            let _ = write!(words, "; limit {}", bytes(limit as f64));
        }
        self.field("memory", &words);
        let curve = sparkline(&memory.curve, self.style.width.saturating_sub(LABEL + 24).min(60));
        if !curve.is_empty() {
            let low = memory.curve.iter().min().copied().unwrap_or(0);
            let high = memory.curve.iter().max().copied().unwrap_or(0);
            self.field("", &format!("{curve}  {} to {}", bytes(low as f64), bytes(high as f64)));
        }
    }

    fn table(&mut self, groups: &[Group]) {
        if groups.is_empty() {
            self.raw("  nothing is blocked");
            return;
        }
        let head = format!(
            "  {:>9}  {:<22} {:>9} {:>10} {:>10}  at",
            "count", "reason", "oldest", "stack", "retained"
        );
        self.raw(&self.style.faint(&head));
        for group in groups.iter().take(ROWS) {
            let oldest = group.oldest_wait_seconds.map_or_else(|| "-".to_owned(), duration);
            let retained = group.retained_bytes.map_or_else(|| "-".to_owned(), |held| bytes(held as f64));
            let at = site::place(group).map(|place| site::words(&place)).unwrap_or_default();
            let row = format!(
                "  {:>9}  {:<22} {oldest:>9} {:>10} {retained:>10}  {}",
                count(group.count),
                reason(group),
                bytes(group.stack_bytes as f64),
                escape(&at)
            );
            self.raw(row.trim_end());
        }
    }

    fn losses(&mut self, losses: &Losses) {
        let lost: Vec<String> =
            losses.iter().filter(|(_, lost)| **lost > 0).map(|(name, lost)| loss(name, *lost)).collect();
        if !lost.is_empty() {
            self.field("not seen", &lost.join("; "));
        }
    }

    fn degraded(&mut self, degraded: &[Degraded]) {
        let lines: Vec<String> = degraded
            .iter()
            .map(|lack| {
                let remedy =
                    if lack.remedy.is_empty() { String::new() } else { format!(" ({})", lack.remedy) };
                format!("{}: {}{remedy}", lack.feature, lack.reason)
            })
            .collect();
        self.lines("degraded", &lines);
    }
}

/// Columns of text with colour codes in it.
fn visible(text: &str) -> usize {
    let mut columns = 0;
    let mut in_code = false;
    for c in text.chars() {
        match c {
            '\x1b' => in_code = true,
            'm' if in_code => in_code = false,
            _ if in_code => {}
            _ => columns += 1,
        }
    }
    columns
}

/// As [`escape`], for a whole sentence, which may be longer than a name.
fn escape_long(text: &str) -> String {
    text.split(' ').map(escape).collect::<Vec<_>>().join(" ")
}
