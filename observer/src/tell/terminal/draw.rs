//! Draws a [`View`]: who is watched, the verdict so far, the memory curve, the groups, one group's stack, the keys.
//!
//! What does not fit is left out from the least telling on: first the curve, then the verdict's further lines.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Borders, Cell, Chart, Clear, Dataset, GraphType, Paragraph, Row as TableRow, Table,
    TableState, Wrap,
};

use super::rows::{Row, STEADY, Sort};
use super::stack;
use super::view::{Mode, View};
use crate::diagnose::{Diagnosis, Verdict};
use crate::escape::escape;
use crate::format;
use crate::language;
use crate::sample::{GroupKind, Sample};
use crate::tell::report::text;

/// From here on the stack stands beside the table, not below it.
const WIDE: u16 = 130;

const KEYS: &[(&str, &str)] = &[
    ("Up Down j k", "select a group; PgUp PgDn Home End too"),
    ("Enter", "its stack, on and off; [ and ] scroll it"),
    ("s  r", "sort by the next column; reverse"),
    ("/", "show only groups with this in their stack; Esc shows all"),
    ("p", "hold the view; sampling goes on"),
    ("w", "write this moment to observer-PID-TIME.json"),
    ("q  Ctrl-C", "end, with the diagnosis"),
];

pub fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let area = frame.area();
    let (verdict, chart) = match area.height {
        0..=9 => (1, 0),
        10..=15 => (2, 0),
        16..=21 => (2, 5),
        22..=29 => (3, 7),
        _ => (3, 11),
    };
    let [top, verdict, chart, below, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(verdict),
        Constraint::Length(chart),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    title(frame, view, top);
    judged(frame, view, verdict);
    if chart.height > 0 {
        curve(frame, view, chart);
    }
    let (groups, one) = split(view, below);
    table(frame, view, groups);
    if let Some(one) = one {
        selected(frame, view, one);
    }
    footer(frame, view, bottom);
    if view.mode == Mode::Help {
        help(frame, area);
    }
}

/// Colour where it is wanted; each thing that has one is told by a word or a sign too.
fn colored(view: &View, color: Color) -> Style {
    let style = Style::new().add_modifier(Modifier::BOLD);
    if view.color { style.fg(color) } else { style }
}

fn title(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let seconds = view.latest.as_ref().map_or(0.0, |sample| sample.at_seconds);
    let mut right = format!("{seconds:.0} s");
    if area.width >= 60 {
        let duration = format::duration(view.duration.as_secs_f64());
        right = format!("{right} of {duration}, every {}", format::duration(view.interval.as_secs_f64()));
    }
    if view.paused {
        right = format!("PAUSED  {right}");
    }
    let [left, right_area] = Layout::horizontal([
        Constraint::Min(0),
        Constraint::Length(u16::try_from(right.len() + 1).unwrap_or(u16::MAX)),
    ])
    .areas(area);
    let strong = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(Line::styled(text::target(&view.info), strong)), left);
    frame.render_widget(Paragraph::new(right).right_aligned(), right_area);
}

fn judged(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let words = match &view.diagnosis {
        _ if view.sample.is_none() => vec![Line::raw("attached; the first sample is being taken")],
        None => vec![Line::raw("watching; a verdict needs some samples")],
        Some(diagnosis) => {
            // Who waits in a circle waits for ever: that comes first.
            let circles = diagnosis.deadlocks.iter().take(1).map(|deadlock| {
                let word = Span::styled("DEADLOCK", colored(view, Color::Red));
                Line::from(vec![word, Span::raw(format!("  {}", escape(&deadlock.description)))])
            });
            circles.chain([verdict_line(view, diagnosis)]).collect()
        }
    };
    frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), area);
}

fn verdict_line(view: &View, diagnosis: &Diagnosis) -> Line<'static> {
    let (word, color) = match diagnosis.verdict {
        Verdict::Leak => ("LEAK", Color::Red),
        Verdict::Growing => ("GROWING", Color::Yellow),
        Verdict::Stable => ("STABLE", Color::Green),
        Verdict::InsufficientData => ("NOT ENOUGH DATA YET", Color::Yellow),
    };
    let sentences = format!("  {} {}", escape(&diagnosis.sentence), escape(&diagnosis.second_sentence));
    Line::from(vec![Span::styled(word, colored(view, color)), Span::raw(sentences)])
}

fn curve(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let Some(sample) = &view.sample else { return };
    let shown = view.curve.iter().filter(|at| at.seconds <= sample.at_seconds);
    let resident: Vec<(f64, f64)> = shown.clone().map(|at| (at.seconds, at.resident as f64)).collect();
    let heap: Vec<(f64, f64)> =
        shown.filter_map(|at| at.heap.map(|heap| (at.seconds, heap as f64))).collect();
    let (Some(first), Some(last)) = (resident.first(), resident.last()) else { return };
    let begin = first.0;
    let end = last.0.max(begin + 10.0);
    let all = || resident.iter().chain(&heap).map(|(_, bytes)| *bytes);
    let high = all().fold(0.0, f64::max);
    let mut low = all().fold(f64::INFINITY, f64::min);
    // A flat curve is drawn flat: noise of a few percent is not a mountain.
    low = low.min(high * 0.9).max(0.0);
    let margin = ((high - low) * 0.08).max(1.0);
    let (low, high) = ((low - margin).max(0.0), high + margin);
    let limit = sample.memory.limit_bytes.map(|limit| limit as f64);
    let limit_line: Vec<(f64, f64)> = match limit {
        Some(limit) if (low..=high).contains(&limit) => vec![(begin, limit), (end, limit)],
        _ => Vec::new(),
    };

    let mut datasets = Vec::new();
    let line = |data, marker, color| {
        let style = if view.color { Style::new().fg(color) } else { Style::new() };
        Dataset::default().marker(marker).graph_type(GraphType::Line).style(style).data(data)
    };
    if !limit_line.is_empty() {
        datasets.push(line(&limit_line, Marker::Dot, Color::Red));
    }
    if !heap.is_empty() {
        datasets.push(line(&heap, Marker::Dot, Color::Cyan));
    }
    datasets.push(line(&resident, Marker::Braille, Color::Yellow));

    let title = curve_title(view, sample, !heap.is_empty());
    let middle = area.height >= 7;
    let labels = |low: f64, high: f64, words: &dyn Fn(f64) -> String| -> Vec<String> {
        if middle {
            vec![words(low), words(low.midpoint(high)), words(high)]
        } else {
            vec![words(low), words(high)]
        }
    };
    let chart = Chart::new(datasets)
        .block(Block::new().borders(Borders::TOP).title(title))
        .legend_position(None)
        .x_axis(Axis::default().bounds([begin, end]).labels(labels(begin, end, &format::duration)))
        .y_axis(Axis::default().bounds([low, high]).labels(labels(low, high, &format::bytes)));
    frame.render_widget(chart, area);
}

/// What the curve is, in the words that matter most first: what does not fit is cut off.
fn curve_title(view: &View, sample: &Sample, dots: bool) -> String {
    let mut title = format!(" resident {}", format::bytes(sample.memory.resident_bytes as f64));
    if let Some(limit) = sample.memory.limit_bytes {
        title = format!("{title} of {}", format::bytes(limit as f64));
    }
    if let Some(diagnosis) = view.diagnosis.as_ref().filter(|diagnosis| diagnosis.samples > 2) {
        title = format!("{title} ({})", format::bytes_per_second(diagnosis.memory.slope_bytes_per_second));
    }
    title.push_str(if dots { "; dots: heap in use" } else { "" });
    let tasks: Vec<String> = sample
        .totals
        .tasks()
        .map(|(kind, count)| format::counted(count, language::of(kind).noun()))
        .collect();
    let members = match tasks.is_empty() {
        true => format::counted(sample.totals.threads, "thread"),
        false => tasks.join(", "),
    };
    format!("{title}; {members} ")
}

/// Where the table goes, and the stack where one is asked for.
fn split(view: &View, area: Rect) -> (Rect, Option<Rect>) {
    if !view.stack_shown {
        return (area, None);
    }
    let layout = if area.width >= WIDE {
        Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)])
    } else {
        // A table that no row is left of says nothing: header, and a row at least.
        Layout::vertical([Constraint::Max((area.height * 2 / 5).max(3)), Constraint::Min(0)])
    };
    let [table, stack] = layout.areas(area);
    (table, Some(stack))
}

fn table(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    view.page = usize::from(area.height.saturating_sub(2)).max(1);
    let known = view.sample.as_ref().map_or(0, |sample| sample.totals.groups.max(sample.groups.len() as u64));
    let filter =
        if view.filter.is_empty() { String::new() } else { format!(" with `{}`", escape(&view.filter)) };
    let title = format!(
        " {}{filter}, by {}{} ",
        if view.filter.is_empty() {
            format::counted(known, "group")
        } else {
            format!("{} of {}", format::count(view.rows.len() as u64), format::counted(known, "group"))
        },
        sort_words(view.sort),
        if view.reversed { ", reversed" } else { "" }
    );
    let culprits: Vec<_> = view.diagnosis.iter().flat_map(|d| &d.culprits).map(|c| c.group.id).collect();
    let narrow = area.width < 70;
    let head = |words: &str, sort: Sort| {
        if view.sort == sort {
            format!("{words}{}", if view.reversed { "↑" } else { "↓" })
        } else {
            words.to_owned()
        }
    };
    let mut header = vec![
        Cell::new(""),
        Cell::new(Line::from(head("count", Sort::Count)).right_aligned()),
        Cell::new(Line::from(head("growth", Sort::Growth)).right_aligned()),
    ];
    let mut widths = vec![Constraint::Length(2), Constraint::Length(9), Constraint::Length(9)];
    if !narrow {
        header.push(Cell::new(Line::from(head("oldest", Sort::Oldest)).right_aligned()));
        header.push(Cell::new(Line::from(head("holds", Sort::Bytes)).right_aligned()));
        widths.extend([Constraint::Length(10), Constraint::Length(9)]);
    }
    header.push(Cell::new(head("waits for", Sort::Reason)));
    header.push(Cell::new(head("at", Sort::Site)));
    let reason = if area.width < 100 { 14 } else { 20 };
    widths.extend([Constraint::Length(if narrow { 10 } else { reason }), Constraint::Min(10)]);

    // Only rows that can be seen are made: there may be thousands.
    let place = view.selected_row();
    let first = place.saturating_sub(view.page / 2).min(view.rows.len().saturating_sub(view.page));
    let rows = view.rows.iter().skip(first).take(view.page).enumerate().map(|(at, row)| {
        let leaks = culprits.contains(&row.id);
        let style = if leaks { colored(view, Color::Red) } else { Style::new() };
        cells(row, first + at == place, leaks, narrow).style(style)
    });
    let table = Table::new(rows, widths)
        .header(TableRow::new(header).style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .block(Block::new().borders(Borders::TOP).title(title))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(place.saturating_sub(first)));
    frame.render_stateful_widget(table, area, &mut state);
    if view.rows.is_empty() && view.sample.is_some() && area.height > 2 {
        let words = if view.filter.is_empty() { "no groups" } else { "no group has this in its stack" };
        let line = Rect { y: area.y + 2, height: 1, ..area };
        frame.render_widget(Paragraph::new(format!("  {words}")), line);
    }
}

fn cells(row: &Row, selected: bool, leaks: bool, narrow: bool) -> TableRow<'static> {
    // Signs beside colour and reverse: `>` is selected, `!` is named by the verdict.
    let sign = match (selected, leaks) {
        (true, true) => ">!",
        (true, false) => "> ",
        (false, true) => " !",
        (false, false) => "  ",
    };
    let growth = if row.growth.abs() < STEADY { "-".to_owned() } else { signed(&format::rate(row.growth)) };
    let right = |text: String| Cell::new(Line::from(text).right_aligned());
    let mut cells = vec![Cell::new(sign), right(format::count(row.count)), right(growth)];
    if !narrow {
        cells.push(right(row.oldest.map_or("-".to_owned(), format::duration)));
        cells.push(right(if row.bytes == 0 { "-".to_owned() } else { format::bytes(row.bytes as f64) }));
    }
    let reason = match row.kind {
        GroupKind::Thread => format!("{} (thread)", row.reason),
        _ => row.reason.clone(),
    };
    cells.push(Cell::new(reason));
    cells.push(Cell::new(row.site.clone()));
    TableRow::new(cells)
}

fn signed(rate: &str) -> String {
    if rate.starts_with('-') { rate.to_owned() } else { format!("+{rate}") }
}

fn sort_words(sort: Sort) -> &'static str {
    match sort {
        Sort::Growth => "growth",
        Sort::Count => "count",
        Sort::Oldest => "oldest wait",
        Sort::Bytes => "bytes held",
        Sort::Reason => "what they wait for",
        Sort::Site => "place",
    }
}

fn selected(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    let beside = area.x > 0;
    let borders = if beside { Borders::TOP | Borders::LEFT } else { Borders::TOP };
    let lines = view.selected_group().map_or_else(|| vec![Line::raw("nothing is selected")], stack::lines);
    let inside = usize::from(area.height.saturating_sub(1));
    // Long lines go on in the next; by words, so that a little more than this may be needed.
    let width = usize::from(area.width.saturating_sub(u16::from(beside))).max(1);
    let needed: usize = lines.iter().map(|line| line.width().div_ceil(width).max(1)).sum();
    let most = u16::try_from(needed.saturating_sub(inside)).unwrap_or(u16::MAX);
    view.stack_scroll = view.stack_scroll.min(most);
    let more = if most > view.stack_scroll { " stack ( ] for more) " } else { " stack " };
    let block = Block::new().borders(borders).title(more);
    let stack = Paragraph::new(lines).block(block).wrap(Wrap { trim: false });
    frame.render_widget(stack.scroll((view.stack_scroll, 0)), area);
}

fn footer(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let line = match (&view.message, view.mode) {
        (Some(message), _) => Line::raw(escape(message).into_owned()),
        (None, Mode::Filter) => {
            Line::raw(format!("filter: {}_   Enter keeps it, Esc shows all", escape(&view.filter)))
        }
        _ => keys_line(area.width),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn keys_line(width: u16) -> Line<'static> {
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let keys = [
        ("q", "end"),
        ("Enter", "stack"),
        ("s", "sort"),
        ("/", "filter"),
        ("p", "pause"),
        ("w", "write"),
        ("?", "help"),
    ];
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, does) in keys {
        used += key.len() + does.len() + 3;
        if used > usize::from(width) {
            break;
        }
        spans.extend([Span::styled(key, strong), Span::raw(format!(" {does}  "))]);
    }
    Line::from(spans)
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let mut lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, does)| Line::from(vec![Span::styled(format!(" {key:<13}"), strong), Span::raw(*does)]))
        .collect();
    lines.push(Line::raw(""));
    lines.push(Line::raw(" > is selected, ! is what the verdict names; growth is over the last 30 s"));
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let width = 76.min(area.width);
    let window =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, window);
    let block = Block::bordered().title(" keys (any key closes this) ");
    frame.render_widget(Paragraph::new(lines).block(block), window);
}
