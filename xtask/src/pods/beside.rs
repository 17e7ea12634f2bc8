//! observer outside of the service's pod: a container that joins its PID namespace, as `kubectl debug --target` makes
//! one, and one in the host's, as a DaemonSet has it.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::manifest::{OBSERVER, SERVICE};
use super::podman::{Pod, Podman};
use super::sidecar::{privileges, targets};
use super::{expect, until};

/// The privileges of deploy/kubernetes, in podman's words.
const RESTRICTED: [&str; 9] = [
    "--network=none",
    "--read-only",
    "--security-opt=no-new-privileges",
    "--cap-drop=all",
    "--cap-add=BPF",
    "--cap-add=PERFMON",
    "--cap-add=SYS_PTRACE",
    "--memory=128m",
    "--user=0:0",
];

pub fn one_look(podman: &Podman, _: &Path) -> Result<()> {
    let _service = service(podman, "alone", "10002")?;
    let mut arguments = vec!["run", "--rm", "--pid=container:alone"];
    arguments.extend(RESTRICTED);
    arguments.extend([OBSERVER, "attach", "1", "--duration", "12s", "--format", "json"]);
    let said = podman.said(&arguments)?;
    let seen = format!("{}{}", said.out, said.err);
    expect(said.ended_well, "observer attach 1 ends well", &seen)?;
    let diagnosis: Value = serde_json::from_str(&said.out).with_context(|| seen.clone())?;
    let right = diagnosis["schema"] == "observer.diagnosis/1"
        && diagnosis["target"]["pid"] == 1
        && diagnosis["target"]["runtime"]["name"] == "go"
        && diagnosis["samples"].as_u64().is_some_and(|samples| samples >= 8)
        && diagnosis["not_the_cause"].as_array().is_some_and(|groups| !groups.is_empty());
    expect(right, "it judges the service as pid 1", &seen)
}

pub fn whole_node(podman: &Podman, _: &Path) -> Result<()> {
    let _one = service(podman, "one", "10003")?;
    let _other = service(podman, "other", "10004")?;
    let id = |name: &str| podman.run(&["inspect", "--format", "{{.Id}}", name]);
    let ids = [id("one")?, id("other")?];
    let mut arguments = vec!["--pid=host"];
    arguments.extend(RESTRICTED);
    let globs = ids.each_ref().map(|id| format!("*{id}*"));
    arguments.extend([OBSERVER, "run", "--cgroup", &globs[0], "--cgroup", &globs[1]]);
    let _observer = podman.start("node", &arguments)?;
    let observer = podman.pid("node")?;
    let found = until(30, "both services are observed", || {
        let found = targets(observer)?;
        Ok((found.len() == 2).then_some(found))
    })?;
    privileges(observer, "0")?;
    for (name, id) in ["one", "other"].into_iter().zip(&ids) {
        let called = format!("checkout@{}", &id[..12]);
        let target = found.iter().find(|target| target["name"] == called);
        let seen = format!("{found:?}");
        let target = target.with_context(|| format!("no {called} in {seen}"))?;
        // Here the host's pids are our own.
        expect(target["target"]["pid"] == podman.pid(name)?, "its pid is the node's", &seen)?;
        expect(target["target"]["namespace_pid"] == 1, "and 1 in its own namespace", &seen)?;
        expect(target["target"]["container"]["id"] == *id, "its container is named", &seen)?;
    }
    Ok(())
}

fn service<'a>(podman: &'a Podman, name: &'static str, user: &str) -> Result<Pod<'a>> {
    podman
        .start(name, &["--network=none", "--cap-drop=all", "--user", user, SERVICE, "serve", "--for", "10m"])
}
