//! What is remembered to be shown: full detail lately, peaks and restarts for days, and never more than its bounds.

use observer::sample::{Frame, Group, GroupId, Memory, Sample};
use observer::timeline::Timeline;

const BEGIN: f64 = 1_700_000_000.0;

fn group(id: u64, count: u64, bytes: u64, frames: usize) -> Group {
    let frame = |depth: usize| Frame {
        function: format!("example.com/shop/checkout.(*Handler{id}).step{depth}"),
        file: Some(format!("/srv/build/shop/checkout/handler{id}.go")),
        line: Some(depth as u32),
        ..Frame::default()
    };
    Group {
        id: GroupId(id),
        count,
        state: "waiting".into(),
        wait_reason: "chan send".into(),
        stack_bytes: bytes,
        frames: (0..frames).map(frame).collect(),
        ..Group::default()
    }
}

fn sample(resident: u64, groups: Vec<Group>) -> Sample {
    Sample { memory: Memory { resident_bytes: resident, ..Memory::default() }, groups, ..Sample::default() }
}

#[test]
fn the_last_quarter_of_an_hour_is_whole_and_days_are_there() {
    let mut timeline = Timeline::default();
    let day = 86_400;
    for second in 0..2 * day {
        timeline.push(
            BEGIN + f64::from(second),
            &sample(1 << 20, vec![group(1, u64::from(second as u32), 4096, 3)]),
        );
    }
    let now = BEGIN + f64::from(2 * day) - 1.0;
    let lately = timeline.points(now - 890.0, usize::MAX);
    assert_eq!(lately.len(), 891, "every sample of the last quarter of an hour");
    let all = timeline.points(0.0, usize::MAX);
    assert!(all[0].at < BEGIN + 300.0, "begins at {}", all[0].at - BEGIN);
    assert!(all.is_sorted_by(|one, next| one.at < next.at));
    assert_eq!(all.last().map(|point| (point.at, point.groups[0].count)), Some((now, 2 * day as u64 - 1)));
    let gaps = |from: f64, to: f64| {
        let inside: Vec<f64> = all.iter().map(|p| p.at).filter(|at| (from..to).contains(at)).collect();
        inside.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    };
    assert!(gaps(now - 7_200.0, now - 900.0) <= 20.0, "tens of seconds over two hours");
    assert!(gaps(BEGIN, now) <= 480.0, "minutes over two days: {}", gaps(BEGIN, now));
}

#[test]
fn thinning_keeps_peaks_troughs_and_restarts() {
    let mut timeline = Timeline::default();
    for second in 0..36_000_u32 {
        let resident = match second {
            5_003 => 900 << 20,
            5_033 => 1 << 20,
            _ => 100 << 20,
        };
        let mut sample = sample(resident, Vec::new());
        sample.generation = u32::from(second >= 7_777);
        timeline.push(BEGIN + f64::from(second), &sample);
    }
    let points = timeline.points(0.0, usize::MAX);
    assert!(points.iter().any(|point| point.resident_bytes == 900 << 20 && point.at == BEGIN + 5_003.0));
    assert!(points.iter().any(|point| point.resident_bytes == 1 << 20 && point.at == BEGIN + 5_033.0));
    let restart = points.iter().position(|point| point.generation == 1).expect("the second life");
    assert!(points[restart - 1].generation == 0 && (points[restart].at - BEGIN - 7_777.0) < 60.0);
    // And when only few are asked for.
    let few = timeline.points(0.0, 50);
    assert!((40..=50).contains(&few.len()), "{}", few.len());
    assert!(few.iter().any(|point| point.resident_bytes == 900 << 20));
    assert_eq!(few.last(), points.last());
    assert_eq!(timeline.points(0.0, 1), points[points.len() - 1..]);
    assert!(timeline.points(0.0, 0).is_empty());
}

#[test]
fn a_hostile_target_costs_no_more_than_the_bounds() {
    let mut timeline = Timeline::default();
    let mut next = 0;
    for second in 0..3_000_u32 {
        let groups = (0..3_000).map(|_| {
            next += 1;
            // Deep stacks only now and then: making them is what takes the time here.
            group(next, u64::MAX, u64::MAX - next, if next.is_multiple_of(100) { 300 } else { 1 })
        });
        let groups: Vec<Group> = if second % 20 == 0 { groups.collect() } else { groups.take(40).collect() };
        timeline.push(BEGIN + f64::from(second), &sample(u64::from(second) << 20, groups));
        if second % 500 == 0 {
            assert!(timeline.bytes() < 400 << 10, "{} bytes at {second}", timeline.bytes());
        }
    }
    assert!(timeline.bytes() < 400 << 10, "{} bytes", timeline.bytes());
    let (known, evicted) = timeline.groups_known();
    assert!(known <= 200 && evicted > 0, "{known} groups, {evicted} evicted");
    let points = timeline.points(0.0, usize::MAX);
    assert!(points[0].at < BEGIN + 120.0, "the curve is whole: from {}", points[0].at - BEGIN);
    for named in points.iter().flat_map(|point| &point.groups) {
        assert!(timeline.group(named.id).is_some(), "a point names a group that is not known");
    }
    assert!(!points.last().expect("points").groups.is_empty(), "the last moment is whole");
}

#[test]
fn groups_that_no_point_names_are_forgotten() {
    let mut timeline = Timeline::default();
    timeline.push(BEGIN, &sample(1, vec![group(1, 5, 5, 3)]));
    assert!(timeline.group(GroupId(1)).is_some());
    // After more than the two weeks that are kept.
    for day in 1..20 {
        timeline.push(BEGIN + f64::from(day) * 86_400.0, &sample(1, vec![group(2, 5, 5, 3)]));
    }
    assert!(timeline.group(GroupId(1)).is_none());
    assert!(timeline.group(GroupId(2)).is_some());
}

#[test]
fn odd_times_are_harmless_and_a_clock_set_back_leaves_no_future() {
    let mut timeline = Timeline::default();
    for at in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        timeline.push(at, &sample(1, vec![group(1, 1, 1, 1)]));
    }
    assert!(timeline.is_empty() && timeline.points(0.0, 10).is_empty());
    for second in 0..5_000 {
        timeline.push(BEGIN + f64::from(second), &sample(1, vec![group(1, 1, 1, 1)]));
    }
    timeline.push(BEGIN + 1_000.0, &sample(2, vec![group(2, 1, 1, 1)]));
    let points = timeline.points(0.0, usize::MAX);
    assert!(points.is_sorted_by(|one, next| one.at < next.at));
    assert_eq!(points.last().map(|point| (point.at, point.resident_bytes)), Some((BEGIN + 1_000.0, 2)));
    assert!(points.len() > 50, "what lies before stays");
}

#[test]
fn a_preferred_group_is_kept_though_others_are_larger() {
    let mut timeline = Timeline::default();
    let groups = || (1..100).map(|id| group(id, 10, 1_000 * id, 1)).collect();
    timeline.push(BEGIN, &sample(1, groups()));
    let named = |timeline: &Timeline| {
        timeline.last().expect("a point").groups.iter().map(|group| group.id.0).collect::<Vec<_>>()
    };
    assert!(!named(&timeline).contains(&3) && named(&timeline).contains(&99));
    timeline.prefer([GroupId(3)]);
    timeline.push(BEGIN + 1.0, &sample(1, groups()));
    assert!(named(&timeline).contains(&3) && named(&timeline).contains(&99));
}

/// The budget: what fifty services with thirty groups cost after three days.
#[test]
fn fifty_targets_fit() {
    let mut timeline = Timeline::default();
    let frames: Vec<_> = (0..30).map(|id| group(id, 0, 0, 12).frames).collect();
    let mut noise = 1_u64;
    // Ten seconds apart, and one in the hour that is left: simulating is what takes the time here.
    let seconds = (0..3 * 86_400_u32).step_by(10).chain(3 * 86_400..3 * 86_400 + 3_600);
    for second in seconds {
        let groups: Vec<Group> = (0..30_u64)
            .map(|id| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let count = if id == 0 { u64::from(second) * 16 } else { 20 * id + (noise >> 60) };
                Group { frames: frames[id as usize].clone(), ..group(id, count, count * 2_048, 0) }
            })
            .collect();
        timeline.push(BEGIN + f64::from(second), &sample((300 << 20) + (noise >> 40), groups));
    }
    let bytes = timeline.bytes();
    println!("{bytes} bytes for {} moments", timeline.len());
    assert!(bytes * 50 <= 17 << 20, "50 timelines cost {} MiB", (bytes * 50) >> 20);
}
