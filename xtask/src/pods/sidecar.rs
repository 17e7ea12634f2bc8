//! The sidecar: what it may do, what it sees, and whom it tells.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::manifest::{Manifest, NAMESPACE};
use super::podman::Podman;
use super::receiver::{self, Alertmanager};
use super::{expect, until};
use crate::run::Background;

pub const OBSERVER: &str = "checkout-observer";
pub const SERVICE: &str = "checkout-checkout";
/// CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF.
pub const THREE: &str = "000000c000080000";

pub fn finds_the_leak(podman: &Podman, service: &Path) -> Result<()> {
    let configuration = podman.path("observer.toml");
    let text = format!(
        "[alerts]\nleak_for = \"1s\"\nstartup = \"1s\"\n[[alerts.alertmanager]]\nurl = \"{}\"\n",
        receiver::URL
    );
    fs::write(&configuration, text)?;
    let volumes = format!(
        "  dnsPolicy: None\n  dnsConfig: {{nameservers: [127.0.0.1], searches: [{NAMESPACE}.svc.cluster.local]}}\n  \
         volumes: [{{name: config, hostPath: {{path: {}, type: File}}}}]\n",
        configuration.display()
    );
    let mounts = "volumeMounts: [{name: config, mountPath: /observer.toml, readOnly: true}]";
    let manifest = Manifest::example()?
        .change("\"0.0.0.0:9713\"]", "\"0.0.0.0:9713\", --config, /observer.toml]")?
        .change("  containers:\n", &format!("{volumes}  containers:\n"))?
        .change("      resources:", &format!("      {mounts}\n      resources:"))?;
    let pod = podman.play(manifest.text())?;

    let observer = until(10, "observer runs", || podman.pid(OBSERVER).map(Some))?;
    let alertmanager = Alertmanager::beside(observer)?;
    privileges(observer, "0")?;
    let target = until(20, "the service is observed", || target_of(observer, "checkout"))?;
    its_place(podman, observer, &target)?;

    let load = load(podman, service, SERVICE)?;
    until(120, "the leak is found", || {
        let metrics = get(observer, "/metrics")?;
        let leak = metrics.contains("observer_leak_suspected{target=\"checkout\"} 1");
        let line = metrics.lines().any(|line| {
            line.starts_with("observer_leak_growth_bytes_per_second{") && line.contains("quote.go:")
        });
        Ok((leak && line).then_some(()))
    })?;
    let alert = until(20, "the alert arrives", || {
        Ok(std::iter::from_fn(|| alertmanager.next())
            .find(|alert| alert["labels"]["alertname"] == "ObserverLeakSuspected"))
    })
    .with_context(|| format!("names that were asked for: {:?}", alertmanager.asked()))?;
    let labels = &alert["labels"];
    let right =
        labels["pod"] == "checkout" && labels["namespace"] == NAMESPACE && labels["target"] == "checkout";
    expect(right, "the alert says which pod", &alert.to_string())?;
    drop(load);

    podman.run(&["restart", "--time", "1", SERVICE])?;
    let again = until(30, "the service is followed over its restart", || {
        Ok(target_of(observer, "checkout")?.filter(|again| again["restarts"] == 1 && again["up"] == true))
    })?;
    expect(again["target"]["pid"] != target["target"]["pid"], "it has another pid", &again.to_string())?;
    expect(targets(observer)?.len() == 1, "there is one target still", &get(observer, "/api/v1/targets")?)?;
    drop(pod);
    Ok(())
}

/// Neither gates its start nor minds that it is not there.
pub fn waits(podman: &Podman, _: &Path) -> Result<()> {
    // podman ends a pod in which nothing runs any more.
    const IDLE: &str = "    - name: idle\n      image: localhost/observer:dev\n      \
                        args: [run, --no-ebpf, --pid, \"4194303\", --listen, \"127.0.0.1:9799\"]\n";
    let place = "    - name: observer\n";
    let manifest = Manifest::example()?.change(place, &format!("{IDLE}{place}"))?;
    let _pod = podman.play(manifest.text())?;
    podman.run(&["stop", "--time", "1", SERVICE])?;
    podman.run(&["restart", "--time", "1", OBSERVER])?;
    let observer = podman.pid(OBSERVER)?;
    until(10, "it is ready without a service", || get(observer, "/readyz").map(Some))?;
    until(10, "it says what it waits for", || {
        let said: Value = serde_json::from_str(&get(observer, "/api/v1/targets")?)?;
        let awaited = said["awaited"][0].as_str().unwrap_or_default() == "no process with exe checkout";
        Ok((awaited && said["targets"].as_array().is_some_and(Vec::is_empty)).then_some(()))
    })?;
    podman.run(&["start", SERVICE])?;
    until(20, "it observes the service that came", || target_of(observer, "checkout"))?;
    Ok(())
}

/// Read from the kernel: these and no others, and none to be had.
pub fn privileges(pid: u32, user: &str) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the status of observer")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        expect(field(set) == THREE, &format!("{set} is {THREE}"), &status)?;
    }
    expect(field("CapAmb:") == "0000000000000000", "there are no ambient capabilities", &status)?;
    expect(field("NoNewPrivs:") == "1", "it can gain none", &status)?;
    expect(field("Seccomp:") == "2", "a seccomp filter is in force", &status)?;
    expect(field("Uid:").starts_with(user), &format!("it runs as {user}"), &status)
}

/// The pid is that of the pod's namespace wherever it is told, and the labels say which pod.
fn its_place(podman: &Podman, observer: u32, target: &Value) -> Result<()> {
    let host = podman.pid(SERVICE)?;
    let status = fs::read_to_string(format!("/proc/{host}/status")).context("the status of the service")?;
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|pids| pids.split_whitespace().nth(1))
        .context("the service has a PID namespace of its own")?;
    expect(status.contains("Uid:\t10001\t"), "the service is another user's", &status)?;
    expect(
        target["target"]["pid"].as_u64() == inner.parse().ok(),
        &format!("its pid is {inner}"),
        &target.to_string(),
    )?;

    let metrics = get(observer, "/metrics")?;
    let info: String = metrics.lines().filter(|line| line.starts_with("observer_target_info{")).collect();
    for label in [
        "target=\"checkout\"".to_owned(),
        format!("pid=\"{inner}\""),
        "pod=\"checkout\"".to_owned(),
        format!("namespace=\"{NAMESPACE}\""),
    ] {
        expect(info.contains(&label), &format!("observer_target_info has {label}"), &info)?;
    }
    let snapshot: Value = serde_json::from_str(&get(observer, "/api/v1/targets/checkout/snapshot")?)?;
    let id = podman.run(&["inspect", "--format", "{{.Id}}", SERVICE])?;
    expect(
        snapshot["target"]["container"]["id"] == id,
        "the container's id is told",
        &snapshot["target"].to_string(),
    )?;
    for told in [&info, &snapshot["target"].to_string(), &podman.log(OBSERVER)?] {
        let digits = |c: char| c.is_ascii_digit();
        let numbers: Vec<&str> = told.split(|c| !digits(c)).collect();
        expect(!numbers.contains(&host.to_string().as_str()), "the host's pid is told nowhere", told)?;
    }
    let degraded: Vec<&str> = metrics.lines().filter(|line| line.starts_with("observer_degraded{")).collect();
    // Of another user's process, the page table is not for us to read: named, and the rest works.
    expect(
        degraded.iter().all(|line| line.contains("\"growth by page\"") || line.contains("\"interval\"")),
        "nothing else is degraded",
        &degraded.join("\n"),
    )
}

/// Load on the service of a container, from its network.
fn load(podman: &Podman, service: &Path, container: &str) -> Result<Background> {
    let address = until(10, "the service says where it listens", || {
        let log = podman.log(container)?;
        let line = log.lines().rfind(|line| line.contains("listening on "));
        Ok(line.and_then(|line| Some(line.rsplit_once("listening on ")?.1.to_owned())))
    })?;
    let mut command = inside(podman.pid(container)?, &service.to_string_lossy());
    command.args(["load", "--target", &address, "--rate", "60", "--for", "3m"]).stdout(Stdio::null());
    Background::start("the load", &mut command)
}

/// A program of the host's, in the network of a process.
pub fn inside(pid: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--net", "--", program]);
    command
}

/// What observer answers to curl in its pod's network.
pub fn get(observer: u32, path: &str) -> Result<String> {
    let mut curl = inside(observer, "curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "10"]);
    let output = curl.arg(format!("http://127.0.0.1:9713{path}")).output().context("cannot run nsenter")?;
    anyhow::ensure!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn targets(observer: u32) -> Result<Vec<Value>> {
    let said: Value = serde_json::from_str(&get(observer, "/api/v1/targets")?)?;
    Ok(said["targets"].as_array().cloned().unwrap_or_default())
}

pub fn target_of(observer: u32, name: &str) -> Result<Option<Value>> {
    Ok(targets(observer)?.into_iter().find(|target| target["name"] == name))
}
