//! Groups on the page: the culprit with its stack and the evidence, the others in a list that unfolds.

use maud::{Markup, html};

use super::shell::safe;
use super::view::{Row, View};
use crate::diagnose::{Culprit, site};
use crate::format;
use crate::sample::Place as SourcePlace;
use crate::sample::{Frame, Group};
use crate::tell::report::{names, text};
use crate::tell::web::chart::{self, Kind};

/// Frames shown of one stack.
const FRAMES: usize = 64;

pub(super) fn anchor(group: &Group) -> String {
    format!("group-{:016x}", group.id.0)
}

pub(super) fn culprit(culprit: &Culprit, rank: usize, of: usize) -> Markup {
    let group = &culprit.group;
    html! {
        section class="culprit" id=(anchor(group)) tabindex="-1" aria-labelledby={ "culprit-" (rank) } {
            h2 id={ "culprit-" (rank) } {
                svg class="key" viewBox="0 0 12 12" aria-hidden="true" { rect class=(chart::class(Kind::Culprit(rank))) width="12" height="12" {} }
                @if of > 1 { "Culprit " (rank + 1) " of " (of) } @else { "The culprit" }
            }
            p class="line" {
                @if let Some(place) = &culprit.site { (source(place)) } @else { (reason(group)) }
            }
            div class="columns" {
                div {
                    h3 { "Blocked in " em { (reason(group)) } " at" }
                    (stack(group, culprit.site.as_ref()))
                }
                dl class="figures" {
                    div { dt { "Members" } dd { (format::count(group.count)) ", " strong { (format::rate(culprit.growth_per_second)) " more" } } }
                    @if let Some(oldest) = group.oldest_wait_seconds {
                        div { dt { "Oldest waits" } dd { (format::duration(oldest)) } }
                    }
                    div {
                        dt { "Each holds" }
                        dd {
                            strong { (format::bytes(culprit.bytes_per_member)) }
                            @if culprit.heap_bytes_per_member > 0.0 && culprit.stack_bytes_per_member > 0.0 {
                                ": " (format::bytes(culprit.stack_bytes_per_member)) " stack, "
                                (format::bytes(culprit.heap_bytes_per_member)) " heap"
                            }
                            span class="small" { " (from " (safe(&culprit.bytes_source)) (error(culprit)) ")" }
                        }
                    }
                    div { dt { "All hold" } dd { (format::bytes(culprit.bytes_per_member * group.count as f64)) } }
                    div { dt { "Share of growth" } dd { (format::percent(culprit.share_of_growth)) } }
                    @if let Some(on) = &group.waits_on {
                        div { dt { "Waits on" } dd { (safe(&text::waits_on(on, group.count))) } }
                    }
                    div { dt { "Confidence" } dd { (format::percent(culprit.confidence)) } }
                }
            }
            @if !culprit.evidence.is_empty() {
                h3 { "Because" }
                ul class="evidence" { @for sentence in &culprit.evidence { li { (safe(sentence)) } } }
            }
        }
    }
}

fn error(culprit: &Culprit) -> String {
    match culprit.bytes_error {
        Some(error) if culprit.bytes_per_member > 0.0 => {
            format!(", ± {}", format::percent((error / culprit.bytes_per_member).min(9.99)))
        }
        _ => String::new(),
    }
}

/// The groups that are no culprits.
pub(super) fn others(view: &View) -> Markup {
    let many = if view.diagnosis.culprits.is_empty() { "Groups" } else { "Other groups" };
    html! {
        section class="groups" id="groups" tabindex="-1" aria-labelledby="groups-title" {
            h2 id="groups-title" { (many) }
            @if view.rows.is_empty() {
                p class="empty" { "Nothing else is blocked." }
            } @else {
                div class="row head" aria-hidden="true" {
                    span { "count" } span { "blocked in" } span { "growth" } span { "oldest" } span { "holds" }
                    span { @if view.diagnosis.culprits.is_empty() { "remark" } @else { "why not the cause" } }
                }
                @for each in &view.rows { (row(each)) }
                @if view.more_groups > 0 {
                    p class="small" { "and " (format::counted(view.more_groups, "smaller group")) " more" }
                }
            }
        }
    }
}

fn row(row: &Row) -> Markup {
    let group = &row.group;
    let at = site::place(group).map(|place| site::words(&place)).unwrap_or_default();
    html! {
        details data-key={ "row-" (anchor(group)) } {
            summary class="row" {
                span class="count" {
                    svg class="key" viewBox="0 0 12 12" aria-hidden="true" {
                        @if let Some(class) = &row.class { rect class=(class) width="12" height="12" {} }
                    }
                    (format::count(group.count)) span class="unseen" { " blocked in" }
                }
                span class="where" { em { (reason(group)) } " " code { (safe(&at)) } }
                span class="number growth" {
                    span class="unseen" { "growth " }
                    @match row.growth_per_second {
                        Some(rate) if rate.abs() >= 1e-4 => { @if rate > 0.0 { "+" } (format::rate(rate)) }
                        Some(_) => "0",
                        None => "–",
                    }
                }
                span class="number oldest" {
                    span class="unseen" { "oldest waits " }
                    @match group.oldest_wait_seconds { Some(oldest) => (format::duration(oldest)), None => "–" }
                }
                span class="number holds" { span class="unseen" { "holds " } (format::bytes(row.bytes)) }
                span class="why" { (safe(&row.why)) }
            }
            div class="inside" id=(anchor(group)) tabindex="-1" {
                @if group.count == 0 { p class="small" { "None of them is left; this is where they were." } }
                (stack(group, site::place(group).as_ref()))
                @if let Some(on) = &group.waits_on { p { "waits on " (safe(&text::waits_on(on, group.count))) } }
            }
        }
    }
}

fn reason(group: &Group) -> String {
    text::reason(group)
}

/// Innermost first; the line to look at is marked.
pub(super) fn stack(group: &Group, mark: Option<&SourcePlace>) -> Markup {
    html! {
        (frames(&group.frames, mark))
        @if let Some(why) = site::stack_end(group) { p class="small" { (why) } }
        @if let Some(names) = names::words(group) { p { span class="small" { "named " } (safe(&names)) } }
        @if let Some(creator) = &group.created_by { p class="creator" { span class="small" { "created by " } (source(creator)) } }
    }
}

pub(super) fn frames(frames: &[Frame], mark: Option<&SourcePlace>) -> Markup {
    let marked = mark.and_then(|place| {
        frames.iter().position(|frame| site::name(frame) == place.function && frame.line == place.line)
    });
    html! {
        @if frames.is_empty() { p class="empty" { "No stack." } }
        ol class="stack" {
            @for (depth, frame) in frames.iter().take(FRAMES).enumerate() {
                li class=[(marked == Some(depth)).then_some("own")] title=[full_path(frame)] {
                    code class="function" { (safe(&site::name(frame))) }
                    code class="position" { (safe(&site::file_line(frame.file.as_deref(), frame.line))) }
                    @if frame.inlined { span class="small" { "inlined" } }
                    @if frame.tail_call { span class="small" { "tail call" } }
                }
            }
        }
        @if frames.len() > FRAMES { p class="small" { "and " (format::counted((frames.len() - FRAMES) as u64, "frame")) " more" } }
    }
}

fn full_path(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref().or(frame.module.as_deref()).filter(|file| !file.is_empty())?;
    Some(safe(&frame.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))))
}

fn source(place: &SourcePlace) -> Markup {
    let position = site::file_line(place.file.as_deref(), place.line);
    html! {
        code class="function" { (safe(&place.function)) } " "
        @if !position.is_empty() { code class="position" { (safe(&position)) } }
    }
}
