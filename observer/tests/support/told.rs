//! Targets on a board without a process, and the text format of Prometheus read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use observer::board::{Board, TargetState};
use observer::diagnose::{History, diagnose};
use observer::sample::{Degraded, Growth, Losses, Mapped, Sample, TargetInfo, Waits};

use crate::simulate::cases::{self, Case};
use crate::simulate::service::{self, Run};

/// When the first sample of every target here is taken, in unix seconds.
pub const BEGAN: f64 = 1_800_000_000.0;

/// A target with this one sample.
pub fn state(name: &str, sample: Sample) -> TargetState {
    let target = service::target();
    let mut history = History::new();
    history.push(sample.clone());
    let diagnosis = diagnose(&history, &target);
    told(name, &target, sample, diagnosis)
}

/// A target as the run left it.
pub fn after(name: &str, run: &Run) -> TargetState {
    let mut history = History::new();
    for sample in &run.samples {
        history.push(sample.clone());
    }
    let diagnosis = diagnose(&history, &run.target);
    let last = run.samples.last().cloned().unwrap_or_default();
    told(name, &run.target, last, diagnosis)
}

/// The service of the story after a minute.
pub fn leaking(name: &str) -> TargetState {
    after(name, &cases::story().service.run(7))
}

/// One that never was to blame.
pub fn healthy(name: &str) -> TargetState {
    let Case { service, .. } = cases::healthy_services().swap_remove(0);
    after(name, &service.run(7))
}

/// A board on which nothing is missing.
pub fn everything() -> Arc<Board> {
    let board = Arc::new(Board::default());
    board.publish(leaking("checkout"));
    let mapped = || BTreeMap::from([("mmap".into(), 5), ("brk".into(), 7)]);
    let sample = Sample {
        growth: Some(Growth {
            page_faults: 12,
            mapped: Mapped { source: "maps".into(), mapped_bytes: mapped(), unmapped_bytes: mapped() },
            ..Growth::default()
        }),
        waits: Some(Waits { ended: 3, log2_microseconds: vec![1, 0, 2] }),
        degraded: vec![Degraded { feature: "ebpf".into(), ..Degraded::default() }],
        ..Sample::default()
    };
    board.publish(state("shop", sample));
    board.lose(&Losses::from([("torn_reads".to_owned(), 3)]));
    board
}

fn told(
    name: &str,
    target: &TargetInfo,
    sample: Sample,
    diagnosis: observer::diagnose::Diagnosis,
) -> TargetState {
    TargetState {
        name: name.to_owned(),
        up: true,
        info: target.clone(),
        first_seen: BEGAN,
        last_sampled: BEGAN + sample.at_seconds,
        restarts: 0,
        interval_seconds: 1.0,
        sample: Arc::new(sample),
        diagnosis: Arc::new(diagnosis),
        timeline: Arc::default(),
    }
}

/// One line of the text format.
#[derive(Debug)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Reads the text format strictly; every series is there once, every family is described before it.
pub fn series(text: &str) -> Vec<Series> {
    let mut all = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(words.next().is_some_and(|rest| !rest.is_empty()), "{line}");
            assert!(word == "HELP" || word == "TYPE", "{line}");
            name.clone_into(&mut family);
            continue;
        }
        let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        assert!(seen.insert(head.to_owned()), "twice: {head}");
        let (name, labels) = match head.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').expect("labels end"))),
            None => (head, BTreeMap::new()),
        };
        assert!(name.starts_with(&family), "{name} is not described (last was {family})");
        all.push(Series { name: name.to_owned(), labels, value: value.parse().expect("a number") });
    }
    all
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut left = text.chars();
    loop {
        let name: String = left.by_ref().take_while(|c| *c != '=').collect();
        if name.is_empty() {
            return labels;
        }
        assert_eq!(left.next(), Some('"'), "{text}");
        let mut value = String::new();
        loop {
            match left.next().expect("the value ends") {
                '\\' => match left.next() {
                    Some('n') => value.push('\n'),
                    Some(c @ ('"' | '\\')) => value.push(c),
                    other => panic!("escape {other:?} in {text}"),
                },
                '"' => break,
                c => value.push(c),
            }
        }
        labels.insert(name, value);
        match left.next() {
            None => return labels,
            Some(c) => assert_eq!(c, ',', "{text}"),
        }
    }
}
