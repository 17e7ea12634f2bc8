//! One notification that has everything: templates are tried on it before they are used.

use super::message::{
    AlertKind, CulpritSummary, Facts, Memory, Notification, Phase, SCHEMA, TargetSummary, Times, rfc3339,
    summary, text,
};
use super::severity::Severity;

/// A notification that has everything, for trying templates on.
pub(super) fn example() -> Notification {
    let times = Times { now: 1_800_000_600.0, started: 1_800_000_000.0, ended: None };
    let blamed = CulpritSummary {
        kind: "goroutine",
        wait_reason: "chan send".to_owned(),
        function: "checkout.(*Quoter).fetch".to_owned(),
        file: Some("/src/checkout/quote.go".to_owned()),
        line: Some(41),
        site: "checkout.(*Quoter).fetch quote.go:41".to_owned(),
        created_by: Some("checkout.(*Quoter).Get quote.go:33".to_owned()),
        stack_id: "00c0ffee00c0ffee".to_owned(),
        members: 9214,
        members_per_second: 16.1,
        bytes_per_member: 36.1 * 1024.0,
        bytes: 9214.0 * 36.1 * 1024.0,
        growth_bytes_per_second: 16.1 * 36.1 * 1024.0,
        share_of_growth: 0.96,
        confidence: 0.98,
    };
    let facts = Facts {
        target: TargetSummary {
            name: "checkout".to_owned(),
            pid: 4242,
            exe: "/srv/\"checkout\"".to_owned(),
            runtime: "go".to_owned(),
            runtime_version: Some("go1.27.3".to_owned()),
            exited: false,
            pod: None,
            namespace: None,
            container: None,
            node: None,
        },
        memory: Memory {
            resident_bytes: 412 << 20,
            growth_bytes_per_second: 593.0 * 1024.0,
            limit_bytes: Some(1 << 30),
            limit_usage_bytes: Some(430 << 20),
            seconds_to_limit: Some(1_080.0),
        },
        culprit: Some(blamed),
        details: Vec::new(),
    };
    let url = "http://127.0.0.1:9713/targets/checkout".to_owned();
    Notification {
        schema: SCHEMA,
        id: "checkout/leak/00c0ffee00c0ffee".to_owned(),
        phase: Phase::Start,
        alert: AlertKind::Leak,
        severity: Severity::Warning,
        was: None,
        summary: summary(AlertKind::Leak, Phase::Start, &facts, None),
        text: text(AlertKind::Leak, Phase::Start, &facts, times, &url),
        at: rfc3339(times.now),
        started_at: rfc3339(times.started),
        ended_at: None,
        times,
        target: facts.target,
        culprit: facts.culprit,
        memory: facts.memory,
        url,
    }
}
