//! The PrometheusRule of the operator is rules.yml in another envelope: made from it, so that they cannot drift.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::place;

const ENVELOPE: &str = "\
# Made from deploy/prometheus/rules.yml by `cargo xtask rules`: change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: observer
spec:
";

pub fn rules() -> Result<()> {
    let path = made();
    fs::write(&path, render()?).with_context(|| format!("cannot write {}", path.display()))?;
    println!("made {}", place::shown(&path));
    Ok(())
}

/// An error when rules.yml was changed and the PrometheusRule was not made anew.
pub fn check() -> Result<()> {
    let path = made();
    let found = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if found != render()? {
        bail!("{} is not what rules.yml says; run: cargo xtask rules", place::shown(&path));
    }
    Ok(())
}

fn made() -> PathBuf {
    place::root().join("deploy/kubernetes/components/operator/prometheus-rule.yaml")
}

/// The groups, two columns further in; without the comment above them, which is about the file.
fn render() -> Result<String> {
    let path = place::root().join("deploy/prometheus/rules.yml");
    let rules = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let begin = rules.find("\ngroups:").context("rules.yml has no groups")?;
    let mut text = ENVELOPE.to_owned();
    for line in rules[begin + 1..].lines() {
        if !line.is_empty() {
            text.push_str("  ");
            text.push_str(line);
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_operator_gets_the_rules_that_we_test() {
        super::check().unwrap();
    }
}
