//! What is missing is named, in the log and by the doctor, with what to do about it.

use std::path::Path;

use anyhow::Result;

use super::manifest::{AS_ROOT, CAPABILITIES, IMAGE, MEMORY, Manifest};
use super::podman::Podman;
use super::sidecar::{OBSERVER, privileges, target_of};
use super::{expect, until};

pub fn capabilities(podman: &Podman, _: &Path) -> Result<()> {
    let three = ["BPF", "PERFMON", "SYS_PTRACE"];
    for missing in three {
        let left: Vec<&str> = three.into_iter().filter(|name| *name != missing).collect();
        let add = format!("add: [{}]", left.join(", "));
        let _pod = podman.play(Manifest::example()?.change(CAPABILITIES, &add)?.text())?;
        until(20, &format!("the log names {missing}"), || {
            let log = podman.log(OBSERVER)?;
            Ok(log.lines().any(|line| line.contains("WARN") && line.contains(missing)).then_some(()))
        })?;
        let doctor = doctor(podman)?;
        for name in three {
            let line = doctor.lines().find(|line| line.contains(&format!("CAP_{name} "))).unwrap_or("");
            let word = if name == missing { "degraded" } else { "ok" };
            expect(line.starts_with(word), &format!("the doctor says {word} of {name}"), &doctor)?;
        }
        expect(
            doctor.contains(&format!("add {missing} to the container")),
            "and what to do about it",
            &doctor,
        )?;
    }
    Ok(())
}

pub fn memory(podman: &Podman, _: &Path) -> Result<()> {
    let _pod = podman.play(Manifest::example()?.change(MEMORY, "limits: {memory: 16Mi}")?.text())?;
    until(20, "the log says that the memory limit is too small", || {
        let log = podman.log(OBSERVER)?;
        Ok((log.contains("needs at least") && log.contains("resources.limits.memory")).then_some(()))
    })
}

pub fn root(podman: &Podman, _: &Path) -> Result<()> {
    const USER: &str = "        runAsUser: 65532\n        runAsNonRoot: true\n";
    let other =
        Manifest::example()?.change(AS_ROOT, USER)?.change(IMAGE, "image: localhost/observer:dev-nonroot")?;
    let pod = podman.play(other.text())?;
    let observer = until(10, "observer runs", || podman.pid(OBSERVER).map(Some))?;
    until(20, "the service is observed by 65532", || target_of(observer, "checkout"))?;
    privileges(observer, "65532")?;
    drop(pod);

    // Granted to the container, and yet not to this user: that is how Kubernetes does it.
    let _pod = podman.play(Manifest::example()?.change(AS_ROOT, USER)?.text())?;
    until(20, "the log names CAP_BPF", || Ok(podman.log(OBSERVER)?.contains("CAP_BPF").then_some(())))?;
    let doctor = doctor(podman)?;
    expect(doctor.contains("-nonroot"), "the doctor knows the image that helps", &doctor)
}

/// However it ends.
fn doctor(podman: &Podman) -> Result<String> {
    let said = podman.said(&["exec", OBSERVER, "/usr/bin/observer", "doctor"])?;
    Ok(said.out + &said.err)
}
