//! The dashboard that we ship: what it asks Prometheus for, and which names in that observer does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Where an expression stands, and what it says to Prometheus.
pub struct Asked {
    pub place: String,
    pub expression: String,
    pub legend: String,
}

/// Metrics and labels that observer does not have.
pub fn strangers(asked: &[Asked], metrics: &str) -> Vec<String> {
    let exposed = labels(metrics);
    let mut all: BTreeSet<&str> = exposed.values().flatten().map(String::as_str).collect();
    all.extend(["job", "instance", "program", "function", "file", "line", "le"]);
    let mut strangers = Vec::new();
    for Asked { place, expression, legend } in asked {
        for (name, matched) in selectors(expression) {
            let recorded = name.contains(':') || matches!(name.as_str(), "up" | "ALERTS");
            let known = exposed.get(name.trim_end_matches("_bucket"));
            if !recorded && known.is_none() {
                strangers.push(format!("{place}: observer has no {name}"));
            }
            for label in matched {
                let has = known.is_none_or(|known| known.contains(&label));
                if !has && !matches!(label.as_str(), "job" | "instance") {
                    strangers.push(format!("{place}: {name} has no {label}"));
                }
            }
        }
        for label in grouped(expression).into_iter().chain(placeholders(legend)) {
            if !all.contains(label.as_str()) {
                strangers.push(format!("{place}: nothing has a label {label}"));
            }
        }
    }
    strangers
}

/// All of the dashboard, the variables filled in.
pub fn expressions() -> Vec<Asked> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/observer.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let fill = |text: &str| {
        let filled = text.replace("$__rate_interval", "15s");
        ["$job", "$instance", "$target"].iter().fold(filled, |text, name| text.replace(name, ".*"))
    };
    let mut asked = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for query in panel["targets"].as_array().into_iter().flatten() {
            asked.push(Asked {
                place: format!("{} {}", panel["title"], query["refId"]),
                expression: fill(query["expr"].as_str().unwrap()),
                legend: query["legendFormat"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // label_values(SELECTOR, LABEL)
        if let Some(values) = variable["query"]["query"].as_str() {
            let inner = values.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (selector, label) = inner.rsplit_once(", ").unwrap();
            asked.push(Asked {
                place: format!("variable {}", variable["name"]),
                expression: format!("count by ({label}) ({})", fill(selector)),
                legend: format!("{{{{{label}}}}}"),
            });
        }
    }
    asked
}

/// Families, and the labels that their series have.
fn labels(metrics: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let names = families.entry(name.trim_end_matches("_bucket").to_owned()).or_default();
        if let Some(inner) = line[name.len()..].strip_prefix('{') {
            names.extend(matchers(inner));
        }
    }
    families
}

/// The label names in what follows a `{`, up to its `}`; values are in quotes, and may hold anything.
fn matchers(inner: &str) -> Vec<String> {
    let (mut names, mut name, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in inner.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '}' => break,
            '=' | '!' | '~' => {
                if !name.is_empty() {
                    names.push(std::mem::take(&mut name));
                }
            }
            c if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
            _ => name.clear(),
        }
    }
    names
}

/// Every metric that an expression selects, and the labels it selects by.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for (at, _) in expression.match_indices('{') {
        let begin = expression[..at].rfind(|c| !named(c)).map_or(0, |before| before + 1);
        found.push((expression[begin..at].to_owned(), matchers(&expression[at + 1..])));
    }
    // Without braces.
    for word in expression.split(|c| !named(c) && c != '{').filter(|word| word.starts_with("observer_")) {
        if !word.contains('{') {
            found.push((word.to_owned(), Vec::new()));
        }
    }
    found
}

/// The labels in `by (…)`, `on (…)` and `group_left (…)`.
fn grouped(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    for word in [" by (", " on (", " group_left ("] {
        for (at, _) in expression.match_indices(word) {
            let inner = &expression[at + word.len()..];
            let inner = &inner[..inner.find(')').unwrap()];
            found.extend(
                inner.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()),
            );
        }
    }
    found
}

/// The labels in `{{label}}`.
pub fn placeholders(legend: &str) -> Vec<String> {
    let parts = legend.split("{{").skip(1);
    parts.filter_map(|part| Some(part.split_once("}}")?.0.trim().to_owned())).collect()
}
