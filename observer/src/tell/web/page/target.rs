//! The page of one target: the verdict in a sentence, over a picture, and beneath it where, why and what was not seen.

use maud::{Markup, PreEscaped, html};
use serde_json::json;

use super::shell::{badge, moment, safe, verdict_class};
use super::view::{Place, Range, View};
use super::{facts, group};
use crate::diagnose::{self, Diagnosis, Verdict};
use crate::format;
use crate::language;
use crate::tell::report::text;
use crate::tell::web::chart::{self, Kind, Size};

/// Everything between header and footer; also what stands in a file of its own.
pub fn main(view: &View) -> Markup {
    let diagnosis = &view.diagnosis;
    html! {
        (verdict(view))
        (figure(view))
        @for (rank, culprit) in diagnosis.culprits.iter().enumerate() {
            (group::culprit(culprit, rank, diagnosis.culprits.len()))
        }
        (facts::deadlocks(diagnosis))
        // Where no group is to blame, the stacks that touched new memory are the next best.
        @if diagnosis.verdict == Verdict::Growing { (facts::growth(diagnosis)) }
        (facts::memory(view))
        (group::others(view))
        @if diagnosis.verdict != Verdict::Growing { (facts::growth(diagnosis)) }
        (facts::flame_graphs(view))
        (facts::not_seen(view))
        (facts::downloads(view))
    }
}

/// For the window's title: the verdict first, so that it can be read on a tab.
pub fn title(view: &View) -> String {
    let word = match view.diagnosis.verdict {
        Verdict::Leak => "LEAK",
        Verdict::Growing => "GROWING",
        Verdict::Stable => "stable",
        Verdict::InsufficientData => "watching",
    };
    let ended = if view.up { "" } else { " (exited)" };
    format!("{word}: {}{ended} · observer", view.name)
}

fn verdict(view: &View) -> Markup {
    let diagnosis = &view.diagnosis;
    html! {
        section class={ "verdict " (verdict_class(diagnosis.verdict)) } aria-labelledby="sentence" {
            p class="who" {
                (badge(diagnosis.verdict))
                span class="name" { (safe(&view.name)) }
                span class="facts" { (who(view)) }
            }
            h1 id="sentence" { (safe(&text::capital(&diagnosis.sentence))) }
            @if !diagnosis.second_sentence.is_empty() {
                p class="second" { (safe(&text::capital(&diagnosis.second_sentence))) }
            }
            @if !diagnosis.degraded.is_empty() {
                @let names: Vec<&str> = diagnosis.degraded.iter().map(|lack| lack.feature.as_str()).collect();
                p class="small" { "Not all can be seen here (" (safe(&names.join(", "))) "): " a href="#not-seen" { "why, and what to do" } }
            }
            @if view.up { (progress(diagnosis)) }
            @if !view.up {
                p class="notice" {
                    strong { "The process has exited." }
                    " What is shown was true when it was last seen, at " (moment(view.last_sampled)) "."
                }
            }
        }
    }
}

/// `pid 4242 · go1.27.3, stripped · up since …`, and how long and how often it was looked at.
fn who(view: &View) -> Markup {
    let diagnosis = &view.diagnosis;
    let info = &diagnosis.target;
    let runtime = text::runtime(&info.runtime.name, info.runtime.version.as_deref());
    html! {
        span { "pid " (info.pid) }
        @if !runtime.is_empty() {
            span { (safe(&runtime)) @if info.runtime.stripped { ", stripped" } }
        }
        span { "judged on " (format::duration(diagnosis.window_seconds)) ", " (format::counted(diagnosis.samples, "sample")) }
        @if view.restarts > 0 { span { (format::counted(u64::from(view.restarts), "restart")) } }
        span { "as of " (moment(view.last_sampled)) }
    }
}

/// Seconds until there can be a verdict, while there is none for want of time.
pub(super) fn until_verdict(diagnosis: &Diagnosis) -> Option<f64> {
    let left = diagnose::LEAST_SECONDS - diagnosis.window_seconds.max(0.0);
    (diagnosis.verdict == Verdict::InsufficientData && left > 0.0).then_some(left)
}

/// How far the first verdict is.
fn progress(diagnosis: &Diagnosis) -> Markup {
    let need = diagnose::LEAST_SECONDS;
    html! {
        @if let Some(left) = until_verdict(diagnosis) {
            p class="progress" {
                progress max=(format!("{need:.0}")) value=(format!("{:.0}", need - left)) aria-label="Time until the first verdict" {}
                " first verdict in about " (format::duration(left))
            }
        }
    }
}

fn figure(view: &View) -> Markup {
    let picture = &view.picture;
    let label = format!(
        "Memory over time, and beneath it what the blocked groups hold. Resident {}.",
        format::bytes(view.sample.memory.resident_bytes as f64)
    );
    html! {
        figure class="picture" id="picture" {
            div class="over" {
                p class="what" {
                    span class="key line" aria-hidden="true" {} "Resident memory, "
                    strong { (format::bytes(view.sample.memory.resident_bytes as f64)) }
                    ", over what blocked " (language::members("and")) " hold"
                }
                @if let Place::Server { range, .. } = &view.place {
                    nav class="ranges" aria-label="Time range" {
                        @for each in Range::EACH {
                            a href={ "?range=" (each.word()) } data-range
                                aria-current=[(each == *range).then_some("true")] { (each.name()) }
                        }
                    }
                }
            }
            @if !picture.is_empty() { span hidden data-readout=(readout(picture)) {} }
            @if picture.is_empty() {
                p class="empty" { "The picture begins with the second sample." }
            } @else {
                // Whatever of a target is in there has been escaped where it was drawn.
                (PreEscaped(chart::picture(picture, Size::Wide, &label)))
                (PreEscaped(chart::picture(picture, Size::Narrow, &label)))
                (legend(view))
            }
        }
    }
}

/// The numbers behind the picture, for the script that shows those under the pointer.
fn readout(picture: &chart::Picture) -> String {
    let whole = |values: &[f64]| values.iter().map(|value| *value as u64).collect::<Vec<_>>();
    let layers: Vec<_> = picture
        .layers
        .iter()
        .rev()
        .map(|layer| json!({ "name": safe(&layer.name), "one": layer.id.is_some(), "counts": layer.counts, "bytes": whole(&layer.bytes) }))
        .collect();
    json!({ "at": whole(&picture.at), "resident": whole(&picture.resident), "layers": layers }).to_string()
}

/// The areas by name, from the top downward as they lie in the picture.
fn legend(view: &View) -> Markup {
    let picture = &view.picture;
    let held: f64 = picture.layers.iter().map(chart::Layer::last_bytes).sum();
    let other = view.sample.memory.resident_bytes as f64 - held;
    html! {
        figcaption {
            ul class="legend" {
                @for layer in picture.layers.iter().rev() {
                    @let class = chart::class(layer.kind);
                    li class=[matches!(layer.kind, Kind::Culprit(_)).then_some("strong")] {
                        a href=(layer.id.map_or_else(|| "#groups".to_owned(), |id| format!("#group-{:016x}", id.0))) {
                            svg class="key" viewBox="0 0 12 12" aria-hidden="true" { rect class=(class) width="12" height="12" {} }
                            @if matches!(layer.kind, Kind::Culprit(_)) { b { "leaks: " } }
                            (safe(&layer.words()))
                            span class="amount" { (format::bytes(layer.last_bytes())) }
                        }
                    }
                }
                @if other > 0.0 {
                    li {
                        span class="plain" {
                            span class="key none" aria-hidden="true" {}
                            "everything else, up to the line"
                            span class="amount" { (format::bytes(other)) }
                        }
                    }
                }
            }
            p class="small" {
                "Bytes of a group are its members × what each holds"
                @if let Some(limit) = picture.far_limit { "; the limit of " (format::bytes(limit)) " lies far above the picture" }
                @if !picture.restarts.is_empty() { "; dashed upright lines are restarts" }
                ". " span data-zone { "Times are UTC." }
            }
        }
    }
}
