//! What Prometheus is shown of a board: of a simulated leak, of hostile names, of fifty targets, of one that has ended.

use std::sync::Arc;
use std::time::Instant;

use observer::board::Board;
use observer::sample::{Degraded, Frame, Group, GroupId, GroupKind, Losses, Sample, Totals, Waits};
use observer::tell::metrics::{Metrics, Options};

use crate::support::told::{Series, leaking, series, state};

fn scrape(metrics: &Metrics) -> Vec<Series> {
    series(&String::from_utf8(metrics.text()).expect("the text format is UTF-8"))
}

/// The values of a metric with these labels.
fn values(all: &[Series], name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
    let wanted = |series: &&Series| {
        series.name == name
            && labels.iter().all(|(label, value)| series.labels.get(*label).is_some_and(|v| v == value))
    };
    all.iter().filter(wanted).map(|series| series.value).collect()
}

#[track_caller]
fn value(all: &[Series], name: &str, labels: &[(&str, &str)]) -> f64 {
    let found = values(all, name, labels);
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0]
}

#[test]
fn a_leak_is_told_with_its_line_rate_and_bytes() {
    let board = Arc::new(Board::default());
    let state = leaking("checkout");
    let culprit = state.diagnosis.culprits[0].clone();
    board.publish(state);
    let all = scrape(&Metrics::new(board));

    let target = [("target", "checkout")];
    assert_eq!(value(&all, "observer_target_up", &target), 1.0);
    assert_eq!(value(&all, "observer_leak_suspected", &target), 1.0);
    let line = ("site", "checkout.(*Quoter).fetch checkout.go:41");
    let growth = value(&all, "observer_leak_growth_bytes_per_second", &[target[0], line]);
    assert!((growth / (16.0 * 36.0 * 1024.0) - 1.0).abs() < 0.25, "{growth}");
    let site = [target[0], line, ("kind", "goroutine"), ("reason", "chan send")];
    assert_eq!(value(&all, "observer_site_blocked", &site), culprit.group.count as f64);
    assert_eq!(value(&all, "observer_site_growth_per_second", &site), culprit.growth_per_second);
    assert!(value(&all, "observer_site_retained_bytes", &site) > 1e6);
    let id = format!("{:016x}", culprit.group.id.0);
    assert_eq!(values(&all, "observer_site_blocked", &[("stack_id", &id)]).len(), 1);
    assert!(value(&all, "observer_go_heap_in_use_bytes", &target) > 1e6);
    assert!(value(&all, "observer_memory_growth_bytes_per_second", &target) > 1e5);
    assert_eq!(value(&all, "observer_memory_limit_bytes", &target), f64::from(1 << 30));

    let with_pid: Vec<_> = all.iter().filter(|series| series.labels.contains_key("pid")).collect();
    assert_eq!(with_pid.len(), 1);
    assert_eq!(with_pid[0].name, "observer_target_info");
}

#[test]
fn what_is_gone_vanishes_and_the_verdict_stays() {
    let board = Arc::new(Board::default());
    let metrics = Metrics::new(Arc::clone(&board));
    let mut state = leaking("checkout");
    board.publish(state.clone());
    assert_eq!(values(&scrape(&metrics), "observer_resident_memory_bytes", &[]).len(), 1);

    state.up = false;
    board.publish(state);
    let all = scrape(&metrics);
    assert_eq!(value(&all, "observer_target_up", &[]), 0.0);
    assert_eq!(value(&all, "observer_leak_suspected", &[]), 1.0);
    assert_eq!(values(&all, "observer_leak_growth_bytes_per_second", &[]).len(), 1);
    assert_eq!(values(&all, "observer_memory_limit_bytes", &[]).len(), 1);
    for gone in ["observer_resident_memory_bytes", "observer_site_blocked", "observer_blocked"] {
        assert!(values(&all, gone, &[]).is_empty(), "{gone}");
    }

    board.forget("checkout");
    let all = scrape(&metrics);
    assert!(all.iter().all(|series| !series.labels.contains_key("target")), "{all:?}");
    assert_eq!(value(&all, "observer_targets", &[]), 0.0);
}

/// Many groups of a target, the first the largest.
fn groups(count: u64) -> Vec<Group> {
    (0..count)
        .map(|id| Group {
            id: GroupId(id),
            state: "waiting".into(),
            wait_reason: "select".into(),
            count: 1 + (count - id) * 10,
            retained_bytes: Some(1000),
            frames: [Frame {
                function: format!("shop.(*Worker{id}).run"),
                file: Some("/src/shop/worker.go".into()),
                line: Some(u32::try_from(id % 1000).unwrap()),
                ..Frame::default()
            }]
            .into(),
            ..Group::default()
        })
        .collect()
}

#[test]
fn sites_beyond_the_places_are_summed_and_nothing_is_lost() {
    let board = Arc::new(Board::default());
    let metrics = Metrics::with_options(Arc::clone(&board), &Options { sites: 20 }).unwrap();
    let mut sample = Sample { groups: groups(2000), ..Sample::default() };
    sample.groups.push(Group { count: 7, state: "running".into(), ..Group::default() });
    sample.totals = Totals { tasks: Some(1), members_left_out: 500, ..Totals::default() };
    let members: u64 = sample.groups[..2000].iter().map(|group| group.count).sum();
    board.publish(state("shop", sample));

    let all = scrape(&metrics);
    let sites = values(&all, "observer_site_blocked", &[]);
    assert_eq!(sites.len(), 20 + 2, "20 places, the rest of `select`, and those that the sample left out");
    assert_eq!(sites.iter().sum::<f64>(), (members + 500) as f64);
    assert_eq!(value(&all, "observer_blocked", &[("kind", "goroutine")]), (members + 500) as f64);
    let other = [("site", "~other"), ("stack_id", "~other")];
    assert_eq!(values(&all, "observer_site_blocked", &other).len(), 2);
    assert!(values(&all, "observer_site_growth_per_second", &other).is_empty());

    metrics.set_options(&Options { sites: 3 });
    assert_eq!(values(&scrape(&metrics), "observer_site_blocked", &[]).len(), 3 + 2);
}

#[test]
fn groups_that_differ_by_creator_only_are_one_series() {
    let board = Arc::new(Board::default());
    let mut twice = groups(1);
    twice.extend(groups(1));
    for group in &mut twice {
        group.state = "syscall".into();
        group.wait_reason = "".into();
    }
    board.publish(state("shop", Sample { groups: twice, ..Sample::default() }));
    let all = scrape(&Metrics::new(board));
    assert_eq!(value(&all, "observer_site_blocked", &[("reason", "syscall")]), 22.0);
    assert_eq!(value(&all, "observer_site_retained_bytes", &[]), 2000.0);
}

#[test]
fn a_hostile_target_adds_few_and_harmless_series() {
    let board = Arc::new(Board::default());
    let evil = format!("a\"}} 1\nobserver_fake 1\r\u{1b}[2J\\{}", "x".repeat(20_000));
    let groups = (0..3000)
        .map(|id| Group {
            id: GroupId(id),
            kind: if id % 2 == 0 { GroupKind::Goroutine } else { GroupKind::Thread },
            state: evil.clone().into(),
            wait_reason: format!("{id}{evil}").into(),
            count: u64::MAX,
            retained_bytes: Some(u64::MAX),
            frames: [Frame { function: evil.clone(), file: Some(evil.clone()), ..Frame::default() }].into(),
            ..Group::default()
        })
        .collect();
    let mut sample = Sample { groups, ..Sample::default() };
    sample.memory.resident_bytes = u64::MAX;
    sample.totals.members_left_out = u64::MAX;
    sample.waits = Some(Waits { ended: u64::MAX, log2_microseconds: vec![u64::MAX; 200] });
    sample.degraded =
        (0..3000).map(|id| Degraded { feature: format!("{id}{evil}"), ..Degraded::default() }).collect();
    let mut state = state("evil", sample);
    state.info.exe.clone_from(&evil);
    state.interval_seconds = f64::NAN;
    board.publish(state);
    board.lose(&(0..3000).map(|id| (format!("{id}{evil}"), u64::MAX)).collect::<Losses>());

    let metrics = Metrics::new(board);
    let text = String::from_utf8(metrics.text()).unwrap();
    let all = series(&text);
    assert!(
        all.iter().all(|series| series.name.starts_with("observer_") || series.name.starts_with("process_"))
    );
    assert!(values(&all, "observer_fake", &[]).is_empty());
    assert!(text.len() < 300_000, "{} bytes", text.len());
    assert!(all.iter().flat_map(|series| series.labels.values()).all(|value| value.len() < 600));
    assert!(!text.contains('\u{1b}') && !text.contains('\r'));
    let reasons: std::collections::BTreeSet<_> =
        all.iter().filter_map(|series| series.labels.get("reason")).collect();
    assert!(reasons.len() <= 25, "{}", reasons.len());
    assert!(values(&all, "observer_losses_total", &[]).len() <= 65);
    assert!(values(&all, "observer_sample_interval_seconds", &[]).is_empty(), "not a number");
}

#[test]
fn observer_tells_about_itself() {
    let board = Arc::new(Board::default());
    board.lose(&Losses::from([("ring_full".to_owned(), 3)]));
    board.lose(&Losses::from([("ring_full".to_owned(), 4)]));
    board.set_awaited(vec!["--exe /srv/later".to_owned()]);
    let mut sample = Sample::default();
    sample.degraded.push(Degraded { feature: "ebpf".to_owned(), ..Degraded::default() });
    board.publish(state("one", sample.clone()));
    board.publish(state("two", sample));
    let metrics = Metrics::new(board);
    for seconds in [0.004, 0.03, 9.0, f64::NAN, -1.0] {
        metrics.sampled(seconds);
    }
    let all = scrape(&metrics);
    assert_eq!(value(&all, "observer_losses_total", &[("source", "ring_full")]), 7.0);
    assert_eq!(value(&all, "observer_degraded", &[("feature", "ebpf")]), 2.0);
    assert_eq!(value(&all, "observer_targets", &[]), 2.0);
    assert_eq!(value(&all, "observer_targets_awaited", &[]), 1.0);
    assert_eq!(value(&all, "observer_sample_seconds_count", &[]), 3.0);
    assert_eq!(value(&all, "observer_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(value(&all, "process_resident_memory_bytes", &[]) > 1e5);
    assert!(value(&all, "process_open_fds", &[]) >= 3.0);
    assert!(value(&all, "process_start_time_seconds", &[]) > 1.6e9);
}

#[test]
fn fifty_targets_of_fifty_sites_are_bounded_in_series_and_bytes() {
    let board = Arc::new(Board::default());
    for target in 0..50 {
        let sample = Sample { groups: groups(500), ..Sample::default() };
        board.publish(state(&format!("service-{target}"), sample));
    }
    let metrics = Metrics::new(board);
    metrics.text();
    let begun = Instant::now();
    let text = metrics.text();
    println!("{} bytes in {:?}", text.len(), begun.elapsed());
    let all = series(&String::from_utf8(text).unwrap());
    println!("{} series", all.len());
    assert!(all.len() < 50 * (3 * 50 + 40), "{}", all.len());
    let sites = all.iter().filter(|series| series.name == "observer_site_blocked").count();
    assert_eq!(sites, 50 * 51);
}
