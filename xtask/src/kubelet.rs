//! The pods on a real kubelet: an API server, a scheduler, containerd and a kubelet of Kubernetes 1.20, which is what
//! Debian has the source of, in a network and file systems of their own. By hand, not in CI: building them takes some
//! minutes and 2 GB, once. Needs root.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::image::Arch;
use crate::pods::{OBSERVER, Podman, SERVICE};
use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use crate::{build, checkout, image, place};

const PROGRAMS: [&str; 5] =
    ["kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
/// What holds a pod's namespaces, and their orphans.
const PAUSE: &str = "localhost/pause:dev";

pub fn kubelet() -> Result<()> {
    let clock = Clock::start();
    if !nix::unistd::geteuid().is_root() {
        bail!("a kubelet runs as root");
    }
    setup::ensure(Purpose::Kubelet, clock)?;
    let scripts = place::root().join("xtask/src/kubelet");
    let programs = place::cache()?.join("kubernetes");
    if !PROGRAMS.iter().all(|program| programs.join(program).exists()) {
        let mut command = Command::new(scripts.join("build.sh"));
        clock.run_logged("build", "Kubernetes, from Debian's source", command.arg(&programs))?;
    }
    let observer = image::stripped(&build::dist(clock)?, Arch::Amd64)?;
    let service = checkout::build(clock)?;

    let podman = Podman::new()?;
    let images = podman.path("archives");
    fs::create_dir(&images).with_context(|| format!("cannot create {}", images.display()))?;
    let pause = podman.path("pause");
    let source = scripts.join("pause.c");
    run::check(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&pause).arg(source))?;
    image::make(clock, &observer, Arch::Amd64, OBSERVER, &podman.environment())?;
    podman.image_of(&service, SERVICE)?;
    podman.image_of(&pause, PAUSE)?;
    for name in [OBSERVER, SERVICE, PAUSE] {
        archive(&podman, name, &images)?;
    }
    let work = podman.path("node");
    fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
    clock.say("kubelet", "a node, the example pod and the DaemonSet, at most 7 minutes");
    let mut node = Command::new("timeout");
    node.args(["--kill-after=20", "420", "unshare", "--net", "--mount"]);
    node.arg(scripts.join("node.sh")).arg(&work).arg(&programs);
    node.arg(scripts.join("look.sh")).arg(&images).arg(place::root());
    run::check(&mut node)?;
    clock.say("kubelet", "passed");
    Ok(())
}

fn archive(podman: &Podman, name: &str, into: &Path) -> Result<()> {
    let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
    let to = format!("docker-archive:{}:{name}", into.join(file).with_extension("tar").display());
    run::check(&mut podman.command("buildah", &["push", "--quiet", name, &to]))
}
