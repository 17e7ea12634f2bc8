//! The dashboard that we ship: every expression of it, asked of a real Prometheus that scrapes a real observer.

use std::fs;

use serde_json::Value;

use super::monitoring::{Prometheus, content, tool};
use crate::support::dashboard::{Asked, expressions, placeholders, strangers};

/// What may find nothing in the observer and the target of the test: no limit, nothing lost, nothing amiss.
const MAY_BE_EMPTY: [&str; 9] = [
    "observer_target_up{",
    "up{",
    "target:observer_time_to_limit",
    "target:observer_memory_limit_used",
    "observer_memory_limit_bytes",
    "observer_losses_total",
    "observer_degraded",
    "observer_site_retained_bytes",
    "observer_unmapped_bytes_total",
];

/// Every name and label exists, and every expression finds something; `metrics` is what the observer says now, and
/// what it says when nothing is missing.
#[track_caller]
pub fn finds_what_it_asks_for(prometheus: &Prometheus, metrics: &str) {
    let asked = expressions();
    assert!(asked.len() > 40, "{}", asked.len());
    syntax(&asked);
    assert_eq!(strangers(&asked, metrics), Vec::<String>::new());
    for Asked { place, expression, legend } in &asked {
        let found = prometheus.query(expression);
        let may_be_empty = MAY_BE_EMPTY.iter().any(|name| expression.contains(name));
        assert!(!found.is_empty() || may_be_empty, "{place}: nothing is found by {expression}");
        for label in placeholders(legend) {
            assert!(
                found.iter().all(|(labels, _)| labels[&label].is_string()),
                "{place}: no {label}: {found:?}"
            );
        }
    }
}

/// promtool reads each as a rule.
fn syntax(asked: &[Asked]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dashboard.yml");
    let rules: Vec<Value> = asked
        .iter()
        .enumerate()
        .map(|(number, asked)| serde_json::json!({"record": format!("panel:{number}"), "expr": asked.expression}))
        .collect();
    // JSON is YAML.
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&path, groups.to_string()).unwrap();
    content(&tool("promtool", &["check", "rules", path.to_str().unwrap()], b""));
}
