//! The memory curve: how it ran, whether it still rises, and how fast what lives in it grows.
//!
//! Reads memory points, gives a [`MemoryTrend`]. In a garbage collected target the curve is a sawtooth: what counts is
//! the line through its troughs, right after collections. A cache that fills, a sawtooth and a start-up all rise for a
//! while; only a rise that is still going on at the end, at the pace it had, is called one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::history::{History, MemoryPoint};
use super::trend::{self, Point};
use crate::language;
use crate::sample::Memory;

/// Values of the curve kept for drawing.
const CURVE_POINTS: usize = 60;
/// Rises below this are the noise of allocators.
const LEAST_RISE_BYTES: f64 = 4.0 * 1024.0 * 1024.0;

/// The memory of the target over the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryTrend {
    /// Resident at the first and the last sample.
    pub first_bytes: u64,
    pub last_bytes: u64,
    /// Robust slope of resident memory since its last big drop.
    pub slope_bytes_per_second: f64,
    /// What `live_*` measure: `heap after collections and stacks`, `heap and stacks, garbage included`,
    /// `anonymous memory`, and where that rises while Go's own does not, `anonymous memory outside Go's heap and
    /// stacks`.
    pub live_basis: String,
    /// The same slope for what is in use.
    pub live_slope_bytes_per_second: f64,
    /// Collections of garbage seen as falls of the heap.
    pub collections: u64,
    /// Garbage is not part of `live_*`, as far as can be told.
    pub live_is_certain: bool,
    /// The rise is beyond noise and goes on at the end of the window.
    pub still_rising: bool,
    pub limit_bytes: Option<u64>,
    /// What counts against the limit now.
    pub limit_usage_bytes: Option<u64>,
    /// Until the limit at the present slope; absent when nothing grows or nothing limits.
    pub seconds_to_limit: Option<f64>,
    /// Resident memory, evenly spaced in time.
    pub curve: Vec<u64>,
}

/// A trend, and the points it rests on.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub trend: MemoryTrend,
    /// Lower envelope of what is in use.
    pub floor: Vec<Point>,
    /// Every moment right after a collection; for other targets the floor.
    pub troughs: Vec<Point>,
    /// Garbage in a point of the floor, typically: a sample comes up to an interval after a collection.
    pub noise: f64,
}

fn in_use(memory: &Memory) -> f64 {
    match &memory.heap {
        Some(heap) => {
            let objects =
                if heap.heap_objects_bytes > 0 { heap.heap_objects_bytes } else { heap.heap_in_use_bytes };
            objects as f64 + heap.stack_in_use_bytes as f64
        }
        None => memory.anonymous_bytes as f64,
    }
}

/// Anonymous memory beyond the most that the runtime's heap and stacks had in use until then: it keeps what it once had,
/// so that what lies above that is C's, or of whatever else the process has in it.
fn outside_heap(points: &[MemoryPoint]) -> Vec<Point> {
    let mut most = 0;
    let mut outside = Vec::with_capacity(points.len());
    for point in points {
        let Some(heap) = &point.memory.heap else { continue };
        most = most.max(heap.heap_in_use_bytes.saturating_add(heap.stack_in_use_bytes));
        let value = point.memory.anonymous_bytes.saturating_sub(most) as f64;
        outside.push(Point { at: point.at, value });
    }
    outside
}

fn series(points: &[MemoryPoint], value: impl Fn(&Memory) -> f64) -> Vec<Point> {
    points.iter().map(|p| Point { at: p.at, value: value(&p.memory) }).collect()
}

/// The part after the last fall by a quarter: what is gone says nothing about what grows.
fn since_last_drop(points: &[Point]) -> &[Point] {
    let mut start = 0;
    let mut peak = 0.0f64;
    for (place, point) in points.iter().enumerate() {
        if point.value < 0.75 * peak {
            start = place;
            peak = point.value;
        }
        peak = peak.max(point.value);
    }
    let rest = points.get(start..).unwrap_or_default();
    // Too short to say anything: then the whole.
    if rest.len() < 8 { points } else { rest }
}

pub(super) fn read(history: &History) -> Reading {
    let points = history.memory();
    let resident = series(points, |m| m.resident_bytes as f64);
    let used = series(points, in_use);
    let collected = points.iter().any(|p| p.memory.heap.is_some());
    let slope = trend::slope(since_last_drop(&resident));
    let last = points.last().map(|p| p.memory.clone()).unwrap_or_default();

    let window = history.window_seconds();
    let spans = |points: &[Point]| match (points.first(), points.last()) {
        (Some(first), Some(last)) => last.at - first.at,
        _ => 0.0,
    };
    let enough = |troughs: &[Point]| troughs.len() >= 2 && spans(troughs) >= 0.3 * window;
    let mut troughs = if collected { trend::troughs(&used, 256.0 * 1024.0) } else { Vec::new() };
    if collected && !enough(&troughs) {
        // Where nearly all lives, a collection does not show as a fall: then the runtime's own count tells.
        let counted = lowest_of_cycles(points);
        if enough(&counted) {
            troughs = counted;
        }
    }
    let certain = !collected || enough(&troughs);
    let floor = match (collected, certain) {
        (true, true) if troughs.len() >= 6 => lowest_of_chunks(&troughs),
        (true, true) => troughs.clone(),
        (true, false) => used.clone(),
        (false, _) => since_last_drop(&trend::envelope(&used, points.len().clamp(1, 60))).to_vec(),
    };
    let live_slope = if collected && certain && troughs.len() >= 6 {
        trend::low_slope(&troughs)
    } else {
        trend::slope(&floor)
    };
    let basis = match (collected, certain) {
        (true, true) => "heap after collections and stacks",
        (true, false) => "heap and stacks, garbage included",
        (false, _) => "anonymous memory",
    };
    let mut rises_between: Vec<f64> =
        used.windows(2).map(|pair| pair[1].value - pair[0].value).filter(|rise| *rise > 0.0).collect();
    let noise = if collected { 0.3 * trend::median(&mut rises_between) } else { 0.0 };
    let still_rising = if collected && certain {
        rises(&floor, &used, window, noise, LEAST_RISE_BYTES)
    } else {
        // Of a small process a small rise is much already.
        let least = (0.5 * used.first().map_or(0.0, |p| p.value)).clamp(1048576.0, LEAST_RISE_BYTES);
        rises(&used, &used, window, 0.0, if collected { LEAST_RISE_BYTES } else { least })
    };
    let usage = last.limit_usage_bytes.unwrap_or(last.resident_bytes);
    let pace = if slope > 0.0 { slope } else { live_slope };
    let seconds_to_limit = last
        .limit_bytes
        .filter(|_| pace > 0.0)
        .map(|limit| limit.saturating_sub(usage) as f64 / pace)
        .filter(|seconds| seconds.is_finite());
    let outside = if collected && !still_rising { outside_heap(points) } else { Vec::new() };
    let outside_rises = rises(&outside, &outside, window, 0.0, LEAST_RISE_BYTES);
    let runtime = points
        .iter()
        .rev()
        .find_map(|p| p.memory.heaps().next())
        .map_or("", |(kind, _)| language::of(kind).name());
    let outside_basis = format!("anonymous memory outside {runtime}'s heap and stacks");
    let (floor, live_slope, basis, certain, still_rising) = if outside_rises {
        let slope = trend::slope(&outside);
        (outside, slope, outside_basis, true, true)
    } else {
        (floor, live_slope, basis.to_owned(), certain, still_rising)
    };
    let trend = MemoryTrend {
        first_bytes: points.first().map_or(0, |p| p.memory.resident_bytes),
        last_bytes: last.resident_bytes,
        slope_bytes_per_second: finite(slope),
        live_basis: basis,
        live_slope_bytes_per_second: finite(live_slope),
        collections: troughs.len() as u64,
        live_is_certain: certain,
        still_rising,
        limit_bytes: last.limit_bytes,
        limit_usage_bytes: last.limit_usage_bytes,
        seconds_to_limit,
        curve: curve(&resident),
    };
    let troughs = if collected && certain && !outside_rises { troughs } else { floor.clone() };
    Reading { trend, floor, troughs, noise: if outside_rises { 0.0 } else { noise } }
}

/// The lowest point after each collection that the runtime counted within the window.
fn lowest_of_cycles(points: &[MemoryPoint]) -> Vec<Point> {
    let mut lowest: Vec<Point> = Vec::new();
    let mut cycle = None;
    for point in points {
        let Some(now) = point.memory.heap.as_ref().and_then(|heap| heap.collections) else { continue };
        let used = Point { at: point.at, value: in_use(&point.memory) };
        // A count that falls is a torn read or another life.
        match cycle.replace(now) {
            Some(before) if now > before => lowest.push(used),
            Some(before) if now == before => {
                if let Some(last) = lowest.last_mut().filter(|last| used.value < last.value) {
                    *last = used;
                }
            }
            _ => {}
        }
    }
    lowest
}

/// Of as many troughs each time the lowest: the others hold what was allocated between a collection and its sample.
/// With equal chunks what remains of that is the same in each, and does not tilt the line.
fn lowest_of_chunks(troughs: &[Point]) -> Vec<Point> {
    let chunk = (troughs.len() / 4).clamp(1, 5);
    let rest = troughs.len() % chunk;
    // What does not fill a chunk is dropped from the beginning: the end matters more.
    troughs[rest..]
        .chunks(chunk)
        .filter_map(|chunk| chunk.iter().copied().min_by(|a, b| a.value.total_cmp(&b.value)))
        .collect()
}

/// Beyond noise, in every part of the window, and not levelling off.
fn rises(floor: &[Point], used: &[Point], window: f64, noise: f64, least: f64) -> bool {
    let (Some(first), Some(last)) = (floor.first(), floor.last()) else { return false };
    let parts = trend::envelope(floor, 6);
    if parts.len() < 3 || last.at - first.at < 0.3 * window {
        return false;
    }
    let rise = parts[parts.len() - 1].value - parts[0].value;
    let ups = parts.windows(2).filter(|pair| pair[1].value > pair[0].value + 0.02 * rise).count();
    let slope = trend::slope(floor);
    let enough = rise >= least.max(0.03 * parts[0].value).max(3.0 * noise)
        && rise >= 4.0 * trend::scatter(floor, slope);
    let steady = ups * 5 >= (parts.len() - 1) * 4;
    let [one, _, three] = trend::thirds(&parts);
    // The end of the window, too, must lie above what came before: a fall there ends the rise.
    let end = used.last().map_or(0.0, |p| p.value);
    enough && steady && three >= 0.5 * one && three >= 0.12 * rise && end >= parts[parts.len() / 2].value
}

fn curve(points: &[Point]) -> Vec<u64> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let wanted = points.len().min(CURVE_POINTS);
    let step = (last.at - first.at) / wanted.saturating_sub(1).max(1) as f64;
    (0..wanted).map(|place| trend::value_at(points, first.at + step * place as f64).max(0.0) as u64).collect()
}

pub(super) fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{HeapUsage, Sample};

    /// A heap where all that is allocated lives, which the runtime collects whenever it has doubled.
    fn cache(collections: bool) -> History {
        let mut history = History::new();
        let (mut cycles, mut goal) = (0, 4u64 << 20);
        for second in 0..60u64 {
            let heap = (4 << 20) + second * (1 << 20);
            while heap >= goal {
                cycles += 1;
                goal *= 2;
            }
            let go = HeapUsage {
                heap_in_use_bytes: heap,
                heap_objects_bytes: heap,
                stack_in_use_bytes: 1 << 20,
                collections: collections.then_some(cycles),
            };
            let memory = Memory { resident_bytes: 2 * heap, heap: Some(go), ..Memory::default() };
            history.push(Sample { at_seconds: second as f64, memory, ..Sample::default() });
        }
        history
    }

    /// A minute of a Go heap that falls back to `low` every five seconds, in a process with `outside` bytes beside it.
    fn go_and(low: u64, outside: impl Fn(u64) -> u64) -> MemoryTrend {
        let mut history = History::new();
        for second in 0..60u64 {
            let heap = low + (second % 5) * (8 << 20);
            let go = HeapUsage {
                heap_in_use_bytes: heap,
                heap_objects_bytes: heap,
                stack_in_use_bytes: 1 << 20,
                collections: Some(second / 5),
            };
            let anonymous_bytes = low + (36 << 20) + outside(second);
            let resident_bytes = anonymous_bytes + (8 << 20);
            let memory = Memory { resident_bytes, anonymous_bytes, heap: Some(go), ..Memory::default() };
            history.push(Sample { at_seconds: second as f64, memory, ..Sample::default() });
        }
        read(&history).trend
    }

    #[test]
    fn what_c_keeps_beside_a_go_heap_is_seen() {
        let flat = go_and(40 << 20, |_| 100 << 20);
        assert!(!flat.still_rising && !flat.live_basis.contains("outside"), "{flat:?}");
        let rising = go_and(40 << 20, |second| second * (512 << 10));
        assert!(rising.still_rising && rising.live_is_certain, "{rising:?}");
        assert_eq!(rising.live_basis, "anonymous memory outside Go's heap and stacks");
        assert!((rising.live_slope_bytes_per_second / 524_288.0 - 1.0).abs() < 0.1, "{rising:?}");
        let filled = go_and(40 << 20, |second| second.min(20) * (4 << 20));
        assert!(!filled.still_rising, "it has stopped: {filled:?}");
    }

    #[test]
    fn a_collection_that_frees_nothing_is_seen_by_the_runtimes_own_count() {
        let without = read(&cache(false)).trend;
        assert!(!without.live_is_certain, "no fall of the heap, no certainty");
        let with = read(&cache(true)).trend;
        assert!(with.live_is_certain && with.still_rising, "{with:?}");
        assert!((with.live_slope_bytes_per_second / 1048576.0 - 1.0).abs() < 0.1, "{with:?}");
    }
}
