//! The pod that is shipped as an example, with what a test changes in it. Every change must find its place, so that the
//! example cannot drift away from its test.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::place;

pub const OBSERVER: &str = "localhost/observer:dev";
pub const SERVICE: &str = "localhost/checkout:dev";

/// What the downward API would say, where podman 4.3 has no word for it.
pub const NAMESPACE: &str = "shop";
pub const NODE: &str = "node-1";

/// How the example gives its capabilities and its memory.
pub const CAPABILITIES: &str = "add: [BPF, PERFMON, SYS_PTRACE]";
pub const MEMORY: &str = "limits: {memory: 128Mi}";
pub const AS_ROOT: &str = "        runAsUser: 0\n";
pub const IMAGE: &str = "image: localhost/observer:dev";

pub struct Manifest(String);

impl Manifest {
    pub fn example() -> Result<Self> {
        let path = place::root().join("deploy/kubernetes/examples/pod.yaml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self(text)
            .change("valueFrom: {fieldRef: {fieldPath: metadata.namespace}}", &format!("value: {NAMESPACE}"))?
            .change("valueFrom: {fieldRef: {fieldPath: spec.nodeName}}", &format!("value: {NODE}"))?
            // Nobody comes from outside.
            .change("      ports: [{name: observer, containerPort: 9713}]\n", "")
    }

    /// Replaces what must be there once.
    pub fn change(self, from: &str, to: &str) -> Result<Self> {
        let count = self.0.matches(from).count();
        if count != 1 {
            bail!("deploy/kubernetes/examples/pod.yaml has `{from}` {count} times instead of once");
        }
        Ok(Self(self.0.replace(from, to)))
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}
