//! What tracked allocations left behind, as lines of the text report: all of it, then by site.

use crate::diagnose::{Diagnosis, site};
use crate::escape::escape;
use crate::format::{bytes, bytes_per_second, counted};
use crate::sample::AllocationSite;
use crate::sample::Frame;

/// Sites shown.
const SITES: usize = 5;

/// Nothing where allocations are not tracked.
pub(crate) fn lines(diagnosis: &Diagnosis) -> Vec<String> {
    let Some(all) = &diagnosis.allocations else { return Vec::new() };
    let allocators: Vec<String> = all.allocators.iter().map(|name| escape(name).into_owned()).collect();
    let mut lines = vec![format!(
        "{} of {} allocated since attach by {}, from {} of which {} were freed: one byte of {} is sampled \
         (--allocations: {} in the allocator's code, which the kernel takes out again)",
        bytes(all.live_bytes as f64),
        bytes(all.allocated_bytes as f64),
        allocators.join(", "),
        counted(all.samples, "sample"),
        all.frees,
        bytes(all.sample_bytes as f64),
        escape(&all.hook)
    )];
    let most = diagnosis.allocation_sites.first().map_or(0, |site| site.live_bytes);
    let worth = diagnosis.allocation_sites.iter().filter(|site| site.live_bytes >= most / 50);
    lines.extend(worth.take(SITES).map(line));
    lines
}

fn line(allocation: &AllocationSite) -> String {
    let own = site::own(&allocation.frames).unwrap_or(0);
    let names: Vec<String> = allocation.frames.iter().skip(own).take(3).map(frame_words).collect();
    let place = if names.is_empty() { "(no stack)".to_owned() } else { names.join(" < ") };
    format!(
        "{} (± {}), {}: {place}; {} of {} freed",
        bytes(allocation.live_bytes as f64),
        bytes(allocation.error_bytes as f64),
        bytes_per_second(allocation.growth_bytes_per_second),
        allocation.frees,
        counted(allocation.samples, "sample")
    )
}

pub(super) fn frame_words(frame: &Frame) -> String {
    let position = site::file_line(frame.file.as_deref(), frame.line);
    if position.is_empty() { site::name(frame) } else { format!("{} {position}", site::name(frame)) }
}
