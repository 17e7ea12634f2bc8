//! Every JSON document is what its schema says, and the schemas say something.

use boon::{Compiler, Schemas};
use observer::diagnose::{History, diagnose};
use observer::sample::{
    Container, Degraded, Frame, Group, Growth, GrowthSite, HeapUsage, Mapped, Retained, Sample, TargetInfo,
    ThreadName, Waits, WaitsOn,
};
use observer::tell::report::{Snapshot, json};
use observer::tell::web::schema::schemas;
use serde_json::Value;

use crate::simulate::cases;
use crate::support::shown::Site;

/// What is wrong with a document by the schema that it names.
fn faults(document: &Value) -> Option<String> {
    let name = document["schema"].as_str().unwrap();
    let schema = schemas().get(name).unwrap_or_else(|| panic!("no schema {name}"));
    faults_by(schema.as_value(), document)
}

fn faults_by(schema: &Value, document: &Value) -> Option<String> {
    let (mut all, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("observer.json", schema.clone()).unwrap();
    let compiled = compiler.compile("observer.json", &mut all).unwrap();
    all.validate(document, compiled).err().map(|error| error.to_string())
}

fn holds(document: &Value) {
    if let Some(said) = faults(document) {
        panic!("{said}");
    }
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn diagnoses_of_every_simulated_service() {
    let cases = cases::leaks().into_iter().chain(cases::healthy_services()).chain(cases::growing());
    for case in cases.filter(|case| case.service.seconds <= 300.0) {
        let run = case.service.run(1);
        let mut history = History::new();
        for sample in &run.samples {
            history.push(sample.clone());
        }
        holds(&read(&json::diagnosis(&diagnose(&history, &run.target)).unwrap()));
        let snapshot = Snapshot::new(
            run.target.clone(),
            run.samples.last().unwrap().clone(),
            "2026-01-02T03:04:05Z".into(),
        );
        holds(&read(&json::snapshot(&snapshot).unwrap()));
    }
}

#[test]
fn snapshots_with_everything_and_with_nothing() {
    holds(&read(
        &json::snapshot(&Snapshot::new(TargetInfo::default(), Sample::default(), String::new())).unwrap(),
    ));
    holds(&read(&json::diagnosis(&diagnose(&History::new(), &TargetInfo::default())).unwrap()));
    let frames: std::sync::Arc<[Frame]> = vec![
        Frame { address: u64::MAX, module: Some("lib\u{202e}x.so".into()), ..Frame::default() },
        Frame {
            function: "main.a\n\"".into(),
            file: Some("/a.go".into()),
            line: Some(u32::MAX),
            ..Frame::default()
        },
    ]
    .into();
    let mut sample = Sample::default();
    sample.groups.push(Group {
        frames: frames.clone(),
        count: u64::MAX,
        ended: Some(1),
        thread_names: vec![ThreadName { name: "\u{1b}w-#".into(), count: 1 }],
        oldest_wait_seconds: Some(1.5),
        retained_bytes: Some(u64::MAX),
        retained: Some(Retained { group_bytes: Some(1), ..Retained::default() }),
        waits_on: Some(WaitsOn { address: Some(1), note: Some("x".into()), ..WaitsOn::default() }),
        ..Group::default()
    });
    sample.memory.heap = Some(HeapUsage { collections: Some(3), ..HeapUsage::default() });
    sample.waits = Some(Waits { ended: 1, log2_microseconds: vec![1, 2] });
    sample.growth = Some(Growth {
        sites: vec![GrowthSite { frames, bytes: 1, via: "mmap".into(), ..GrowthSite::default() }],
        mapped: Mapped {
            source: "exact".into(),
            mapped_bytes: [("mmap".into(), 1)].into(),
            ..Mapped::default()
        },
        ..Growth::default()
    });
    sample.losses.insert("torn_reads".into(), 1);
    sample.degraded.push(Degraded::default());
    let container = Container { pod: Some("checkout-0".into()), ..Container::default() };
    let info = TargetInfo { namespace_pid: Some(1), container: Some(container), ..TargetInfo::default() };
    holds(&read(&json::snapshot(&Snapshot::new(info, sample, String::new())).unwrap()));
}

#[test]
fn what_the_server_answers() {
    let site = Site::start(|_| {});
    for path in [
        "/api/v1/targets",
        "/api/v1/alerts",
        "/api/v1/targets/checkout/snapshot",
        "/api/v1/targets/checkout/diagnosis",
        "/api/v1/targets/checkout/history",
        "/api/v1/targets/checkout/history?points=1",
        "/api/v1/targets/checkout/history?from=2030-01-01T00:00:00Z",
    ] {
        let answer = site.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        holds(&answer.json());
    }
    let all = site.get("/api/v1/schema").json();
    for (name, schema) in schemas() {
        assert_eq!(all[name], *schema.as_value());
        let short = name.strip_prefix("observer.").unwrap().split('/').next().unwrap();
        assert_eq!(site.get(&format!("/api/v1/schema/{short}")).json(), *schema.as_value());
    }
    assert_eq!(site.get("/api/v1/schema/nothing").status, 404);
}

#[test]
fn a_schema_sees_what_is_wrong() {
    let site = Site::start(|_| {});
    let whole = site.get("/api/v1/targets/checkout/snapshot").json();
    assert_eq!(faults(&whole), None);
    let schema = schemas()[whole["schema"].as_str().unwrap()].as_value();
    let changes: [fn(&mut Value); 5] = [
        |document| document["schema"] = "observer.snapshot/2".into(),
        |document| document["groups"][0]["count"] = "many".into(),
        |document| document["groups"][0]["id"] = "xyz".into(),
        |document| document["groups"][0]["kind"] = "fiber".into(),
        |document| drop(document["memory"].as_object_mut().unwrap().remove("resident_bytes")),
    ];
    for change in changes {
        let mut document = whole.clone();
        change(&mut document);
        assert!(faults_by(schema, &document).is_some(), "not seen: {document}");
    }
    // What a later version adds does not hurt who reads this one.
    let mut later = whole.clone();
    later["groups"][0]["colour"] = "red".into();
    assert_eq!(faults(&later), None);
}

#[test]
fn history_is_columns_of_one_length() {
    let site = Site::start(|_| {});
    let document = site.get("/api/v1/targets/checkout/history").json();
    let at: Vec<f64> = document["at"].as_array().unwrap().iter().map(|at| at.as_f64().unwrap()).collect();
    assert!(at.len() > 50 && at.is_sorted(), "{at:?}");
    for column in ["generation", "resident_bytes", "anonymous_bytes", "heap_in_use_bytes", "limit_bytes"] {
        assert_eq!(document[column].as_array().unwrap().len(), at.len(), "{column}");
    }
    let first = &document["groups"][0];
    assert_eq!(first["wait_reason"], "chan send", "what leaks is the largest: {first}");
    assert!(first["site"]["line"].as_u64().is_some());
    let counts = first["count"].as_array().unwrap();
    assert_eq!(counts.len(), at.len());
    assert!(counts.last().unwrap().as_u64() > counts[0].as_u64());

    let few = site.get("/api/v1/targets/checkout/history?points=5").json();
    let few = few["at"].as_array().unwrap();
    assert!((3..=5).contains(&few.len()), "{few:?}");
    assert_eq!(few.last(), document["at"].as_array().unwrap().last(), "the last is always there");
    let later = site.get(&format!("/api/v1/targets/checkout/history?from={}", at[10])).json();
    assert_eq!(later["at"].as_array().unwrap().len(), at.len() - 10);
}

#[test]
fn wrong_questions_get_one_line_of_json() {
    let site = Site::start(|_| {});
    for (path, status, words) in [
        ("/api/v1/targets/nobody/snapshot", 404, "nobody"),
        ("/api/v1/targets/%0a%1b/diagnosis", 404, "no target"),
        ("/api/v1/targets/%ff/diagnosis", 400, ""),
        ("/api/v1/targets/nobody/history", 404, "nobody"),
        ("/api/v1/targets/checkout/history?from=yesterday", 400, "RFC 3339"),
        ("/api/v1/targets/checkout/history?from=NaN", 400, "RFC 3339"),
        ("/api/v1/targets/checkout/history?points=0", 400, "points"),
        ("/api/v1/targets/checkout/history?points=99999999999999999999999", 400, "points"),
        ("/api/v1/targets/checkout/history?points=-1", 400, "points"),
        ("/api/v1/targets/checkout", 404, "no such"),
    ] {
        let answer = site.get(path);
        assert_eq!(answer.status, status, "{path}");
        let document = answer.json();
        assert!(document["error"].as_str().unwrap().contains(words), "{path}: {document}");
    }
    assert_eq!(site.get("/api/v1/targets/checkout/history?from=-1e308").status, 200);
}

#[test]
fn alerts_that_fire() {
    let site = Site::start(|_| {});
    let document = site.get("/api/v1/alerts").json();
    holds(&document);
    let alert = &document["alerts"][0];
    assert_eq!(
        (&alert["alert"], &alert["target"]["name"]),
        (&"leak".into(), &"checkout".into()),
        "{document}"
    );
    assert!(alert["culprit"]["line"].as_u64().is_some());
    holds(alert);
}
