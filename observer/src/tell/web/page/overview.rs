//! All targets on one page, worst first: those that need somebody as cards with their sentence, the others a line each.

use std::cmp::Ordering;

use maud::{Markup, PreEscaped, html};

use super::shell::{badge, bytes, moment, path_part, safe, verdict_class};
use super::view::{View, rank};
use crate::diagnose::{Verdict, site};
use crate::format;
use crate::tell::report::text;
use crate::tell::web::chart;

/// What is looked for beside the targets that are there.
#[derive(Default)]
pub(super) struct Around {
    pub awaited: Vec<String>,
    pub ready: bool,
}

pub(super) fn main(mut views: Vec<View>, around: &Around) -> Markup {
    views.sort_by(worst_first);
    let cards = views.iter().filter(|view| is_card(view)).count();
    html! {
        h1 class="summary" { (summary(&views)) }
        @if views.is_empty() { (nothing_yet(around)) }
        @if cards > 0 {
            ul class="cards" { @for view in views.iter().take(cards) { li { (card(view)) } } }
        }
        @if views.len() > cards {
            ul class="targets" aria-label="Targets without a finding" {
                @for view in views.iter().skip(cards) { li data-key={ "target-" (path_part(&view.name)) } { (line(view)) } }
            }
        }
        @if !around.awaited.is_empty() && !views.is_empty() {
            section class="awaited" aria-labelledby="awaited" {
                h2 id="awaited" { "Not there yet" }
                ul { @for each in &around.awaited { li { (safe(each)) } } }
            }
        }
    }
}

/// `1 leaks, 2 grow` of all.
pub(super) fn title(views: &[View]) -> String {
    if views.is_empty() {
        return "waiting for a target · observer".to_owned();
    }
    let leaking = views.iter().filter(|view| view.diagnosis.verdict == Verdict::Leak).count();
    let growing = views.iter().filter(|view| view.diagnosis.verdict == Verdict::Growing).count();
    let all = format::counted(views.len() as u64, "target");
    match (leaking, growing) {
        (0, 0) => format!("{all} · observer"),
        (0, growing) => format!("{growing} of {all} growing · observer"),
        (leaking, _) => format!("LEAK: {leaking} of {all} · observer"),
    }
}

fn is_card(view: &View) -> bool {
    matches!(view.diagnosis.verdict, Verdict::Leak | Verdict::Growing)
}

fn worst_first(a: &View, b: &View) -> Ordering {
    let slope = |view: &View| view.diagnosis.memory.slope_bytes_per_second;
    rank(a.diagnosis.verdict)
        .cmp(&rank(b.diagnosis.verdict))
        .then(b.up.cmp(&a.up))
        .then_with(|| match a.diagnosis.verdict {
            // Among those that grow the fastest; the others by name, so that lines do not jump about.
            Verdict::Leak | Verdict::Growing => slope(b).total_cmp(&slope(a)),
            _ => Ordering::Equal,
        })
        .then_with(|| a.name.cmp(&b.name))
}

fn summary(views: &[View]) -> Markup {
    let count = |verdict: Verdict| views.iter().filter(|view| view.diagnosis.verdict == verdict).count();
    let parts: Vec<(Verdict, String)> = [
        (Verdict::Leak, "leaking"),
        (Verdict::Growing, "growing"),
        (Verdict::InsufficientData, "not judged yet"),
        (Verdict::Stable, "stable"),
    ]
    .into_iter()
    .filter(|(verdict, _)| count(*verdict) > 0)
    .map(|(verdict, word)| (verdict, format!("{} {word}", format::count(count(verdict) as u64))))
    .collect();
    html! {
        @if views.is_empty() { "No target yet" } @else {
            (format::counted(views.len() as u64, "target"))
            @for (verdict, words) in parts { span class={ "part " (verdict_class(verdict)) } { (words) } }
        }
    }
}

fn address(view: &View) -> String {
    format!("./targets/{}", path_part(&view.name))
}

fn figures(view: &View) -> Markup {
    let memory = &view.sample.memory;
    html! {
        strong { (bytes(memory.resident_bytes)) } " "
        span class="slope" { (format::bytes_per_second(view.diagnosis.memory.slope_bytes_per_second)) }
        @if let Some(limit) = memory.limit_bytes.filter(|limit| *limit > 0) {
            @let used = memory.limit_usage_bytes.unwrap_or(memory.resident_bytes);
            " " span class="small" { (format::percent(used as f64 / limit as f64)) " of " (bytes(limit)) }
        }
    }
}

fn spark(view: &View) -> Markup {
    let label = format!("Memory of {}: {}", safe(&view.name), bytes(view.sample.memory.resident_bytes));
    // Escaped where it was drawn.
    html! { (PreEscaped(chart::sparkline(&view.picture, &label))) }
}

fn card(view: &View) -> Markup {
    let diagnosis = &view.diagnosis;
    html! {
        article class={ "card " (verdict_class(diagnosis.verdict)) } data-key={ "card-" (path_part(&view.name)) } {
            p class="who" {
                (badge(diagnosis.verdict))
                a class="name" href=(address(view)) { (safe(&view.name)) }
                @if !view.up { (gone(view)) }
                span class="figures" { (figures(view)) }
            }
            p class="sentence" { (safe(&text::capital(&diagnosis.sentence))) }
            @if let Some(place) = diagnosis.culprits.first().and_then(|culprit| culprit.site.as_ref()) {
                p class="at" { code class="function" { (safe(&place.function)) } " " code class="position" { (safe(&site::file_line(place.file.as_deref(), place.line))) } }
            }
            (spark(view))
        }
    }
}

fn line(view: &View) -> Markup {
    html! {
        a class={ "target " (verdict_class(view.diagnosis.verdict)) } href=(address(view)) {
            span class="name" {
                (safe(&view.name))
                @if !view.up { " " (gone(view)) }
                @else if let Some(left) = super::target::until_verdict(&view.diagnosis) {
                    span class="gone" { " first verdict in " (format::duration(left)) }
                }
            }
            (badge(view.diagnosis.verdict))
            (spark(view))
            span class="figures" { (figures(view)) }
        }
    }
}

fn gone(view: &View) -> Markup {
    html! { span class="gone" { "exited, last seen " (moment(view.last_sampled)) } }
}

fn nothing_yet(around: &Around) -> Markup {
    html! {
        section class="nothing" {
            @if !around.ready { p { "observer is starting." } }
            @if around.awaited.is_empty() {
                p { "observer was not told what to observe. Name a process, by pid or by what it is called:" }
            } @else {
                p { "observer is running and waits:" }
                ul { @for each in &around.awaited { li { (safe(each)) } } }
                p { "The page shows it as soon as it is there. To add others, name them too:" }
            }
            pre { code { "observer run --exe /usr/bin/checkout\nobserver run --comm checkout\nobserver run --cgroup '/system.slice/checkout.service'\nobserver run --pid 4242" } }
            p class="small" { "Or in the configuration file; it is read again on SIGHUP." }
        }
    }
}
