//! What the tests of the daemon need: Prometheus and Alertmanager, which scrape it and are alerted, and a browser that
//! looks at its page. Each comes with its tool (promtool, amtool, chromedriver), and the tests use both.

use super::{Need, Recipe, State};
use crate::run;

pub fn each() -> Vec<Need> {
    vec![
        need("Prometheus", "scrapes the daemon in the tests", &["prometheus", "promtool"], &["prometheus"]),
        need(
            "Alertmanager",
            "receives alerts in the tests",
            &["prometheus-alertmanager", "amtool"],
            &["prometheus-alertmanager"],
        ),
        need(
            "Chromium",
            "looks at the daemon's page in the tests",
            &["chromium", "chromedriver"],
            &["chromium", "chromium-driver"],
        ),
    ]
}

/// Here when every one of the programs runs; the version is the first one's.
fn need(what: &str, why: &'static str, programs: &[&str], packages: &[&'static str]) -> Need {
    let versions: Option<Vec<String>> = programs.iter().map(|program| version(program)).collect();
    let state = match versions.and_then(|versions| versions.into_iter().next()) {
        Some(version) => State::Here(version),
        None => State::Missing(Recipe {
            packages: packages.to_vec(),
            elsewhere: vec![format!("(install {what} from your distribution: {})", programs.join(", "))],
            ..Recipe::default()
        }),
    };
    Need { what: what.to_owned(), why, state }
}

/// `prometheus, version 2.42.0 (branch: …)` without what is in brackets.
fn version(program: &str) -> Option<String> {
    let said = run::output(program, &["--version"])?;
    let first = said.lines().next()?;
    Some(first.split(" (").next().unwrap_or(first).trim().to_owned())
}
