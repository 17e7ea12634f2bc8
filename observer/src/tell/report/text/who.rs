//! Who is observed, in a line: process, runtime, container and pod.

use crate::escape::escape;
use crate::sample::{Container, TargetInfo};

/// `checkout (pid 4242, go1.27.3, stripped)`.
pub fn target(target: &TargetInfo) -> String {
    let mut facts = vec![format!("pid {}", target.pid)];
    let runtime = runtime(&target.runtime.name, target.runtime.version.as_deref());
    if !runtime.is_empty() {
        facts.push(escape(&runtime).into_owned());
    }
    if target.runtime.stripped {
        facts.push("stripped".to_owned());
    }
    facts.extend(target.container.as_ref().and_then(container));
    format!("{} ({})", escape(&target.comm), facts.join(", "))
}

/// `container app of pod shop/checkout-0`; by its id where nobody said more.
fn container(container: &Container) -> Option<String> {
    let of = container.pod.as_ref().map(|pod| match &container.namespace {
        Some(namespace) => format!("pod {namespace}/{pod}"),
        None => format!("pod {pod}"),
    });
    let id = || container.id.as_ref().map(|id| id.chars().take(12).collect::<String>());
    let name = container.name.clone().or_else(|| id().filter(|_| of.is_none()));
    let name = name.map(|name| format!("container {name}"));
    let parts: Vec<String> = name.into_iter().chain(of).collect();
    (!parts.is_empty()).then(|| escape(&parts.join(" of ")).into_owned())
}

/// `java 17.0.15`, `go1.27.3`; not yet safe to print.
pub(crate) fn runtime(name: &str, version: Option<&str>) -> String {
    match version {
        // Go's versions begin with its name.
        Some(version) if version.starts_with(name) => version.to_owned(),
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    }
}
