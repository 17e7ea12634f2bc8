//! The pods on a real kubelet: an API server, a scheduler, containerd and a kubelet of Kubernetes 1.20, which is what
//! Debian has the source of, in a network and file systems of their own. By hand, not in CI: building them takes some
//! minutes and 2 GB, once. Needs root.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
/// For all that is looked at on the node.
const SECONDS: u32 = 480;
/// For ending the node's processes one after the other.
const GRACE: Duration = Duration::from_secs(90);

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
    let nonroot = format!("{OBSERVER}-nonroot");
    for name in [OBSERVER, &nonroot, SERVICE, PAUSE] {
        archive(&podman, name, &images)?;
    }
    let work = podman.path("node");
    fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
    // Kept, for whoever wants to know why it failed.
    let logs = place::work().join("kubelet");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let minutes = SECONDS / 60;
    clock.say("kubelet", &format!("a node, the example pod and the DaemonSet, at most {minutes} minutes"));
    // The node ends with xtask, and by itself puts back what it changed.
    let mut node = Command::new("setpriv");
    node.args(["--pdeathsig", "TERM", "unshare", "--net", "--mount"]).arg(scripts.join("node.sh"));
    node.arg(&work).arg(&logs).arg(&programs).arg(SECONDS.to_string());
    node.arg(scripts.join("look.sh")).arg(&images).arg(place::root());
    node.env("KUSTOMIZE", setup::kubectl().context("no kubectl (run: cargo xtask setup)")?);
    run::check_patiently(&mut node, GRACE)?;
    clock.say("kubelet", "passed");
    Ok(())
}

fn archive(podman: &Podman, name: &str, into: &Path) -> Result<()> {
    let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
    let to = format!("docker-archive:{}:{name}", into.join(file).with_extension("tar").display());
    run::check(&mut podman.command("buildah", &["push", "--quiet", name, &to]))
}
