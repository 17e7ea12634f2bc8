//! What else the page knows: memory in figures, where it was first touched, deadlocks, losses, what can be taken along.

use maud::{Markup, html};

use super::group::frames;
use super::shell::{bytes, path_part, safe};
use super::view::{Place, View};
use crate::diagnose::{Diagnosis, Verdict, site};
use crate::format;
use crate::language;
use crate::sample::{DeadlockedThread, Frame, GrowthSite, Place as SourcePlace};
use crate::tell::report::{svg, text};

/// Threads of a circle whose stacks the page has.
const DEADLOCKED: usize = 8;

pub(super) fn deadlocks(diagnosis: &Diagnosis) -> Markup {
    html! {
        @if !diagnosis.deadlocks.is_empty() {
            section class="deadlocks" aria-labelledby="deadlocks" {
                h2 id="deadlocks" { "Deadlocks" }
                ul {
                    @for (rank, deadlock) in diagnosis.deadlocks.iter().enumerate() {
                        li {
                            (safe(&deadlock.description))
                            @if !deadlock.threads.is_empty() { (stacks(rank, &deadlock.threads)) }
                        }
                    }
                }
            }
        }
    }
}

/// The stack of each thread of a circle, behind a click.
fn stacks(rank: usize, threads: &[DeadlockedThread]) -> Markup {
    html! {
        details data-key={ "deadlock-" (rank) } {
            summary { "Stacks" }
            @for thread in threads.iter().take(DEADLOCKED) {
                h3 {
                    "Thread " (thread.tid)
                    @if !thread.name.is_empty() { " (" (safe(&thread.name)) ")" }
                    ", in " (safe(&thread.wait_reason)) ", waits for thread " (thread.held_by)
                }
                (frames(&thread.frames, thread.site.as_ref()))
            }
        }
    }
}

pub(super) fn memory(view: &View) -> Markup {
    let sample = &view.sample;
    let (memory, trend) = (&sample.memory, &view.diagnosis.memory);
    html! {
        section aria-labelledby="memory" {
            h2 id="memory" { "Memory" }
            dl class="figures wide" {
                div { dt { "Resident" } dd { strong { (bytes(memory.resident_bytes)) } ", " (format::bytes_per_second(trend.slope_bytes_per_second)) } }
                @if memory.anonymous_bytes > 0 { div { dt { "Anonymous" } dd { (bytes(memory.anonymous_bytes)) } } }
                @for (kind, heap) in memory.heaps() {
                    @let runtime = language::of(kind).name();
                    div { dt { (runtime) " heap in use" } dd { (bytes(heap.heap_in_use_bytes)) } }
                    div { dt { (runtime) " stacks in use" } dd { (bytes(heap.stack_in_use_bytes)) } }
                }
                @if !trend.live_basis.is_empty() && view.diagnosis.samples > 1 {
                    div { dt { (text::capital(&trend.live_basis)) } dd { (format::bytes_per_second(trend.live_slope_bytes_per_second)) } }
                }
                @if let Some(limit) = memory.limit_bytes.filter(|limit| *limit > 0) {
                    div {
                        dt { "Limit" }
                        dd {
                            (bytes(limit))
                            @let used = memory.limit_usage_bytes.unwrap_or(memory.resident_bytes);
                            ", " (format::percent(used as f64 / limit as f64)) " used"
                        }
                    }
                }
                @if let Some(left) = trend.seconds_to_limit.filter(|_| matches!(view.diagnosis.verdict, Verdict::Leak | Verdict::Growing)) {
                    div { dt { "Reaches the limit in" } dd { strong { (format::duration(left)) } } }
                }
                @for (kind, count) in sample.totals.tasks() {
                    div { dt { (text::capital(language::of(kind).noun())) "s" } dd { (format::count(count)) } }
                }
                @if sample.totals.threads > 0 { div { dt { "Threads" } dd { (format::count(sample.totals.threads)) } } }
            }
            @for words in text::kernel_words(&view.diagnosis) { p class="small" { (safe(&words)) } }
        }
    }
}

/// Where memory that is still there was first touched.
pub(super) fn growth(diagnosis: &Diagnosis) -> Markup {
    let sites = merged(&diagnosis.growth_sites);
    html! {
        @if !sites.is_empty() {
            section class="sites" aria-labelledby="growth" {
                h2 id="growth" { "Where new memory was first touched" }
                p class="small" { "Pages that came since observer looked, and are still there, by the stack that touched them. Who allocated is not who keeps." }
                @for (number, site) in sites.iter().enumerate() {
                    details data-key={ "site-" (number) } {
                        summary class="site" {
                            span class="number" title=[(site.rate >= 1.0).then(|| format::bytes_per_second(site.rate))] { (bytes(site.sum)) }
                            span class="via" { (safe(&site.largest.via)) }
                            code { (safe(&site.place)) }
                        }
                        div class="inside" { (frames(&site.largest.frames, own(&site.largest.frames).as_ref())) }
                    }
                }
            }
        }
    }
}

/// Sites that read the same, as they differ only inside the allocator.
struct Merged<'a> {
    place: String,
    sum: u64,
    /// Bytes per second.
    rate: f64,
    largest: &'a GrowthSite,
}

/// What grows most first; what is a fiftieth of the largest is left out.
fn merged(sites: &[GrowthSite]) -> Vec<Merged<'_>> {
    let mut merged: Vec<Merged<'_>> = Vec::new();
    for site in sites {
        let place = text::growth_place(site);
        match merged.iter_mut().find(|known| known.place == place && known.largest.via == site.via) {
            None => merged.push(Merged {
                place,
                sum: site.bytes,
                rate: site.bytes_per_second.max(0.0),
                largest: site,
            }),
            Some(known) => {
                known.sum = known.sum.saturating_add(site.bytes);
                known.rate += site.bytes_per_second.max(0.0);
                if site.bytes > known.largest.bytes {
                    known.largest = site;
                }
            }
        }
    }
    merged.sort_by(|one, other| other.rate.total_cmp(&one.rate).then(other.sum.cmp(&one.sum)));
    let least = merged.iter().map(|site| site.sum / 50).max().unwrap_or(0);
    merged.retain(|site| site.sum >= least);
    merged
}

/// The frame where the target's own code comes in.
fn own(frames: &[Frame]) -> Option<SourcePlace> {
    let frame = site::own(frames).and_then(|own| frames.get(own))?;
    Some(SourcePlace { function: site::name(frame), file: frame.file.clone(), line: frame.line })
}

pub(super) fn flame_graphs(view: &View) -> Markup {
    let (blocked, growth) = match &view.place {
        Place::Server { root, .. } => {
            let of = |kind: &str| format!("{root}/targets/{}/{kind}", path_part(&view.name));
            let grows = view.sample.growth.as_ref().is_some_and(|growth| !growth.sites.is_empty());
            ((!view.sample.groups.is_empty()).then(|| of("flamegraph.svg")), grows.then(|| of("growth.svg")))
        }
        Place::File { blocked, growth } => (blocked.clone(), growth.clone()),
    };
    let blocked_is_none = blocked.is_none();
    html! {
        @if blocked.is_some() || growth.is_some() {
            section class="flames" aria-labelledby="flames" {
                h2 id="flames" { "Flame graphs" }
                @if let Some(address) = blocked {
                    (flame_graph(view, "Blocked: width is how many wait there", &address, svg::height(&view.sample.groups), true))
                }
                @if let Some(address) = growth {
                    @let sites = view.sample.growth.as_ref().map(|growth| growth.sites.as_slice()).unwrap_or_default();
                    (flame_graph(view, "Growth: width is bytes first touched there and still held", &address, svg::growth_height(sites), blocked_is_none))
                }
            }
        }
    }
}

fn flame_graph(view: &View, name: &str, address: &str, height: usize, open: bool) -> Markup {
    let key = name.split(':').next().unwrap_or_default();
    html! {
        details data-key={ "flames-" (key) } open[open] {
            summary { (name) }
            div class="inside" {
                // A browser paints no frame that is out of sight: on a picture of the whole page, or printed, the
                // still one beneath shows.
                div class="flame" {
                    img src=(address) alt="" loading=[(!open).then_some("lazy")];
                    iframe sandbox="allow-scripts allow-modals" loading=[(!open).then_some("lazy")] title={ "Flame graph. " (name) } height=(height) src=(address) {}
                }
                @if let Place::Server { .. } = view.place {
                    p class="small" { "As it was when opened. " a href=(address) target="_blank" rel="noopener" { "Open it on its own" } }
                }
            }
        }
    }
}

/// Losses, what does not work here with its remedy, and what else a reader should know.
pub(super) fn not_seen(view: &View) -> Markup {
    let diagnosis = &view.diagnosis;
    let losses: Vec<String> = diagnosis
        .losses
        .iter()
        .filter(|(_, lost)| **lost > 0)
        .map(|(name, lost)| text::loss(name, *lost))
        .collect();
    let nothing = losses.is_empty() && diagnosis.degraded.is_empty() && diagnosis.notes.is_empty();
    html! {
        section class="unseen-by-us" aria-labelledby="not-seen" {
            h2 id="not-seen" { "What was not seen" }
            @if nothing { p { "Nothing was lost, and everything works here." } }
            @if !diagnosis.notes.is_empty() { ul { @for note in &diagnosis.notes { li { (safe(note)) } } } }
            @if !losses.is_empty() { p { "Lost since observation began: " (safe(&losses.join(", "))) "." } }
            @if !diagnosis.degraded.is_empty() {
                ul class="degraded" {
                    @for lack in &diagnosis.degraded {
                        li {
                            strong { (safe(&lack.feature)) } ": " (safe(&lack.reason))
                            @if !lack.remedy.is_empty() { " " span class="remedy" { "Remedy: " (safe(&lack.remedy)) } }
                        }
                    }
                }
            }
        }
    }
}

/// The same for tools.
pub(super) fn downloads(view: &View) -> Markup {
    let Place::Server { root, .. } = &view.place else { return html! {} };
    let part = path_part(&view.name);
    let target = |file: &str| format!("{root}/targets/{part}/{file}");
    let api = |what: &str| format!("{root}/api/v1/targets/{part}/{what}");
    html! {
        section class="downloads" aria-labelledby="downloads" {
            h2 id="downloads" { "For tools" }
            ul {
                li { a href=(api("diagnosis")) { "diagnosis" } " " a href=(api("snapshot")) { "snapshot" } " " a href=(api("history")) { "history" } " " span class="small" { "JSON" } }
                li { a href=(target("blocked.pb.gz")) { "blocked.pb.gz" } " " a href=(target("growth.pb.gz")) { "growth.pb.gz" } " " span class="small" { "pprof" } }
                li { a href=(target("flamegraph.svg")) { "flamegraph.svg" } " " a href=(target("growth.svg")) { "growth.svg" } " " span class="small" { "flame graphs" } }
            }
        }
    }
}
