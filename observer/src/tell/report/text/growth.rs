//! Where memory was first touched, and what the target asked of the kernel, in lines.

use std::collections::BTreeMap;

use crate::diagnose::{Diagnosis, site};
use crate::escape::escape;
use crate::format::{bytes, bytes_per_second, count, counted};
use crate::sample::{GrowthSite, MappedSource};
use crate::tell::report::allocated::frame_words;

/// The sites that grow most, each from where the target's own code comes in; what is a fiftieth of the first is left
/// out.
pub(super) fn growth_sites(sites: &[GrowthSite], period: u64) -> Vec<String> {
    // Sites that differ only inside the allocator read the same.
    let mut sums: BTreeMap<(&str, String), (f64, u64)> = BTreeMap::new();
    for site in sites {
        let (rate, sum) = sums.entry((&site.via, growth_place(site))).or_default();
        *rate += site.bytes_per_second;
        *sum = sum.saturating_add(site.bytes);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    let rank = |(rate, sum): (f64, u64)| (rate.max(0.0), sum);
    sums.sort_by(|(_, one), (_, other)| {
        let ((rate, sum), (other_rate, other_sum)) = (rank(*one), rank(*other));
        other_rate.total_cmp(&rate).then(other_sum.cmp(&sum))
    });
    let fastest = sums.first().map_or(0.0, |(_, (rate, _))| rate.max(0.0));
    let most = sums.iter().map(|(_, (_, sum))| *sum).max().unwrap_or(0);
    let worth = sums
        .into_iter()
        .filter(|(_, (rate, sum))| *sum >= most / 50 || fastest > 0.0 && *rate >= fastest / 50.0);
    let line = |((via, place), (rate, sum)): ((&str, String), (f64, u64))| {
        let grows = if rate >= 1.0 { format!("{}, ", bytes_per_second(rate)) } else { String::new() };
        format!("{grows}{} by {}: {place}", bytes(sum as f64), escape(via))
    };
    let mut lines: Vec<String> = worth.take(5).map(line).collect();
    if period > 0 && !lines.is_empty() {
        lines.push(format!(
            "(pages that are still there, by who touched them first; one page fault in {} is sampled)",
            count(period)
        ));
    }
    lines
}

pub(crate) fn growth_place(site: &GrowthSite) -> String {
    // From the allocator's door on: what is inside it is the same for every site.
    let inside = site::own(&site.frames).unwrap_or(0).saturating_sub(1);
    let names: Vec<String> = site.frames.iter().skip(inside).take(3).map(frame_words).collect();
    if names.is_empty() { "(no stack)".to_owned() } else { names.join(" < ") }
}

/// What the target asked of the kernel, in a line or two.
pub(crate) fn kernel_words(diagnosis: &Diagnosis) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(growth) = &diagnosis.growth {
        let mut facts = vec![counted(growth.page_faults, "page fault")];
        for (verb, by_call) in
            [("mapped", &growth.mapped.mapped_bytes), ("returned", &growth.mapped.unmapped_bytes)]
        {
            let calls: Vec<String> = by_call
                .iter()
                .filter(|(_, sum)| **sum > 0)
                .map(|(call, sum)| format!("{} by {}", bytes(*sum as f64), escape(call)))
                .collect();
            if !calls.is_empty() {
                facts.push(format!("{verb} {}", calls.join(", ")));
            }
        }
        let source = match growth.mapped.source {
            MappedSource::Maps => " (difference of the memory maps)",
            MappedSource::Exact => " (every call counted)",
            _ => "",
        };
        words.push(format!("{}{source}", facts.join("; ")));
        if growth.touched_bytes > 0 {
            words.push(format!(
                "first touched {}, of which {} given back since (as sampled)",
                bytes(growth.touched_bytes as f64),
                bytes(growth.returned_bytes as f64)
            ));
        }
    }
    if let Some(waits) = diagnosis.waits.as_ref().filter(|waits| waits.ended > 0) {
        words.push(format!("{} ended", counted(waits.ended, "futex wait")));
    }
    words
}
