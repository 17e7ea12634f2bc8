//! One group in full: where it blocks, who created it, what it waits on, what it holds.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::diagnose::site;
use crate::escape::escape;
use crate::format;
use crate::sample::Group;
use crate::tell::report::names;
use crate::tell::report::text::{members, reason, waits_on};

/// Frames shown.
const FRAMES: usize = 200;

/// Its lines; those of its own code stand out.
pub(super) fn lines(group: &Group) -> Vec<Line<'static>> {
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(format!("{} in {}", members(group), reason(group)), strong)];
    lines.extend(group.oldest_wait_seconds.map(|seconds| field("oldest", &format::duration(seconds))));
    let mut held = format!("{} of stacks", format::bytes(group.stack_bytes as f64));
    if let Some(retained) = group.retained_bytes {
        held = format!("{held}, {} of heap that only they reach", format::bytes(retained as f64));
    }
    lines.push(field("holds", &held));
    if let Some(on) = &group.waits_on {
        lines.push(field("waits on", &escape(&waits_on(on, group.count))));
    }
    if group.frames.is_empty() {
        lines.push(field("blocked at", "(no stack could be read)"));
    }
    let own = site::own_frame(group).cloned();
    for (place, frame) in group.frames.iter().take(FRAMES).enumerate() {
        let style = if own.as_ref() == Some(frame) { strong } else { Style::new() };
        let position = site::file_line(frame.file.as_deref(), frame.line);
        let text = format!("{}  {}", escape(&site::name(frame)), escape(&position));
        let label = if place == 0 { "blocked at" } else { "" };
        lines.push(Line::from(vec![
            Span::raw(format!("{label:<11}")),
            Span::styled(text.trim_end().to_owned(), style),
        ]));
    }
    if group.frames.len() > FRAMES {
        lines.push(field(
            "",
            &format!("... {} more", format::counted((group.frames.len() - FRAMES) as u64, "frame")),
        ));
    }
    lines.extend(site::stack_end(group).map(|why| field("", &format!("({why})"))));
    lines.extend(names::words(group).map(|names| field("named", &escape(&names))));
    lines.extend(group.created_by.as_ref().map(|place| field("created by", &escape(&site::words(place)))));
    lines
}

fn field(label: &str, text: &str) -> Line<'static> {
    Line::raw(format!("{label:<11}{text}"))
}
