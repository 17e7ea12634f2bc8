//! Samples in, verdict out: every kind of leak is found with its line, rate and bytes, every healthy twin stays silent.

use observer::diagnose::{Diagnosis, History, Verdict, diagnose};

use crate::simulate::cases::{self, Case};
use crate::simulate::service::{self, Run, Service};

/// Few here, so that the tests are quick; many by OBSERVER_TEST_SEEDS.
fn wanted_seeds() -> u64 {
    std::env::var("OBSERVER_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6)
}

fn judge(run: &Run) -> Diagnosis {
    let mut history = History::new();
    for sample in &run.samples {
        history.push(sample.clone());
    }
    diagnose(&history, &run.target)
}

fn seeds(case: &Case) -> u64 {
    // The long ones are slow to simulate, not to diagnose.
    if case.service.seconds > 300.0 { wanted_seeds().div_ceil(5) } else { wanted_seeds() }
}

fn describe(d: &Diagnosis) -> String {
    let mut said = format!("{:?}: {} {}\n", d.verdict, d.sentence, d.second_sentence);
    for culprit in &d.culprits {
        said += &format!(
            "  {}: {:.2}/s, {:.0} bytes, confidence {:.2}\n    {}\n",
            culprit.group.id.0,
            culprit.growth_per_second,
            culprit.bytes_per_member,
            culprit.confidence,
            culprit.evidence.join("\n    ")
        );
    }
    for other in &d.not_the_cause {
        said += &format!("  not {}: {} ({})\n", other.group.id.0, other.group.count, other.why);
    }
    said
}

/// What is wrong with a diagnosis of a service that leaks.
fn faults(case: &Case, run: &Run, d: &Diagnosis) -> Vec<String> {
    let mut faults = Vec::new();
    if d.verdict != Verdict::Leak {
        return vec!["not found".into()];
    }
    if d.culprits.len() != case.leaks.len() {
        faults.push(format!("{} culprits instead of {}", d.culprits.len(), case.leaks.len()));
    }
    for leak in &case.leaks {
        let wanted = &case.service.kinds[leak.kind].group;
        let Some(found) = d.culprits.iter().find(|c| c.group.id == wanted.id) else {
            faults.push(format!("group {} not named", wanted.id.0));
            continue;
        };
        let from = match &case.service.kinds[leak.kind].arrivals {
            cases::Arrivals::Random { from, .. } => from.max(case.service.restart.map_or(0.0, |r| r.0)),
            _ => 0.0,
        };
        let truth = match &case.service.kinds[leak.kind].arrivals {
            cases::Arrivals::Bursts { size, every, .. } => *size as f64 / every,
            cases::Arrivals::Every { seconds } => 1.0 / seconds,
            _ if from > 0.0 => (run.last[leak.kind] as f64) / (run.samples.last().unwrap().at_seconds - from),
            _ => run.rate(leak.kind),
        };
        let rate = found.growth_per_second / truth;
        if (rate - 1.0).abs() > 0.1 {
            faults.push(format!("rate {:.2} of {truth:.2}", found.growth_per_second));
        }
        let held = found.bytes_per_member / leak.bytes;
        if (held - 1.0).abs() > 0.25 {
            faults.push(format!(
                "bytes {:.0} of {:.0} ({})",
                found.bytes_per_member, leak.bytes, found.bytes_source
            ));
        }
        if found.site.as_ref().is_none_or(|site| site.function.is_empty()) {
            faults.push("no site".into());
        }
    }
    faults
}

fn check(cases: &[Case], wrong: impl Fn(&Case, &Run, &Diagnosis) -> Vec<String>) {
    let mut report = String::new();
    for case in cases {
        let mut failed = Vec::new();
        for seed in 0..seeds(case) {
            let run = case.service.run(seed);
            let diagnosis = judge(&run);
            let faults = wrong(case, &run, &diagnosis);
            if !faults.is_empty() {
                failed.push((seed, faults, describe(&diagnosis)));
            }
        }
        if let Some((seed, _, said)) = failed.first() {
            let all: Vec<String> =
                failed.iter().map(|(seed, faults, _)| format!("{seed}: {}", faults.join(", "))).collect();
            report += &format!(
                "\n=== {} fails on {} of {} seeds\n{}\nseed {seed} said {said}\n",
                case.name,
                failed.len(),
                seeds(case),
                all.join("\n")
            );
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_leak_is_found_with_its_line_rate_and_bytes() {
    check(&cases::leaks(), faults);
}

#[test]
fn two_unrelated_leaks_are_two_culprits() {
    check(&[cases::two_leaks(), cases::two_handlers()], faults);
}

#[test]
fn the_healthy_stay_silent() {
    check(&cases::healthy_services(), |case, _, d| {
        if matches!(d.verdict, Verdict::Leak) || !d.culprits.is_empty() {
            vec!["cried wolf".into()]
        } else if d.verdict != Verdict::Stable && Some(d.verdict) != case.or {
            vec![format!("{:?}", d.verdict)]
        } else {
            Vec::new()
        }
    });
}

#[test]
fn memory_that_grows_without_a_group_is_growing() {
    check(&cases::growing(), |_, _, d| {
        if d.verdict == Verdict::Growing { Vec::new() } else { vec![format!("{:?}", d.verdict)] }
    });
}

/// Whatever a recording holds, there is a verdict, and every number of it is one.
#[test]
fn garbage_in_no_panic_out() {
    let mut random = service::Random::new(99);
    for seed in 0..60 {
        let case = &cases::leaks()[seed as usize % 6];
        let mut run = case.service.run(seed);
        for sample in &mut run.samples {
            garble(sample, &mut random);
        }
        let d = judge(&run);
        let numbers = [
            d.window_seconds,
            d.memory.slope_bytes_per_second,
            d.memory.live_slope_bytes_per_second,
            d.memory.seconds_to_limit.unwrap_or(0.0),
        ];
        assert!(numbers.iter().all(|n| n.is_finite()), "{numbers:?}");
        for culprit in &d.culprits {
            assert!(culprit.growth_per_second.is_finite() && culprit.growth_per_second > 0.0);
            assert!(culprit.bytes_per_member.is_finite() && culprit.bytes_per_member >= 0.0);
            assert!((0.0..=1.0).contains(&culprit.share_of_growth), "{}", culprit.share_of_growth);
            assert!((0.0..=1.0).contains(&culprit.confidence), "{}", culprit.confidence);
        }
        let document = observer::tell::report::json::diagnosis(&d).unwrap();
        serde_json::from_str::<serde_json::Value>(&document).unwrap();
        observer::tell::report::text::diagnosis(&d, observer::tell::report::Style { color: true, width: 0 });
    }
}

fn garble(sample: &mut observer::sample::Sample, random: &mut service::Random) {
    let wild_number = |random: &mut service::Random| match random.next() % 6 {
        0 => u64::MAX,
        1 => 0,
        2 => random.next(),
        3 => u64::MAX / 2,
        _ => random.next() % 1_000,
    };
    let wild_float = |random: &mut service::Random| match random.next() % 7 {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -1e308,
        3 => 1e308,
        4 => -0.0,
        _ => random.unit() * 100.0,
    };
    if random.next().is_multiple_of(9) {
        sample.at_seconds = wild_float(random);
    }
    if random.next().is_multiple_of(5) {
        sample.memory.resident_bytes = wild_number(random);
        sample.memory.limit_bytes = Some(wild_number(random));
        sample.memory.limit_usage_bytes = Some(wild_number(random));
        if let Some(go) = &mut sample.memory.heap {
            go.heap_objects_bytes = wild_number(random);
            go.stack_in_use_bytes = wild_number(random);
        }
    }
    for group in &mut sample.groups {
        if !random.next().is_multiple_of(4) {
            continue;
        }
        match random.next() % 8 {
            0 => group.count = wild_number(random),
            1 => group.joined = wild_number(random),
            2 => group.left = wild_number(random),
            3 => group.moved = wild_number(random),
            4 => group.stack_bytes = wild_number(random),
            5 => group.oldest_wait_seconds = Some(wild_float(random)),
            6 => group.frames = Vec::new().into(),
            _ => {
                if let Some(retained) = &mut group.retained {
                    retained.exclusive_bytes_per_member = wild_float(random);
                    retained.also_global_bytes_per_member = wild_float(random);
                    retained.standard_error_bytes = wild_float(random);
                }
            }
        }
    }
    sample.totals.groups = wild_number(random);
    sample.losses.insert("torn_reads".into(), wild_number(random));
}

/// Recorded series: `tests/series/VERDICT-NAME.jsonl`, all leaks of one function.
/// A series that once came out wrong is put there under what it should have said.
#[test]
fn every_recorded_series_says_what_its_name_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/series");
    if std::env::var_os("OBSERVER_WRITE_SERIES").is_some() {
        write_series(&folder);
    }
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (wanted, _) = name.split_once('-').unwrap();
        let (target, samples) =
            observer::diagnose::recording::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let mut history = History::new();
        for sample in samples {
            history.push(sample);
        }
        let d = diagnose(&history, &target);
        let verdict = serde_json::to_value(d.verdict).unwrap();
        assert_eq!(verdict.as_str().unwrap().split('_').next().unwrap(), wanted, "{name}: {}", describe(&d));
        let culprits = match name.as_str() {
            "leak-two" => 2,
            _ if wanted == "leak" => 1,
            _ => 0,
        };
        assert_eq!(d.culprits.len(), culprits, "{name}: {}", describe(&d));
        if let Some(culprit) = d.culprits.first() {
            assert_eq!(culprit.site.as_ref().unwrap().function, "checkout.(*Quoter).fetch", "{name}");
        }
        replayed += 1;
    }
    assert!(replayed >= 11, "{replayed} series");
}

/// Writes the series anew, for when samples get new fields.
fn write_series(folder: &std::path::Path) {
    let healthy = cases::healthy_services();
    let leaks = cases::leaks();
    let named = |cases: &[Case], name: &str| cases.iter().position(|case| case.name == name).unwrap();
    let healthy_named = |name: &str| healthy[named(&healthy, name)].service.clone();
    let leak_named = |name: &str| leaks[named(&leaks, name)].service.clone();
    let all = [
        ("leak-story", cases::story().service, 60),
        ("leak-two", cases::two_leaks().service, 60),
        ("leak-no_memory_growth", leak_named("no memory to speak of"), 60),
        ("leak-restart_in_the_middle", leak_named("a restart before it"), 90),
        ("stable-pool_grows_to_its_size", healthy_named("pool grows to its size"), 60),
        ("stable-cache_fills_and_stops", healthy_named("cache fills and stops"), 60),
        ("stable-burst_drains", healthy_named("burst drains"), 60),
        ("stable-sawtooth", healthy_named("sawtooth of goroutines"), 60),
        (
            "stable-idle_connections",
            {
                let mut service = healthy_named("idle connections");
                service.kinds[0].at_start = 100_000;
                service
            },
            60,
        ),
        ("growing-no_group", cases::growing()[0].service.clone(), 60),
        ("insufficient-too_little", cases::story().service, 6),
    ];
    for (name, service, samples) in all {
        let run = Service { interval: if samples < 10 { 1.0 } else { 2.0 }, ..service }.run(11);
        let mut text = observer::diagnose::recording::header(&run.target).unwrap() + "\n";
        for sample in run.samples.iter().take(samples) {
            text += &observer::diagnose::recording::line(sample).unwrap();
            text.push('\n');
        }
        std::fs::write(folder.join(format!("{name}.jsonl")), text).unwrap();
    }
}
