//! Checks what deploy/ ships, as strictly as it goes without a cluster: every kustomization is rendered and held against
//! the schemas of several versions of Kubernetes, the operator's resources and the dashboard against their types. An
//! unknown field is an error everywhere; each checker first shows that it finds one.
//!
//! Nothing is asked of the network once `cargo xtask setup` is through.

mod kubernetes;
mod types;

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, bail};

use crate::place;
use crate::rules;
use crate::run::Clock;
use crate::setup::{self, Purpose};

pub fn validate() -> Result<()> {
    let clock = Clock::start();
    setup::ensure(Purpose::Validate, clock)?;
    clock.say("validate", "the PrometheusRule is that of rules.yml");
    rules::check()?;
    prepare()?;
    let manifests = kubernetes::manifests()?;
    kubernetes::check(&manifests, clock)?;
    types::check(&manifests, clock)?;
    clock.say("validate", "passed");
    Ok(())
}

/// A directory in which scripts find what npm installed.
fn prepare() -> Result<()> {
    let directory = place::work().join("validate");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let modules = directory.join("node_modules");
    // Last time's may lead elsewhere; that there is none is no fault.
    let _ = fs::remove_file(&modules);
    symlink(place::validators()?.join("node/node_modules"), &modules).context("cannot link node_modules")
}

/// A manifest, or several in one text.
pub struct Manifest {
    /// Where it is from, from deploy/ on.
    pub name: String,
    pub text: String,
}

impl Manifest {
    /// Its documents of the operator (`true`), or those of Kubernetes itself.
    fn documents(&self, of_operator: bool) -> impl Iterator<Item = &str> {
        let documents = self.text.split("\n---\n").filter(|text| text.contains("apiVersion:"));
        documents.filter(move |text| text.contains("apiVersion: monitoring.coreos.com/") == of_operator)
    }

    /// The same with a fault: what does not find that checks nothing.
    fn with_fault(&self, from: &str, to: &str) -> Result<Self> {
        let text = self.text.replacen(from, to, 1);
        if text == self.text {
            bail!("`{from}` is not in {}: choose another fault to try the checker with", self.name);
        }
        Ok(Self { name: format!("{} with `{to}`", self.name), text })
    }
}
