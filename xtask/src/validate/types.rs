//! The operator's resources and the dashboard, held against their TypeScript types: those know every field, so that a
//! literal with one more does not compile. The operator's patterns (durations, names of labels) come on top.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Manifest;
use crate::place;
use crate::run::{self, Clock};

/// Says what is wrong with what it is given, and writes it as TypeScript.
const TYPED: &str = include_str!("typed.mjs");

pub fn check(manifests: &[Manifest], clock: Clock) -> Result<()> {
    let directory = place::work().join("validate");
    fs::write(directory.join("typed.mjs"), TYPED)?;

    clock.say("validate", "PodMonitor and PrometheusRule against the operator's types");
    let operator = Manifest {
        name: "operator".to_owned(),
        text: manifests.iter().flat_map(|one| one.documents(true)).collect::<Vec<_>>().join("\n---\n"),
    };
    demand(
        &directory,
        "operator",
        &operator,
        &[
            ("interval: 15s", "interval: 15"),
            ("scrapeTimeout: 10s", "scrapeTimeout: 10 s"),
            ("honorLabels:", "honourLabels:"),
            ("keep_firing_for: 15m", "keepFiringFor: 15m"),
        ],
    )?;

    clock.say("validate", "the dashboard against Grafana's types");
    let path = place::root().join("deploy/grafana/observer.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    demand(
        &directory,
        "dashboard",
        &Manifest { name: "grafana/observer.json".to_owned(), text },
        &[
            ("\"editable\": true", "\"editable\": \"true\""),
            ("\"gridPos\"", "\"gridPosition\""),
            ("\"expr\"", "\"expression\""),
            ("\"colorMode\": \"", "\"colorMode\": \"no"),
            ("\"drawStyle\": \"", "\"drawStyle\": \"no"),
            ("\"custom.axisPlacement\"", "\"custom.axisPlace\""),
            ("\"showHeader\"", "\"showHeaders\""),
        ],
    )
}

/// It is right, and it would not be with any of these faults.
fn demand(directory: &Path, kind: &str, manifest: &Manifest, faults: &[(&str, &str)]) -> Result<()> {
    if !right(directory, kind, manifest, true)? {
        bail!("{} is not valid, see above", manifest.name);
    }
    for (from, to) in faults {
        if right(directory, kind, &manifest.with_fault(from, to)?, false)? {
            bail!("{} is taken for valid with `{to}`", manifest.name);
        }
    }
    Ok(())
}

fn right(directory: &Path, kind: &str, manifest: &Manifest, tell: bool) -> Result<bool> {
    let said = || if tell { Stdio::inherit() } else { Stdio::null() };
    fs::write(directory.join("given"), &manifest.text)?;
    let mut command = Command::new("node");
    command.current_dir(directory).args(["typed.mjs", kind, "given", "typed.ts"]);
    if !run::wait(command.stdout(said()).stderr(said()), |_| ())?.success() {
        return Ok(false);
    }
    let mut command = Command::new("node_modules/.bin/tsc");
    command.current_dir(directory).args([
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--moduleResolution",
        "nodenext",
        "--types",
        "",
        "typed.ts",
    ]);
    Ok(run::wait(command.stdout(said()).stderr(said()), |_| ())?.success())
}
