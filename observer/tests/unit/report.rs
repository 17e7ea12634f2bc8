//! What is printed: the shape of the JSON that others parse, a page that reads, and targets that try to break it.

use observer::diagnose::{Diagnosis, History, Verdict, diagnose};
use observer::sample::{Degraded, Frame, Group, Losses, Place, Sample, TargetInfo, WaitsOn};
use observer::tell::report::{Snapshot, Style, folded, json, svg, text};
use serde_json::Value;

use crate::simulate::cases;

fn story() -> (Diagnosis, Sample) {
    let run = cases::story().service.run(7);
    let mut history = History::new();
    for sample in &run.samples {
        history.push(sample.clone());
    }
    (diagnose(&history, &run.target), run.samples.last().unwrap().clone())
}

fn snapshot() -> Snapshot {
    let (diagnosis, sample) = story();
    Snapshot::new(diagnosis.target, sample, "2026-01-02T03:04:05Z".into())
}

/// Names and kinds of everything in a document; arrays by their first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => Value::Array(items.iter().take(1).map(shape).collect()),
        Value::String(_) => "string".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => "null".into(),
    }
}

/// Every name that is promised is there, of the promised kind; more may be.
fn promises(found: &Value, promised: &Value, path: &str) {
    match promised {
        Value::Object(fields) => {
            for (name, kind) in fields {
                let value = found.get(name).unwrap_or_else(|| panic!("{path}.{name} is missing"));
                promises(value, kind, &format!("{path}.{name}"));
            }
        }
        Value::Array(items) => {
            let found = found.as_array().unwrap_or_else(|| panic!("{path} is no array"));
            if let (Some(kind), Some(value)) = (items.first(), found.first()) {
                promises(value, kind, &format!("{path}[]"));
            }
        }
        Value::String(kinds) => {
            let found = found.as_str().unwrap_or("?");
            assert!(kinds.split('|').any(|kind| kind == found), "{path} is {found}, promised {kinds}");
        }
        _ => unreachable!("{path}"),
    }
}

fn group_shape() -> Value {
    serde_json::json!({
        "id": "string", "kind": "string", "state": "string", "wait_reason": "string", "count": "number",
        "oldest_wait_seconds": "number|null", "stack_bytes": "number", "retained_bytes": "number|null",
        "frames": [{"function": "string", "file": "string|null", "line": "number|null", "module": "string|null",
                    "address": "number", "inlined": "bool"}],
        "created_by": {"function": "string", "file": "string|null", "line": "number|null"},
    })
}

#[test]
fn the_json_of_a_diagnosis_is_what_others_parse() {
    let (diagnosis, _) = story();
    let document: Value = serde_json::from_str(&json::diagnosis(&diagnosis).unwrap()).unwrap();
    let mut group = group_shape();
    group["waits_on"] = serde_json::json!({"kind": "string", "objects": "number", "element_type": "string|null",
        "capacity": "number|null", "owner": "string|null"});
    promises(
        &shape(&document),
        &serde_json::json!({
            "schema": "string",
            "target": {"pid": "number", "comm": "string", "exe": "string",
                       "runtime": {"name": "string", "version": "string|null"}, "started_at": "string"},
            "window_seconds": "number", "samples": "number", "verdict": "string",
            "memory": {"first_bytes": "number", "last_bytes": "number", "slope_bytes_per_second": "number"},
            "culprits": [{"group": group, "growth_per_second": "number", "bytes_per_member": "number",
                          "share_of_growth": "number", "confidence": "number", "evidence": ["string"]}],
            "growth_sites": [], "deadlocks": [], "losses": {},
        }),
        "diagnosis",
    );
    assert_eq!(document["schema"], "observer.diagnosis/1");
    assert_eq!(document["verdict"], "leak");
    assert_eq!(document["culprits"].as_array().unwrap().len(), 1);
    assert_eq!(document["culprits"][0]["group"]["kind"], "goroutine");
    // What is written can be read again.
    let read: Diagnosis = serde_json::from_value(document).unwrap();
    assert_eq!(read.culprits[0].group.id, diagnosis.culprits[0].group.id);
    assert_eq!(read.sentence, diagnosis.sentence);
}

#[test]
fn the_json_of_a_snapshot_is_what_others_parse() {
    let document: Value = serde_json::from_str(&json::snapshot(&snapshot()).unwrap()).unwrap();
    promises(
        &shape(&document),
        &serde_json::json!({
            "schema": "string", "taken_at": "string", "took_seconds": "number",
            "target": {"pid": "number", "comm": "string", "exe": "string",
                       "runtime": {"name": "string", "version": "string|null"}, "started_at": "string"},
            "memory": {"resident_bytes": "number", "anonymous_bytes": "number", "limit_bytes": "number|null",
                       "go": {"heap_in_use_bytes": "number", "stack_in_use_bytes": "number"}},
            "groups": [group_shape()], "losses": {},
        }),
        "snapshot",
    );
    assert_eq!(document["schema"], "observer.snapshot/1");
    let counts: Vec<u64> =
        document["groups"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
}

#[test]
fn the_page_says_the_verdict_first_and_then_where_and_why() {
    let (diagnosis, _) = story();
    let page = text::diagnosis(&diagnosis, Style::default());
    let lines: Vec<&str> = page.lines().collect();
    assert!(lines[0].starts_with("checkout (pid 4242, go1.27.3, stripped), 60 s, "), "{page}");
    assert!(lines[2].starts_with("LEAK  "), "{page}");
    assert!(
        lines[2].contains("goroutines blocked in chan send at checkout.(*Quoter).fetch checkout.go:41"),
        "{page}"
    );
    let order = [
        "LEAK",
        "more; none has left",
        "blocked at",
        "created by",
        "waits on",
        "  holds",
        "  memory",
        "not the cause",
    ];
    let places: Vec<usize> = order
        .iter()
        .map(|word| page.find(word).unwrap_or_else(|| panic!("no {word:?} in\n{page}")))
        .collect();
    assert!(places.is_sorted(), "{places:?}\n{page}");
    assert!(!page.contains('\x1b'), "colour was not asked for");
    assert!(page.lines().all(|line| line.trim_end() == line && line.chars().count() <= 130), "{page}");
}

#[test]
fn colour_is_never_the_only_sign() {
    let (diagnosis, _) = story();
    let plain = text::diagnosis(&diagnosis, Style { color: false, width: 100 });
    let mut painted = text::diagnosis(&diagnosis, Style { color: true, width: 100 });
    assert!(painted.contains("\x1b[1;31mLEAK\x1b[0m"));
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[1;32m", "\x1b[1;33m"] {
        painted = painted.replace(code, "");
    }
    assert_eq!(plain, painted);
}

#[test]
fn every_verdict_has_its_page() {
    let page = |case: &cases::Case, until: usize| {
        let run = case.service.run(3);
        let mut history = History::new();
        for sample in run.samples.iter().take(until) {
            history.push(sample.clone());
        }
        let diagnosis = diagnose(&history, &run.target);
        (diagnosis.verdict, text::diagnosis(&diagnosis, Style::default()))
    };
    let healthy = cases::healthy_services();
    let (verdict, stable) = page(&healthy[0], 100);
    assert_eq!(verdict, Verdict::Stable);
    assert!(stable.contains("STABLE  Memory"), "{stable}");
    assert!(stable.contains("No group of blocked goroutines or threads grows"), "{stable}");
    let (verdict, growing) = page(&cases::growing()[0], 100);
    assert_eq!(verdict, Verdict::Growing);
    assert!(growing.contains("GROWING  Memory grows +"), "{growing}");
    let (verdict, short) = page(&cases::story(), 4);
    assert_eq!(verdict, Verdict::InsufficientData);
    assert!(short.contains("NOT ENOUGH DATA  4 samples over"), "{short}");
    let (verdict, none) = page(&cases::story(), 0);
    assert_eq!(verdict, Verdict::InsufficientData);
    assert!(none.contains("0 samples over 0 s"), "{none}");
}

#[test]
fn a_target_that_exits_is_told_with_what_was_seen() {
    let run = cases::story().service.run(3);
    let mut history = History::new();
    for sample in run.samples.iter().take(30) {
        history.push(sample.clone());
    }
    history.mark_exited();
    let diagnosis = diagnose(&history, &run.target);
    assert_eq!(diagnosis.verdict, Verdict::Leak);
    let page = text::diagnosis(&diagnosis, Style::default());
    assert!(page.lines().next().unwrap().ends_with(", exited"), "{page}");
}

fn hostile() -> Sample {
    let nasty = "main.\x1b]0;owned\x07\x1b[2J\r\n\u{202e};evil\u{9b}31m";
    let frame = Frame {
        function: nasty.into(),
        file: Some(format!("/tmp/{nasty}.go")),
        line: Some(u32::MAX),
        module: Some(nasty.into()),
        address: u64::MAX,
        inlined: true,
        tail_call: false,
        build_id: None,
    };
    Sample {
        at_seconds: 0.0,
        groups: vec![
            Group {
                state: nasty.into(),
                wait_reason: nasty.into(),
                count: u64::MAX,
                stack_bytes: u64::MAX,
                oldest_wait_seconds: Some(f64::NAN),
                frames: vec![frame.clone(); 300].into(),
                created_by: Some(Place { function: nasty.into(), file: Some(nasty.into()), line: Some(0) }),
                waits_on: Some(WaitsOn {
                    kind: nasty.into(),
                    objects: u64::MAX,
                    element_type: Some(nasty.into()),
                    note: Some(nasty.into()),
                    owner: Some(nasty.into()),
                    ..WaitsOn::default()
                }),
                ..Group::default()
            },
            Group {
                frames: vec![Frame { function: "x".repeat(1 << 20), ..frame }].into(),
                count: 2,
                ..Group::default()
            },
        ],
        losses: Losses::from([(nasty.to_owned(), u64::MAX)]),
        degraded: vec![Degraded { feature: nasty.into(), reason: nasty.into(), remedy: nasty.into() }],
        ..Sample::default()
    }
}

#[test]
fn names_from_the_target_cannot_reach_the_terminal() {
    let target = TargetInfo { comm: "a\x1b[31m\nb".into(), exe: "\x1b".into(), ..TargetInfo::default() };
    let snapshot = Snapshot::new(target.clone(), hostile(), "\x1b[2J".into());
    let mut history = History::new();
    history.push(hostile());
    let pages = [
        text::snapshot(&snapshot, Style::default()),
        text::diagnosis(&diagnose(&history, &target), Style::default()),
    ];
    for page in &pages {
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
        assert!(!page.contains('\u{202e}'));
        assert!(page.len() < 100_000, "{} bytes", page.len());
    }
    for document in
        [json::snapshot(&snapshot).unwrap(), json::diagnosis(&diagnose(&history, &target)).unwrap()]
    {
        assert!(!document.chars().any(|c| c.is_control() && c != '\n'));
        serde_json::from_str::<Value>(&document).unwrap();
    }
}

#[test]
fn folded_lines_are_one_stack_and_a_number() {
    let lines = folded::folded(&snapshot().groups);
    assert!(
        lines.lines().any(
            |line| line.starts_with("checkout.(*Quoter).Get.func1;checkout.(*Quoter).fetch;[chan send] ")
        ),
        "{lines}"
    );
    let lines = folded::folded(&hostile().groups);
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        let (stack, number) = line.rsplit_once(' ').unwrap();
        number.parse::<u64>().unwrap();
        assert!(!stack.chars().any(char::is_control));
    }
    assert_eq!(lines.lines().next().unwrap().matches(';').count(), 300, "a name adds no frames");
}

#[test]
fn a_flame_graph_is_drawn() {
    let drawn = String::from_utf8(svg::svg(&snapshot().groups, "blocked in checkout").unwrap()).unwrap();
    assert!(drawn.contains("<svg") && drawn.contains("checkout.(*Quoter).fetch"));
    let hostile = [Group {
        frames: vec![Frame { function: "<script>alert(1)</script>".into(), ..Frame::default() }].into(),
        count: 1,
        ..Group::default()
    }];
    let drawn = String::from_utf8(svg::svg(&hostile, "<b>").unwrap()).unwrap();
    assert!(!drawn.contains("<script>alert(1)"), "names are escaped");
    assert!(svg::svg(&[], "nothing").is_err());
}
