//! Samples in, verdict out: every kind of leak is found with its line, rate and bytes, every healthy twin stays silent.

#[path = "simulate/cases.rs"]
mod cases;
#[path = "simulate/service.rs"]
mod service;

use cases::Case;
use observer::diagnose::{Diagnosis, History, Verdict, diagnose};
use service::Run;

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
        if !found.site.as_ref().is_some_and(|site| !site.function.is_empty()) {
            faults.push("no site".into());
        }
    }
    faults
}

fn check(cases: Vec<Case>, wrong: impl Fn(&Case, &Run, &Diagnosis) -> Vec<String>) {
    let mut report = String::new();
    for case in &cases {
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
    check(cases::leaks(), faults);
}

#[test]
fn two_unrelated_leaks_are_two_culprits() {
    check(vec![cases::two_leaks(), cases::two_handlers()], faults);
}

#[test]
fn the_healthy_stay_silent() {
    check(cases::healthy_services(), |case, _, d| {
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
    check(cases::growing(), |_, _, d| {
        if d.verdict == Verdict::Growing { Vec::new() } else { vec![format!("{:?}", d.verdict)] }
    });
}
